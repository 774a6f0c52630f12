//! What the host does for a plugin, where its manifest asks for it and the operator grants it. In a native test a
//! [`crate::testing::Machine`] does it.

/// The time.
pub mod clock {
    /// Seconds since 1970.
    pub fn now() -> u64 {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::join::tbot::host::clock::now();
        #[cfg(not(target_arch = "wasm32"))]
        crate::machine::now()
    }

    /// Waits before something is asked for again; the deadline of the call goes on.
    pub fn wait(milliseconds: u32) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::join::tbot::host::clock::wait(milliseconds);
        #[cfg(not(target_arch = "wasm32"))]
        crate::machine::wait(milliseconds);
    }
}

/// Environment variables and files.
pub mod input {
    use crate::Error;

    /// The variable's value, `None` where it is not set.
    ///
    /// # Errors
    /// [`Error::denied`] where it is not granted.
    pub fn environment(name: &str) -> Result<Option<String>, Error> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::join::tbot::host::input::environment(name);
        #[cfg(not(target_arch = "wasm32"))]
        crate::machine::environment(name)
    }

    /// The file's contents, at most 64 KiB.
    ///
    /// # Errors
    /// [`Error::denied`] where it is not granted, [`Error::unavailable`] where it cannot be read.
    pub fn file(path: &str) -> Result<Vec<u8>, Error> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::join::tbot::host::input::file(path);
        #[cfg(not(target_arch = "wasm32"))]
        crate::machine::file(path)
    }
}

/// Requests that the host performs: at most eight a call, each within 5 s and 64 KiB. Redirects are not followed.
pub mod http {
    use crate::Error;
    pub use crate::bindings::join::tbot::host::http::{Header, Request, Response};

    /// Any status is an answer.
    ///
    /// # Errors
    /// [`Error::denied`] where it is not granted, [`Error::unavailable`] where no whole answer came.
    pub fn send(request: &Request) -> Result<Response, Error> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::join::tbot::host::http::send(request);
        #[cfg(not(target_arch = "wasm32"))]
        crate::machine::send(request)
    }

    /// A request without a body.
    pub fn request(method: &str, url: impl Into<String>, headers: &[(&str, &str)]) -> Request {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).to_owned(), value: (*value).to_owned() };
        let headers = headers.iter().map(header).collect();
        Request { method: method.to_owned(), url: url.into(), headers, body: Vec::new() }
    }
}

/// The private key of the certificate that is being rendered: for files that need it transformed. Where it can stand as it is, use
/// [`crate::Piece::PrivateKey`], which needs no grant.
pub mod private_key {
    use crate::Error;

    /// PKCS#8, DER.
    ///
    /// # Errors
    /// [`Error::denied`] where manifest and operator do not both say `private_key: reveal`.
    pub fn pkcs8_der() -> Result<Vec<u8>, Error> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::output::tbot::host::private_key::pkcs8_der();
        #[cfg(not(target_arch = "wasm32"))]
        crate::machine::private_key()
    }
}
