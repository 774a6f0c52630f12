use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::Error;
use crate::host::http::{Request, Response};

type Server = Box<dyn FnMut(&Request) -> Result<Response, Error>>;

/// The machine that a plugin believes to run on in a native test: nothing is there but what is put there.
#[derive(Default)]
pub struct Machine {
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Files by their absolute paths.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Milliseconds since 1970. Waiting moves it on.
    pub milliseconds: u64,
    /// The private key, PKCS#8 DER, where it is revealed.
    pub private_key: Option<Vec<u8>>,
    /// All requests so far.
    pub requests: Vec<Request>,
    server: Option<Server>,
}

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

impl Machine {
    /// With these environment variables.
    #[must_use]
    pub fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// With this file.
    #[must_use]
    pub fn file(mut self, path: &str, contents: &str) -> Self {
        self.files.insert(path.to_owned(), contents.into());
        self
    }

    /// With this private key revealed.
    #[must_use]
    pub fn private_key(mut self, pkcs8_der: Vec<u8>) -> Self {
        self.private_key = Some(pkcs8_der);
        self
    }

    /// With one answer for every request, whatever its host.
    #[must_use]
    pub fn server(mut self, answer: impl FnMut(&Request) -> Result<Response, Error> + 'static) -> Self {
        self.server = Some(Box::new(answer));
        self
    }

    /// Runs `test` on this machine. Gives it back, for what was asked of it.
    ///
    /// # Panics
    /// Where one machine runs inside another.
    pub fn run<T>(self, test: impl FnOnce() -> T) -> (T, Self) {
        let before = MACHINE.with(|machine| machine.borrow_mut().replace(self));
        assert!(before.is_none(), "a machine runs already");
        let result = test();
        let machine = MACHINE.with(|machine| machine.borrow_mut().take()).expect("it was put there");
        (result, machine)
    }
}

pub(crate) fn now() -> u64 {
    with(|machine| machine.milliseconds / 1000)
}

pub(crate) fn wait(milliseconds: u32) {
    with(|machine| machine.milliseconds += u64::from(milliseconds));
}

pub(crate) fn environment(name: &str) -> Result<Option<String>, Error> {
    Ok(with(|machine| machine.environment.get(name).cloned()))
}

pub(crate) fn file(path: &str) -> Result<Vec<u8>, Error> {
    let missing = || Error::unavailable(format!("file `{path}`: no such file"));
    with(|machine| machine.files.get(path).cloned()).ok_or_else(missing)
}

pub(crate) fn private_key() -> Result<Vec<u8>, Error> {
    let refused = || Error::denied("the private key is not revealed: grant `private_key: reveal`");
    with(|machine| machine.private_key.clone()).ok_or_else(refused)
}

pub(crate) fn send(request: &Request) -> Result<Response, Error> {
    // Not while the server answers: it may look at the clock.
    let server = with(|machine| {
        machine.requests.push(request.clone());
        machine.server.take()
    });
    let Some(mut server) = server else { return Err(Error::unavailable("connection refused")) };
    let answer = server(request);
    with(|machine| machine.server = Some(server));
    answer
}

fn with<T>(look: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE
        .with(|machine| look(machine.borrow_mut().as_mut().expect("what asks the machine runs inside `Machine::run`")))
}
