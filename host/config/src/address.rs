/// Which service listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// The Auth Service.
    Auth,
    /// The Proxy Service: `proxy_server`.
    Proxy,
    /// One of the two, to be found out: `auth_server` up to Teleport 18 may name a proxy (surface §B.4).
    Either,
}

/// Where the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// As it was written, for messages.
    pub text: String,
    /// Host name or IP address, an IPv6 address without its brackets.
    pub host: String,
    /// Port, where one was given.
    pub port: Option<u16>,
    /// Which service it is.
    pub kind: ServerKind,
}

impl ServerAddress {
    /// Reads `host`, `host:port` or `[v6]:port`; `tcp://`, `http://` and `https://` in front and what follows the address are let pass, as in
    /// the original: people copy it out of their browser.
    ///
    /// # Errors
    /// What is wrong and how to mend it.
    pub fn parse(text: &str, kind: ServerKind) -> Result<Self, String> {
        let form = || format!("`{text}` is no address: write `host:port`, such as `example.teleport.sh:443`");
        let bare = ["tcp://", "https://", "http://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        let bare = bare.unwrap_or(text);
        let bare = bare.split(['/', '?', '#']).next().unwrap_or(bare);
        let (host, port) = if let Some(bracketed) = bare.strip_prefix('[') {
            let (host, tail) = bracketed.split_once(']').ok_or_else(form)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| form())?;
            let port = if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(form)?) };
            (host, port)
        } else if bare.parse::<std::net::Ipv6Addr>().is_ok() {
            (bare, None)
        } else {
            bare.split_once(':').map_or((bare, None), |(host, port)| (host, Some(port)))
        };
        let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(name) {
            return Err(form());
        }
        let number = |port: &str| {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { port.parse::<u16>().ok() } else { None };
            let wrong = || format!("`{text}` has no valid port: write a number from 1 to 65535 behind the colon");
            number.filter(|number| *number > 0).ok_or_else(wrong)
        };
        let port = port.map(number).transpose()?;
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_with_and_without_port() {
        for (text, host, port) in [
            ("example.teleport.sh:443", "example.teleport.sh", Some(443)),
            ("example.teleport.sh", "example.teleport.sh", None),
            ("127.0.0.1:3025", "127.0.0.1", Some(3025)),
            ("[::1]:3025", "::1", Some(3025)),
            ("[::1]", "::1", None),
            ("fd00::1", "fd00::1", None),
            ("https://proxy.example.com:3080/", "proxy.example.com", Some(3080)),
            ("tcp://auth:3025", "auth", Some(3025)),
            ("https://example.teleport.sh/web/login?x=y#z", "example.teleport.sh", None),
            ("https://[::1]:3080/web", "::1", Some(3080)),
            ("a:1?x", "a", Some(1)),
        ] {
            let address = ServerAddress::parse(text, ServerKind::Either).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((address.host.as_str(), address.port, address.text.as_str()), (host, port, text));
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            ":443",
            "a:b",
            "a:0",
            "a:65536",
            "a:+1",
            "a:",
            "a b:1",
            "[::1",
            "[x]:1",
            "[::1]x",
            "/web",
            "https:///web",
            "ftp://a:1",
            "u@h:1",
        ] {
            assert!(ServerAddress::parse(text, ServerKind::Proxy).is_err(), "{text:?}");
        }
    }
}
