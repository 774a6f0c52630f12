//! `tbot proxy ssh`: SSH through the proxy, for OpenSSH's `ProxyCommand` (surface §A.10).

use tokio::io::{AsyncWriteExt, copy, split, stdin, stdout};

use crate::client::authority;
use crate::proxy::Context;

/// Carries stdin and stdout to the SSH server that `target` names, until either side ends.
pub(crate) fn proxy(context: &Context, target: &str) -> Result<(), String> {
    context.block_on(async {
        let credentials = context.credentials()?;
        let credential = credentials.current().await.map_err(|e| e.to_string())?;
        let authorities = credentials.authorities().await.map_err(|e| e.to_string())?;
        let (tls, key) = (&credential.tls, &credential.key);
        let dialer = context.cluster.proxy(tls, key, authorities.clone()).await.map_err(|e| e.to_string())?;
        let cluster = context.named_cluster.as_deref().unwrap_or(&tls.cluster);
        let host_port = host_port(target, cluster, dialer.host());
        let stream = dialer.ssh(tls, key, authorities, &host_port, cluster).await.map_err(|e| e.to_string())?;
        let (mut from_host, mut to_host) = split(stream);
        let (mut input, mut output) = (stdin(), stdout());
        let outwards = async {
            let _ = copy(&mut input, &mut to_host).await;
            let _ = to_host.shutdown().await;
            // The server ends it: what it still has to say is heard.
            std::future::pending::<()>().await;
        };
        let inwards = async {
            let copied = copy(&mut from_host, &mut output).await;
            let flushed = output.flush().await;
            copied.map(drop).and(flushed)
        };
        tokio::select! {
            () = outwards => {}
            done = inwards => done.map_err(|e| format!("{target}: {e}"))?,
        }
        // A thread that waits for stdin would hold the process.
        std::process::exit(0)
    })
}

/// What the proxy is asked for: the name of the host without the suffixes that lead ssh here, and the port.
fn host_port(target: &str, cluster: &str, proxy: &str) -> String {
    let target = target.rsplit_once('@').map_or(target, |(_, host)| host);
    let (host, port) = match target.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, port),
        _ => (target, "0"),
    };
    let host = host.trim_matches(['[', ']']);
    let cut = |host: &str, suffix: &str| {
        host.strip_suffix(suffix).and_then(|host| host.strip_suffix('.')).unwrap_or(host).to_owned()
    };
    let host = cut(&cut(host, proxy), cluster);
    authority(&host, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffixes_that_lead_here_are_not_asked_for() {
        for (target, asked) in [
            ("root@node.lab.example.com:3022", "node:3022"),
            ("node:22", "node:22"),
            ("node", "node:0"),
            ("a@b@node.proxy.example.com:22", "node:22"),
            ("u@node.lab.example.com.proxy.example.com:1", "node:1"),
            ("u@2001:db8::1", "[2001:db8::1]:0"),
            ("u@[2001:db8::1]:22", "[2001:db8::1]:22"),
            ("u@lab.example.com:22", "lab.example.com:22"),
        ] {
            assert_eq!(host_port(target, "lab.example.com", "proxy.example.com"), asked, "{target}");
        }
    }
}
