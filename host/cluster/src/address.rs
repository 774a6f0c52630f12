use std::fmt;

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
    pub(crate) way: Way,
}

/// How bytes get to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Protocol names arrive as they are offered.
    Direct,
    /// Something in front of the proxy hides them: connections are upgraded from HTTP (wire §i.6). `insecure` verifies nothing of it.
    Upgraded { insecure: bool },
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
    /// The routes to try, in order. A proxy's usual ports first speak as a proxy.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let route = |proxy: bool, port: u16| Route { proxy, host: self.host.clone(), port, way: Way::Direct };
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

    fn address(port: Option<u16>, kind: AddressKind) -> Address {
        Address { host: "a".into(), port, kind }
    }

    #[test]
    fn the_port_says_what_to_try_first() {
        let first = |port| address(Some(port), AddressKind::Either).routes()[0].proxy;
        assert!(first(3080) && first(443));
        assert!(!first(3025) && !first(1234));
        assert_eq!(address(Some(3080), AddressKind::Auth).routes().len(), 1);
        assert_eq!(address(None, AddressKind::Auth).routes()[0].port, 3025);
        assert_eq!(Route { proxy: true, host: "::1".into(), port: 443, way: Way::Direct }.to_string(), "[::1]:443");
    }
}
