use std::fmt;

use identity::{Failure, FailureKind};

/// What a configured address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// An Auth Service: direct TLS.
    Auth,
    /// A Proxy Service: HTTPS and TLS routing.
    Proxy,
    /// Either: `auth_server` of versions up to 18 may be both; the port says what to try first (wire §a.4).
    Either,
}

/// Where the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port, where one is given.
    pub port: Option<u16>,
    /// What it is.
    pub kind: AddressKind,
}

/// One way to reach the cluster: what to speak, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) proxy: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

impl Route {
    /// What log lines and errors call it.
    pub(crate) fn service(&self) -> &'static str {
        if self.proxy { "proxy" } else { "auth server" }
    }
}

impl Address {
    /// Reads `host`, `host:port`, `[ipv6]:port`, with or without `https://` in front.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] with the text.
    pub fn parse(text: &str, kind: AddressKind) -> Result<Self, Failure> {
        let wrong = || {
            let message = format!("address `{text}` is not HOST:PORT: write it like `teleport.example.com:443`");
            Failure::new(FailureKind::InvalidConfig, message)
        };
        let rest = text.trim().strip_prefix("https://").unwrap_or(text.trim()).trim_end_matches('/');
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, tail) = bracketed.split_once(']').ok_or_else(wrong)?;
            (host, tail.strip_prefix(':'))
        } else if rest.matches(':').count() > 1 {
            (rest, None)
        } else {
            rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        };
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            return Err(wrong());
        }
        let port = port.map(|port| port.parse().map_err(|_| wrong())).transpose()?;
        Ok(Self { host: host.to_owned(), port, kind })
    }

    /// The routes to try, in order. A proxy's usual ports first speak as a proxy.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let route = |proxy: bool, port: u16| Route { proxy, host: self.host.clone(), port };
        match (self.kind, self.port) {
            (AddressKind::Proxy, Some(port)) => vec![route(true, port)],
            (AddressKind::Proxy, None) => vec![route(true, 443), route(true, 3080)],
            (AddressKind::Auth, port) => vec![route(false, port.unwrap_or(3025))],
            (AddressKind::Either, Some(port @ (443 | 3080))) => vec![route(true, port), route(false, port)],
            (AddressKind::Either, Some(port)) => vec![route(false, port), route(true, port)],
            (AddressKind::Either, None) => vec![route(true, 443), route(true, 3080), route(false, 3025)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, host, port) in [
            ("teleport.example.com:443", "teleport.example.com", Some(443)),
            ("https://teleport.example.com", "teleport.example.com", None),
            ("[::1]:3025", "::1", Some(3025)),
            ("::1", "::1", None),
            ("127.0.0.1:3025", "127.0.0.1", Some(3025)),
        ] {
            let address = Address::parse(text, AddressKind::Either).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
        }
        for bad in ["", ":443", "host:port", "host:99999", "a b:1", "http://x/y"] {
            assert!(Address::parse(bad, AddressKind::Either).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_port_says_what_to_try_first() {
        let first = |text| Address::parse(text, AddressKind::Either).unwrap().routes()[0].proxy;
        assert!(first("a:3080") && first("a:443"));
        assert!(!first("a:3025") && !first("a:1234"));
        assert_eq!(Address::parse("a:3080", AddressKind::Auth).unwrap().routes().len(), 1);
    }
}
