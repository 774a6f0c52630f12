use crate::key_name;
use crate::mistake::{Mistake, Place};
use crate::section::Section;

/// Where a part of the configuration and its keys were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Places {
    pub(crate) whole: Place,
    keys: Vec<(String, Place)>,
}

impl Places {
    pub(crate) fn of(section: &Section) -> Self {
        let keys = section.fields().map(|(key, field)| (key.to_owned(), field.place)).collect();
        Self { whole: section.place.clone(), keys }
    }

    /// For what was not written in a file.
    pub(crate) fn flag(name: &str) -> Self {
        Self { whole: Place::flag(name), keys: Vec::new() }
    }

    /// The place of `key`, which may go deeper, as in `selector.name`: its first part decides about line and column, the part
    /// as a whole where it is not there.
    pub(crate) fn at(&self, key: &str) -> Place {
        let first = key.split(['.', '[']).next().unwrap_or(key);
        let found = self.keys.iter().find(|(name, _)| name == key || name == first);
        let (line, column) = found.map_or((self.whole.line, self.whole.column), |(_, at)| (at.line, at.column));
        if key.is_empty() || self.whole.path.starts_with('-') {
            return self.whole.clone();
        }
        self.whole.key(&key_name(key), line, column)
    }

    pub(crate) fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.at(key).mistake(message)
    }
}
