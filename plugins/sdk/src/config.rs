use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::loose::Loose;
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
    C::deserialize(Loose(Value::Object(keys))).map_err(|e| {
        // The message may quote the value, and a value may be a secret: keep what was expected.
        let message = e.to_string();
        match message.rsplit_once(", expected ") {
            Some((_, expected)) => format!("the value has the wrong type: write {expected}"),
            None => message,
        }
    })
}

/// The key `format` of an output: the name of a format, a map with `name` and the format's own options, or a list of these. An empty
/// name is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FormatOption(Vec<FormatUse>);

impl FormatOption {
    /// As [`crate::Request::formats`] wants it.
    pub fn uses(&self) -> Vec<FormatUse> {
        self.0.clone()
    }
}

impl<'de> Deserialize<'de> for FormatOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = match Value::deserialize(deserializer)? {
            Value::Array(all) => all,
            one => vec![one],
        };
        let uses: Option<Vec<_>> = all.into_iter().map(format_use).collect();
        let wrong = "must be the name of a format, a map with `name` and the format's options, or a list of these";
        Ok(Self(uses.ok_or_else(|| D::Error::custom(wrong))?.into_iter().flatten().collect()))
    }
}

/// `None` for what is no format, `Some(None)` for the empty name.
fn format_use(value: Value) -> Option<Option<FormatUse>> {
    let (name, options) = match value {
        Value::String(name) => (name, Map::new()),
        Value::Object(mut options) => {
            let Some(Value::String(name)) = options.shift_remove("name") else { return None };
            (name, options)
        }
        _ => return None,
    };
    if name.is_empty() {
        return options.is_empty().then_some(None);
    }
    Some(Some(FormatUse { name, config: Value::Object(options).to_string() }))
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
    fn what_is_wanted_decides_what_a_word_or_a_number_means() {
        let name = |json: &str| parse::<Sample>(json).unwrap().name;
        for (value, wanted) in [("2024", "2024"), ("-1.5", "-1.5"), ("true", "true"), ("\"True\"", "True")] {
            assert_eq!(name(&format!(r#"{{"name": {value}}}"#)), wanted);
        }
        for (value, wanted) in
            [("true", true), ("\"yes\"", true), ("\"On\"", true), ("\"TRUE\"", true), ("\"off\"", false)]
        {
            assert_eq!(parse::<Sample>(&format!(r#"{{"on": {value}}}"#)).unwrap().on, wanted, "{value}");
        }
        assert_eq!(parse::<Lists>(r#"{"names": [1, "a", false], "maybe": 7}"#).unwrap().names, ["1", "a", "false"]);
        assert_eq!(parse::<Lists>(r#"{"names": [], "maybe": 7}"#).unwrap().maybe.as_deref(), Some("7"));
    }

    #[derive(Debug, Deserialize)]
    struct Lists {
        names: Vec<String>,
        maybe: Option<String>,
    }

    #[test]
    fn a_key_without_a_value_or_meaning_is_as_if_it_were_not_there() {
        assert_eq!(parse::<Sample>(r#"{"name": null, "else": 1}"#).unwrap(), Sample::default());
    }

    #[test]
    fn a_format_is_a_name_a_map_or_a_list() {
        let uses = |json: &str| parse::<Sample>(json).unwrap().format.uses();
        assert_eq!(uses(r#"{"format": ""}"#), []);
        assert_eq!(uses("{}"), []);
        let plain = FormatUse { name: "mongo".into(), config: "{}".into() };
        assert_eq!(uses(r#"{"format": "mongo"}"#), std::slice::from_ref(&plain));
        assert_eq!(uses(r#"{"format": {"name": "mongo"}}"#), [plain]);
        let config = r#"{"file":"b.properties","z":{"a":1}}"#;
        let json = format!(r#"{{"format": {{"name": "p", {}}}"#, &config[1..]);
        assert_eq!(uses(&json), [FormatUse { name: "p".into(), config: config.into() }]);
        let list = r#"{"format": ["mongo", {"name": "p"}, ""]}"#;
        assert_eq!(uses(list).iter().map(|format| format.name.as_str()).collect::<Vec<_>>(), ["mongo", "p"]);
        for wrong in [
            r#"{"format": [["mongo"]]}"#,
            r#"{"format": 7}"#,
            r#"{"format": {"file": "x"}}"#,
            r#"{"format": {"name": "", "file": "x"}}"#,
        ] {
            assert!(refused(wrong).starts_with("`format`: must be the name of a format"), "{wrong}");
        }
    }
}
