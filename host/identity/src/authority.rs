/// The certificates and keys of one certificate authority: active and additionally trusted ones together, in the server's order (wire §f.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Name of the cluster it belongs to.
    pub cluster: String,
    /// PEM, one certificate an entry, each ending in a newline.
    pub tls_certificates: Vec<String>,
    /// `<type> <base64>` without a newline, one key an entry.
    pub ssh_keys: Vec<String>,
}

/// All authorities of the cluster and of the clusters it trusts, own cluster first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authorities {
    /// Sign hosts: auth, proxy, nodes.
    pub host: Vec<Authority>,
    /// Sign users and bots.
    pub user: Vec<Authority>,
    /// Sign databases.
    pub database: Vec<Authority>,
}

impl Authorities {
    /// PEM of the TLS certificates of the authorities that sign users, own and trusted clusters.
    pub fn user_tls(&self) -> Vec<String> {
        self.user.iter().flat_map(|authority| authority.tls_certificates.iter().cloned()).collect()
    }
}
