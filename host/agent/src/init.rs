//! `tbot init`: which directory, for whom, with which files (surface §A.8, §E). What is done there is the room `storage`'s.

use std::path::{Path, PathBuf};

use catalog::Catalog;
use config::{Config, DestinationConfig, OutputConfig};
use identity::{Failure, RelativePath};
use renewal::planned_files;
use storage::{Preparation, User};
use tracing::warn;

use crate::flags::{Flags, Init};
use crate::{start, wiring};

/// Prepares the directory of one output. Needs no network and no secret.
pub(crate) fn init(flags: &Flags, init: &Init) -> Result<(), String> {
    let owner = init.owner.as_deref().map(owner).transpose()?;
    let users = init.users();
    telemetry::init(flags.log_format.into(), flags.debug);
    let (destination, files) = start::runtime()?.block_on(wanted(flags, init))?;
    let directory = match wiring::place(&destination).map_err(|e| e.to_string())? {
        wiring::Place::Directory(directory) => directory,
        wiring::Place::Memory(_) => return Err("`tbot init` only supports directory destinations".to_owned()),
    };
    let preparation = Preparation { owner, users, clean: init.clean, files };
    directory.initialize(&preparation).map_err(|e| e.to_string())
}

impl Init {
    fn users(&self) -> Result<(User, Option<User>), String> {
        let find = |name: &String| User::find(name).map_err(|e| e.message);
        let bot = self.bot_user.as_ref().ok_or("--bot-user must be set")?;
        Ok((find(bot)?, self.reader_user.as_ref().map(find).transpose()?))
    }
}

/// The destination, and the paths of all files of all outputs that write there.
async fn wanted(flags: &Flags, init: &Init) -> Result<(DestinationConfig, Vec<RelativePath>), String> {
    if let (None, Some(path)) = (&flags.config, &init.destination_dir) {
        // Without a file it is an identity output, as for `tbot start`, and nothing else is asked for.
        let catalog = Catalog::load(Vec::new(), None).await.map_err(|all| start::list(&all))?;
        let files = files(&catalog, "identity", "{}", path).await.map_err(|e| e.to_string())?;
        return Ok((DestinationConfig::directory(path), files));
    }
    let config = wiring::outputs_only(flags, &init.start()).map_err(|mistakes| mistakes.to_string())?;
    for warning in &config.warnings {
        warn!(target: "TBOT", "{warning}");
    }
    let destination = select(&config, init)?;
    let catalog = wiring::catalog(&config, None).await.map_err(|all| start::list(&all))?;
    let mut all = Vec::new();
    for output in config.outputs.iter().filter(|output| path(output) == path_of(&destination)) {
        let options = serde_json::Value::Object(output.options.clone()).to_string();
        let Some(place) = path(output) else { continue };
        let files = files(&catalog, &output.kind, &options, place).await;
        all.extend(files.map_err(|failure| wiring::output_mistake(output, failure).to_string())?);
    }
    Ok((destination, all))
}

fn select(config: &Config, init: &Init) -> Result<DestinationConfig, String> {
    let found = match (&init.init_dir, config.outputs.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => return Err("An output to initialize must be specified with --init-dir".to_owned()),
        (Some(wanted), all) => all.iter().find(|output| path(output) == Some(wanted)),
    };
    let unknown = || {
        let wanted = init.init_dir.clone().unwrap_or_default();
        format!("Cannot initialize destination {wanted:?} because it has not been configured.")
    };
    found.map(|output| output.destination.clone()).ok_or_else(unknown)
}

fn path(output: &OutputConfig) -> Option<&PathBuf> {
    path_of(&output.destination)
}

fn path_of(destination: &DestinationConfig) -> Option<&PathBuf> {
    match destination {
        DestinationConfig::Directory { path, .. } => Some(path),
        DestinationConfig::Memory => None,
    }
}

async fn files(catalog: &Catalog, kind: &str, options: &str, place: &Path) -> Result<Vec<RelativePath>, Failure> {
    let absolute = std::path::absolute(place).unwrap_or_else(|_| place.to_owned());
    let directory = Some(absolute.to_string_lossy());
    let files = planned_files(&*catalog.output(kind).await?, options, directory.as_deref(), catalog).await?;
    files.iter().map(|path| RelativePath::parse(path)).collect()
}

/// `user:group`, names or numbers.
fn owner(text: &str) -> Result<(u32, u32), String> {
    let invalid = || format!("invalid owner string: {text:?}: write it as `user:group`");
    let (user, group) = text.split_once(':').filter(|(_, group)| !group.contains(':')).ok_or_else(invalid)?;
    let user = User::find(user).map_err(|e| e.message)?;
    Ok((user.uid, storage::group(group).map_err(|e| e.message)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_exactly_one_colon() {
        assert_eq!(owner("root:root"), Ok((0, 0)));
        assert_eq!(owner("4242:4343"), Ok((4242, 4343)));
        for wrong in ["root", "root:root:", "a:b:c"] {
            assert!(owner(wrong).unwrap_err().starts_with(&format!("invalid owner string: {wrong:?}")));
        }
        assert!(owner("no-such-user:root").unwrap_err().contains("unknown user no-such-user"));
    }
}
