//! URLs in their normal form, and what of them an entry of `http` covers.

use std::net::IpAddr;

use reqwest::{Method, Url};

use crate::address::{Reach, canonical, reach};

/// Longest URL, bytes: what servers take.
const URL_BYTES: usize = 8 << 10;

/// One entry of `http`, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prefix {
    method: Method,
    url: Url,
    private: bool,
}

impl Prefix {
    /// Of `[METHOD ]URL[ at private]`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (text, private) = match text.strip_suffix(" at private") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (method, url) = text.split_once(' ').unwrap_or(("GET", text));
        let known = [Method::GET, Method::POST, Method::PUT].into_iter().find(|known| known.as_str() == method);
        let method = known.ok_or_else(|| format!("{method:?} is no method: GET, POST or PUT"))?;
        Ok(Self { method, url: target(url)?, private })
    }

    /// Is this request one of those that the entry means?
    pub(crate) fn covers(&self, method: &Method, url: &Url) -> bool {
        let origin =
            |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
        let path = match self.url.path().ends_with('/') {
            true => url.path().starts_with(self.url.path()),
            false => url.path() == self.url.path(),
        };
        let query = match (self.url.query(), url.query()) {
            (None, _) => true,
            (Some(wanted), Some(query)) => {
                query.strip_prefix(wanted).is_some_and(|more| more.is_empty() || more.starts_with('&'))
            }
            (Some(_), None) => false,
        };
        self.method == *method && origin(&self.url) == origin(url) && path && query
    }

    /// May the host connect to this address for it?
    pub(crate) fn reaches(&self, address: IpAddr) -> bool {
        let literal = match self.url.host() {
            Some(url::Host::Ipv4(named)) => canonical(named.into()) == canonical(address),
            Some(url::Host::Ipv6(named)) => canonical(named.into()) == canonical(address),
            // By its own standard (RFC 6761) that name is the address.
            Some(url::Host::Domain("localhost")) => canonical(address).is_loopback(),
            _ => false,
        };
        literal
            || match reach(address) {
                Reach::Public => true,
                Reach::Private => self.private,
                Reach::Local => false,
            }
    }
}

/// The URL in its normal form: what is compared is what is asked for. The parser resolves `.` and `..`, however they are encoded,
/// and numbers that mean an address.
///
/// # Errors
/// For a person.
pub(crate) fn target(text: &str) -> Result<Url, String> {
    // Not quoted: what is no URL may be anything, and of a query only the caller knows whether it is secret.
    let url = match text.len() > URL_BYTES {
        true => return Err(format!("the URL has more than {URL_BYTES} bytes")),
        false => Url::parse(text).map_err(|e| format!("that is no URL: {e}"))?,
    };
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err(format!("a URL begins with `https://` or `http://`, not `{}:`", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not hold a user name or a password".into());
    }
    if url.fragment().is_some() {
        return Err("a URL must not hold a fragment (`#`)".into());
    }
    let path = url.path().to_ascii_lowercase();
    if let Some(hidden) = ["%2f", "%5c", "%2e", "%25", "%00"].iter().find(|hidden| path.contains(**hidden)) {
        return Err(format!("a path must not hold `{hidden}`: servers disagree about what it means"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(entry: &str, url: &str) -> bool {
        let url = target(url);
        url.is_ok_and(|url| Prefix::parse(entry).unwrap().covers(&Method::GET, &url))
    }

    #[test]
    fn a_path_that_ends_with_a_slash_covers_what_is_below() {
        let entry = "http://169.254.169.254/metadata/";
        for inside in [
            "http://169.254.169.254/metadata/versions?format=json",
            "http://169.254.169.254:80/metadata/a/../b",
            "HTTP://169.254.169.254/metadata/",
            // The same address, written otherwise: what is asked is what the parser made of it.
            "http://2852039166/metadata/x",
            "http://0xa9fea9fe/metadata/x",
            "http://0251.0376.0251.0376/metadata/x",
            "http:\\\\169.254.169.254\\metadata\\x",
        ] {
            assert!(covered(entry, inside), "{inside}");
        }
        for outside in [
            "http://169.254.169.254/metadata",
            "http://169.254.169.254/metadata/../latest/",
            "http://169.254.169.254/metadata/%2e%2e/latest/",
            "http://169.254.169.254/metadata/.%2E/latest/",
            "http://169.254.169.254/metadata/..%2flatest/",
            "http://169.254.169.254/metadata/..%5Clatest/",
            "http://169.254.169.254/metadata/%252e%252e/latest/",
            "http://169.254.169.254/metadata\\..\\latest/",
            "http://169.254.169.254/%6detadata/x",
            "http://169.254.169.254:8080/metadata/",
            "https://169.254.169.254/metadata/",
            "http://169.254.169.254.evil.example/metadata/",
            "http://evil.example/http://169.254.169.254/metadata/",
            "http://user@169.254.169.254/metadata/",
            "http://169.254.169.254:80@evil.example/metadata/",
            "http://169.254.169.254/metadata/#x",
            "http://[::ffff:169.254.169.254]/metadata/x",
            "ftp://169.254.169.254/metadata/",
            "file:///metadata/",
            "//169.254.169.254/metadata/",
            "",
        ] {
            assert!(!covered(entry, outside), "{outside}");
        }
    }

    #[test]
    fn another_path_covers_itself_and_a_query_those_that_begin_with_it() {
        let entry = "https://ci.example/token?api-version=2.0";
        assert!(covered(entry, "https://ci.example/token?api-version=2.0&audience=x"));
        assert!(covered(entry, entry));
        for outside in [
            "https://ci.example/token?api-version=2.01",
            "https://ci.example/token",
            "https://ci.example/token/?api-version=2.0",
            "https://ci.example/tokens?api-version=2.0",
        ] {
            assert!(!covered(entry, outside), "{outside}");
        }
        assert!(covered("https://ci.example", "https://ci.example/everything?and=more"));
    }

    #[test]
    fn the_method_is_part_of_it() {
        let url = target("http://a.example/x").unwrap();
        let put = Prefix::parse("PUT http://a.example/x").unwrap();
        assert!(put.covers(&Method::PUT, &url) && !put.covers(&Method::GET, &url));
        for wrong in ["DELETE http://a.example/", "put http://a.example/", "", " at private"] {
            assert!(Prefix::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_near_the_machine_have_to_be_written_out() {
        let reaches = |entry: &str, address: &str| Prefix::parse(entry).unwrap().reaches(address.parse().unwrap());
        assert!(reaches("http://169.254.169.254/", "169.254.169.254"));
        assert!(reaches("http://169.254.169.254/", "::ffff:169.254.169.254"));
        assert!(reaches("http://[fd00:ec2::254]/", "fd00:ec2::254"));
        assert!(!reaches("http://169.254.169.254/", "127.0.0.1"));
        assert!(reaches("http://localhost:9/", "::1") && !reaches("http://localhost:9/", "169.254.169.254"));
        for name in ["https://a.example/", "https://a.example/ at private"] {
            assert!(reaches(name, "93.184.216.34"), "{name}");
            for near in ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0"] {
                assert!(!reaches(name, near), "{name} {near}");
            }
            assert_eq!(reaches(name, "10.1.2.3"), name.ends_with("private"), "{name}");
        }
    }
}
