//! Does something in front of a proxy hide protocol names? (wire §i.6)

use std::collections::HashMap;
use std::time::Duration;

use rustls::{AlertDescription, PeerMisbehaved};
use tokio::sync::Mutex;
use tracing::debug;

use crate::address::{Route, Way};
use crate::channel::{Tls, dial, server_name};
use crate::trust::{Trust, client_config};

/// A protocol that every proxy knows.
const KNOWN: &str = "teleport-reversetunnel";
/// Bound on the question.
const TEST: Duration = Duration::from_secs(5);
/// Decides instead of the question: a list, by `,` or `;`, of `true`, `false`, or `host:port=true`.
const OVERRIDE: &str = "TELEPORT_TLS_ROUTING_CONN_UPGRADE";

/// What was found out, by address; kept until the address fails.
#[derive(Default)]
pub(crate) struct Ways(Mutex<HashMap<String, Way>>);

impl Ways {
    /// How bytes get to `route`. Whoever asks meanwhile shares the answer.
    pub(crate) async fn of(&self, route: &Route, insecure: bool) -> Way {
        if !route.proxy {
            return Way::Direct;
        }
        let mut known = self.0.lock().await;
        if let Some(way) = known.get(&route.to_string()) {
            return *way;
        }
        let ordered = std::env::var(OVERRIDE).ok().and_then(|text| ordered(&text, &route.to_string()));
        let upgrade = match ordered {
            Some(upgrade) => Some(upgrade),
            None => is_needed(route).await,
        };
        let Some(upgrade) = upgrade else { return Way::Direct };
        let way = if upgrade { Way::Upgraded { insecure } } else { Way::Direct };
        known.insert(route.to_string(), way);
        way
    }

    /// The address failed: what is in front of it may have changed.
    pub(crate) async fn forget(&self, route: &Route) {
        self.0.lock().await.remove(&route.to_string());
    }
}

/// `None` where the address does not answer.
async fn is_needed(route: &Route) -> Option<bool> {
    let name = server_name(&route.host).ok()?;
    // Nothing is said inside this connection, and what follows is verified.
    let config = client_config(&Trust::Blind, None, &[KNOWN]).ok()?;
    let dialed = tokio::time::timeout(TEST, dial(route, name, config)).await.ok()?;
    let needed = match dialed {
        Ok(stream) => Some(lacks_protocol(&stream)),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(
                rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol),
            ) => Some(true),
            _ => None,
        },
    };
    debug!(target: "AUTH", "connection upgrade to {route}: {needed:?}");
    needed
}

fn lacks_protocol(stream: &Tls) -> bool {
    stream.get_ref().1.alpn_protocol().is_none_or(|protocol| protocol != KNOWN.as_bytes())
}

/// What the list says of an address; an entry for it goes before one for all.
fn ordered(list: &str, address: &str) -> Option<bool> {
    let said = |text: &str| match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" | "on" => Some(true),
        "0" | "f" | "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    };
    let mut for_all = None;
    for entry in list.split([',', ';']) {
        match entry.split_once('=') {
            Some((of, value)) if of.trim() == address => return said(value),
            Some(_) => {}
            None => for_all = said(entry).or(for_all),
        }
    }
    for_all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_for_the_address_goes_before_one_for_all() {
        for (list, decided) in [
            ("", None),
            ("true", Some(true)),
            ("no; a:443=yes", Some(true)),
            ("yes,a:443=no", Some(false)),
            ("b:443=yes", None),
            ("a:443=perhaps", None),
        ] {
            assert_eq!(ordered(list, "a:443"), decided, "{list}");
        }
    }
}
