use crate::{Error, Material};

impl Material {
    /// The TLS certificate, PEM.
    ///
    /// # Errors
    /// [`Error::unsupported`] for an SSH host, which has none.
    pub fn certificate(&self) -> Result<&str, Error> {
        let none = "an SSH host has no TLS certificate: use this with another type of output";
        self.tls_certificate.as_deref().ok_or_else(|| Error::unsupported(none))
    }
}
