//! `tbot migrate`: a file of the first schema as one of the second.

use std::path::Path;

use tracing::{info, warn};

use crate::flags::Flags;

/// Prints the migrated file, or writes it to `output`; the log tells what to look at.
pub(crate) fn migrate(flags: &Flags, output: Option<&Path>) -> Result<(), String> {
    let source = flags.config.as_deref().ok_or("source config file must be provided with -c")?;
    let same = |output: &Path| {
        output == source || matches!((output.canonicalize(), source.canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    if output.is_some_and(same) {
        return Err("migrated config output path should not be the same as the source config path".to_owned());
    }
    telemetry::init(flags.log_format.into(), flags.debug);
    let migrated = config::migrate_file(source).map_err(|refused| {
        refused.mistakes.iter().for_each(|mistake| eprintln!("{mistake}"));
        refused.to_string()
    })?;
    for warning in &migrated.warnings {
        warn!(target: "TBOT", "{warning}");
    }
    write(&migrated.yaml, output)
}

/// Only ever called with a whole file: nothing is truncated for one that is wrong.
pub(crate) fn write(text: &str, output: Option<&Path>) -> Result<(), String> {
    let Some(path) = output.filter(|path| !path.as_os_str().is_empty()) else {
        print!("{text}");
        return Ok(());
    };
    std::fs::write(path, text).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
    info!(target: "TBOT", "Generated config file written to file: {}", path.display());
    Ok(())
}
