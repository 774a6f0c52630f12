use crate::key_name;
use crate::mistake::{Mistake, Place};
use crate::section::Section;

/// Where a part of the configuration and its keys were written. Not part of what it says: all are equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) whole: Place,
    keys: Vec<(String, Place)>,
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
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
        if key.is_empty() || self.whole.path.starts_with('-') {
            return self.whole.clone();
        }
        if let Some((_, place)) = self.keys.iter().find(|(name, _)| name == key) {
            return place.clone();
        }
        let first = key.split(['.', '[']).next().unwrap_or(key);
        let found = self.keys.iter().find(|(name, _)| name == first);
        let (line, column) = found.map_or((self.whole.line, self.whole.column), |(_, at)| (at.line, at.column));
        self.whole.key(&key_name(key), line, column)
    }

    /// `key` stands at `place`, under another name: the key of an older schema.
    pub(crate) fn alias(&mut self, key: &str, place: Place) {
        self.keys.push((key.to_owned(), place));
    }

    /// Whether `key` was written.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|(name, _)| name == key)
    }

    pub(crate) fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        self.at(key).mistake(message)
    }
}
