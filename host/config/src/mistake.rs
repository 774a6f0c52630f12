use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake in a configuration, or one warning: where, and what to do about it. Whoever wrote the file is at fault.
/// Never holds a secret: values under `token` are not quoted, nor are lines of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file; `None` where a flag or an environment variable is at fault.
    pub file: Option<PathBuf>,
    /// Line, counted from 1; 0 where there is none.
    pub line: u64,
    /// Column in characters, counted from 1; 0 where there is none.
    pub column: u64,
    /// The key, such as `outputs[1].destination.path`, or the flag, such as `--data-dir`. May be empty.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
    /// A flag mends it, or another version of the agent takes it: `tbot migrate` writes it all the same, and warns.
    pub(crate) curable: bool,
    /// Where a value has the wrong type: the value as the original's parser names it, such as ``!!int `60` ``.
    pub(crate) mistyped: Option<String>,
}

impl Mistake {
    /// What is wrong, without the remedy: the message up to its first `: ` that no quoted value follows.
    pub fn cause(&self) -> &str {
        let end = self.message.match_indices(": ").find(|(at, _)| !self.message[at + 2..].starts_with('"'));
        end.map_or(&self.message, |(at, _)| &self.message[..at])
    }
}

impl Mistake {
    /// Of which no place in the file is known: what a room found that never saw the text. `path` may be empty.
    pub fn elsewhere(file: Option<PathBuf>, path: impl Into<String>, message: impl Into<String>) -> Self {
        let place = Place { file, path: path.into(), ..Place::default() };
        place.mistake(message)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake of one run, in the order of the file; never empty. Prints one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

/// A place in the configuration that a message can name, kept by the checked types for whoever judges them later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub(crate) file: Option<PathBuf>,
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) path: String,
}

impl Place {
    /// What a flag or an environment variable says.
    pub(crate) fn flag(name: &str) -> Self {
        Self { path: name.to_owned(), ..Self::default() }
    }

    /// The whole file.
    pub(crate) fn file(path: &Path) -> Self {
        Self { file: Some(path.to_owned()), ..Self::default() }
    }

    /// A mistake at this place. `message` quotes no secret.
    pub fn mistake(&self, message: impl Into<String>) -> Mistake {
        let Self { file, line, column, path } = self.clone();
        Mistake { file, line, column, path, message: message.into(), curable: false, mistyped: None }
    }

    /// The place of a key below this one.
    pub(crate) fn key(&self, key: &str, line: u64, column: u64) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { file: self.file.clone(), line, column, path }
    }

    /// The place of an entry of the list at this one, counted from 0.
    pub(crate) fn index(&self, index: usize, line: u64, column: u64) -> Self {
        Self { file: self.file.clone(), line, column, path: format!("{}[{index}]", self.path) }
    }
}

/// What was found while reading: mistakes refuse the configuration, warnings do not.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) warnings: Vec<Mistake>,
}

impl Report {
    pub(crate) fn mistake(&mut self, place: &Place, message: impl Into<String>) {
        self.mistakes.push(place.mistake(message));
    }

    /// A mistake that a flag mends, or that is none for another version of the agent.
    pub(crate) fn curable(&mut self, place: &Place, message: impl Into<String>) {
        self.mistakes.push(Mistake { curable: true, ..place.mistake(message) });
    }

    pub(crate) fn warning(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.push(place.mistake(message));
    }
}
