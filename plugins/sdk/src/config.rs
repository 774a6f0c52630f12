use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{Error, FormatUse};

/// Reads the operator's keys. A key without a value counts as absent, as in YAML.
pub(crate) fn parse<C: DeserializeOwned>(json: &str) -> Result<C, Error> {
    let mut keys: Map<String, Value> = serde_json::from_str(json)
        .map_err(|_| Error::invalid_config("the configuration is not an object: write keys and values"))?;
    keys.retain(|_, value| !value.is_null());
    read(keys.clone()).map_err(|message| {
        // serde does not say which key it disliked: it is the one that draws the same complaint alone.
        let alone = |(key, value): &(&String, &Value)| {
            read::<C>(Map::from_iter([((*key).clone(), (*value).clone())])).err().as_ref() == Some(&message)
        };
        let key = keys.iter().find(alone).map(|(key, _)| format!("`{key}`: ")).unwrap_or_default();
        Error::invalid_config(format!("{key}{message}"))
    })
}

fn read<C: DeserializeOwned>(keys: Map<String, Value>) -> Result<C, String> {
    C::deserialize(Value::Object(keys)).map_err(|e| {
        // The message may quote the value, and a value may be a secret: keep what was expected.
        let message = e.to_string();
        match message.rsplit_once(", expected ") {
            Some((_, expected)) => format!("the value has the wrong type: write {expected}"),
            None => message,
        }
    })
}

/// The key `format` of an output: a name, or a map with `name` and the format's own options. Without a name there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FormatOption(Vec<FormatUse>);

impl FormatOption {
    /// As [`crate::Request::formats`] wants it: none or one.
    pub fn uses(&self) -> Vec<FormatUse> {
        self.0.clone()
    }
}

impl<'de> Deserialize<'de> for FormatOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("must be the name of a format, or a map with `name` and the format's options");
        let (name, options) = match Value::deserialize(deserializer)? {
            Value::String(name) => (name, Map::new()),
            Value::Object(mut options) => {
                let Some(Value::String(name)) = options.get("name").cloned() else { return Err(wrong()) };
                options.retain(|key, _| key != "name");
                (name, options)
            }
            _ => return Err(wrong()),
        };
        if name.is_empty() && !options.is_empty() {
            return Err(wrong());
        }
        let format = (!name.is_empty()).then(|| FormatUse { name, config: Value::Object(options).to_string() });
        Ok(Self(format.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(default)]
    struct Sample {
        name: String,
        on: bool,
        format: FormatOption,
    }

    fn refused(json: &str) -> String {
        let error = parse::<Sample>(json).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
        error.message
    }

    #[test]
    fn a_mistake_names_its_key_and_not_its_value() {
        let message = refused(r#"{"on": "hunter2", "name": "x"}"#);
        assert_eq!(message, "`on`: the value has the wrong type: write a boolean");
        assert_eq!(refused(r#"{"name": ["hunter2"]}"#), "`name`: the value has the wrong type: write a string");
        for garbage in ["", "[]", "null", "{", "\"x\"", "7"] {
            assert_eq!(refused(garbage), "the configuration is not an object: write keys and values", "{garbage}");
        }
    }

    #[test]
    fn a_key_without_a_value_or_meaning_is_as_if_it_were_not_there() {
        assert_eq!(parse::<Sample>(r#"{"name": null, "else": 1}"#).unwrap(), Sample::default());
    }

    #[test]
    fn a_format_is_a_name_or_a_map() {
        let uses = |json: &str| parse::<Sample>(json).unwrap().format.uses();
        assert_eq!(uses(r#"{"format": ""}"#), []);
        assert_eq!(uses("{}"), []);
        let plain = FormatUse { name: "mongo".into(), config: "{}".into() };
        assert_eq!(uses(r#"{"format": "mongo"}"#), std::slice::from_ref(&plain));
        assert_eq!(uses(r#"{"format": {"name": "mongo"}}"#), [plain]);
        let config = r#"{"file":"b.properties","z":{"a":1}}"#;
        let json = format!(r#"{{"format": {{"name": "p", {}}}"#, &config[1..]);
        assert_eq!(uses(&json), [FormatUse { name: "p".into(), config: config.into() }]);
        for wrong in [r#"{"format": 7}"#, r#"{"format": {"file": "x"}}"#, r#"{"format": {"name": "", "file": "x"}}"#] {
            assert!(refused(wrong).starts_with("`format`: must be the name of a format"), "{wrong}");
        }
    }
}
