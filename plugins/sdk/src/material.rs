use crate::{Authority, Error, Material};

impl Material {
    /// The TLS certificate, PEM.
    ///
    /// # Errors
    /// [`Error::unsupported`] for an SSH host, which has none.
    pub fn certificate(&self) -> Result<&str, Error> {
        let none = "an SSH host has no TLS certificate: use this with another type of output";
        self.tls_certificate.as_deref().ok_or_else(|| Error::unsupported(none))
    }

    /// The host authorities without those of leaf clusters.
    pub fn own_host_authorities(&self) -> Vec<Authority> {
        self.host_authorities.iter().filter(|one| one.cluster == self.cluster.name).cloned().collect()
    }
}
