use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use identity::{Authorities, Authority, Material, SshCertificate, TlsCertificate};

/// The material of which the original made its `identity` output on a real v15 cluster.
///
/// # Errors
/// A recording that cannot be read.
pub fn recorded_material() -> Result<Material> {
    let folder = "../../tests/recordings/v15/runs/oneshot-direct/files/identity";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let cluster = "lab.example.com".to_owned();
    let known_hosts = read("known_hosts")?;
    let host_keys =
        known_hosts.lines().filter_map(|line| line.split_once(' ')?.1.split_once(' ')?.1.strip_suffix(" type=host"));
    let authority = |name: &str, ssh_keys: Vec<String>| {
        std::io::Result::Ok(vec![Authority { cluster: cluster.clone(), tls_certificates: vec![read(name)?], ssh_keys }])
    };
    let authorities = Authorities {
        host: authority("teleport-host-ca.crt", host_keys.map(str::to_owned).collect())?,
        user: authority("teleport-user-ca.crt", vec![])?,
        database: authority("teleport-database-ca.crt", vec![])?,
    };
    Ok(Material {
        proxy: "localhost:3080".to_owned(),
        tls: Some(TlsCertificate::parse(read("tlscert")?.as_bytes())?),
        ssh: Some(SshCertificate::parse(&read("key-cert.pub")?)?),
        public_key: read("key.pub")?.trim_end().to_owned(),
        authorities: Arc::new(authorities),
        directory: Some("/opt/machine-id/identity".to_owned()),
        executable: "/usr/local/bin/tbot".to_owned(),
        cluster,
    })
}
