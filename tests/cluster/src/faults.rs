//! What goes wrong on demand, and what was asked.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

/// A fault of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers only after this time.
    Delay(Duration),
    /// gRPC UNAVAILABLE, HTTP 504.
    Unavailable,
    /// Cuts the connection before doing anything.
    Cut,
    /// Does what was asked, then cuts the connection: the client cannot know.
    LoseAnswer,
    /// Does nothing, and answers what no cluster would.
    Hostile(Hostile),
}

/// An answer meant to do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostile {
    /// What is no message; JSON of other types.
    Nonsense,
    /// A message of a gibibyte, and its bytes as fast as they are taken.
    Oversize,
    /// One whole message after another, and no end.
    Endless,
    /// A byte now and then.
    Trickle,
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `/proto.AuthService/Ping`, or a verb and a path: `POST /v2/tokens/register`.
    pub method: String,
    /// The user of the client certificate; empty for anonymous.
    pub peer: String,
    /// `auth` or `proxy`.
    pub port: &'static str,
    /// The client's `version` metadata, where it sent one.
    pub version: Option<String>,
}

/// Switches of a running stand-in.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Switches>);

#[derive(Default)]
struct Switches {
    rules: Vec<Rule>,
    locks: BTreeMap<String, String>,
    denied_outputs: Vec<String>,
    log: Vec<Request>,
}

struct Rule {
    method: String,
    fault: Fault,
    left: Option<u32>,
}

impl Faults {
    /// `times` of `None` is for ever. A method is named in full or by its last part.
    pub fn add(&self, method: &str, fault: Fault, times: Option<u32>) {
        self.with(|switches| switches.rules.push(Rule { method: method.to_owned(), fault, left: times }));
    }

    pub fn clear(&self) {
        self.with(|switches| switches.rules.clear());
    }

    /// The faults this call meets; each is used up once.
    pub fn take(&self, method: &str) -> Vec<Fault> {
        self.with(|switches| {
            let mut met = Vec::new();
            for rule in switches.rules.iter_mut().filter(|rule| names(&rule.method, method)) {
                match &mut rule.left {
                    Some(0) => continue,
                    Some(left) => *left -= 1,
                    None => {}
                }
                met.push(rule.fault);
            }
            met
        })
    }

    pub fn lock(&self, user: &str, message: &str) {
        self.with(|switches| switches.locks.insert(user.to_owned(), message.to_owned()));
    }

    pub fn unlock(&self, user: &str) {
        self.with(|switches| switches.locks.remove(user));
    }

    pub fn lock_on(&self, user: &str) -> Option<String> {
        self.with(|switches| switches.locks.get(user).cloned())
    }

    pub fn deny_output(&self, name: &str) {
        self.with(|switches| switches.denied_outputs.push(name.to_owned()));
    }

    pub fn allow_output(&self, name: &str) {
        self.with(|switches| switches.denied_outputs.retain(|denied| denied != name));
    }

    pub fn denies(&self, name: &str) -> bool {
        self.with(|switches| switches.denied_outputs.iter().any(|denied| denied == name))
    }

    pub fn record(&self, request: Request) {
        tracing::debug!(method = request.method, peer = request.peer, port = request.port, "request");
        self.with(|switches| switches.log.push(request));
    }

    pub fn log(&self) -> Vec<Request> {
        self.with(|switches| switches.log.clone())
    }

    pub fn calls(&self, method: &str) -> usize {
        self.with(|switches| switches.log.iter().filter(|request| names(method, &request.method)).count())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Switches) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

fn names(pattern: &str, method: &str) -> bool {
    pattern == method || method.rsplit('/').next() == Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up() {
        let faults = Faults::default();
        faults.add("Ping", Fault::Unavailable, Some(2));
        let met: Vec<_> = (0..3).map(|_| faults.take("/proto.AuthService/Ping").len()).collect();
        assert_eq!(met, [1, 1, 0]);
        assert!(faults.take("/proto.AuthService/GetRole").is_empty());
    }
}
