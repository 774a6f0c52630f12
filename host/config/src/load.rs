use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::file::Draft;
use crate::mistake::{Place, Report};
use crate::{Config, Flags, Mistake, Mistakes, check, file};

/// Largest file: a thousand outputs take a fifth of it, and anything larger is not a configuration.
const FILE_BYTES: usize = 1 << 20;

/// The configuration of one run: the file at `path` (followed where it is a link), where there is one, then environment, then flags, the later winning.
/// `environment` gives a variable's value.
///
/// # Errors
/// Every mistake at once; where the file cannot be read or is no YAML, that one.
pub fn load(
    path: Option<&Path>,
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Mistakes> {
    match path {
        None => parse(None, flags, environment),
        Some(path) => parse(Some((path, &read(path)?)), flags, environment),
    }
}

/// As [`load`], with the name and the contents of the file. The name is for messages only.
///
/// # Errors
/// As [`load`].
pub fn parse(
    source: Option<(&Path, &[u8])>,
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Mistakes> {
    let mut report = Report::default();
    let mut draft = Draft::default();
    if let Some((path, bytes)) = source {
        let text = text(path, bytes)?;
        let Some(read) = file::read(path, text, &mut report) else {
            return Err(Mistakes(report.mistakes));
        };
        draft = read;
    }
    let path = source.map(|(path, _)| path.to_owned());
    let name = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    flags.or_environment(environment).merge(&mut draft, &name, &mut report);
    check::finish(path, draft, flags, report)
}

pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Mistakes> {
    let unreadable = |e: std::io::Error| {
        let message = format!("loading bot config: failed to open file: {e}: correct `--config`");
        Mistakes::from(Place::file(path).mistake(message))
    };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // One byte more than allowed tells that it is too large without reading all of it.
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

pub(crate) fn text<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b str, Mistake> {
    if bytes.len() > FILE_BYTES {
        let message =
            format!("failed parsing config file: larger than {} MiB: is it the right file?", FILE_BYTES >> 20);
        return Err(Place::file(path).mistake(message));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = before.matches('\n').count() as u64 + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) as u64 + 1;
        let place = Place { line, column, ..Place::file(path) };
        place.mistake("failed parsing config file: not UTF-8: save the file in that encoding")
    })
}
