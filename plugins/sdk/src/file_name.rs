use serde::Deserialize;

/// The longest component, bytes: an ending such as `-user-ca.pub` has to fit into the host's 64 as well.
const COMPONENT_BYTES: usize = 48;
/// Most components: a file inside has to fit into the host's 4 as well.
const COMPONENTS: usize = 3;

/// A file's name, or the stem of several, that the operator may choose: relative to the destination, nothing hidden, nothing that
/// climbs. An empty one counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileName(Option<String>);

impl FileName {
    /// What was chosen, or `usual`.
    pub fn or<'a>(&'a self, usual: &'a str) -> &'a str {
        self.0.as_deref().unwrap_or(usual)
    }
}

impl TryFrom<String> for FileName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name.is_empty() {
            return Ok(Self(None));
        }
        let component = |part: &str| !part.is_empty() && !part.starts_with('.') && part.len() <= COMPONENT_BYTES;
        let plain = !name.chars().any(|c| c.is_control() || c == '\\');
        match plain && name.split('/').all(component) && name.split('/').count() <= COMPONENTS {
            true => Ok(Self(Some(name))),
            false => Err(format!(
                "must be a name inside the destination, without a dot in front, at most {COMPONENT_BYTES} bytes long"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_inside_the_destination() {
        for bad in
            ["/etc/passwd", "../key", "a//b", "a/", ".hidden", "a/.b", "a\nb", "a\\b", "a/b/c/d", &"x".repeat(49)]
        {
            assert!(FileName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        for (good, wanted) in [("", "usual"), ("key", "key"), ("certs/db", "certs/db")] {
            assert_eq!(FileName::try_from(good.to_owned()).unwrap().or("usual"), wanted);
        }
    }
}
