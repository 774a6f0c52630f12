use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cluster::Stream;
use identity::{Failure, FailureKind};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 1024;
/// `sun_path` of Linux without the NUL behind it (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// Where a tunnel listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket in the file system. Who may connect is decided by its folder and the process's umask.
    Unix(PathBuf),
}

impl Listen {
    /// A port of the loopback address.
    pub fn loopback(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Reads `tcp://HOST:PORT`, `unix:///PATH`, `HOST:PORT`, `:PORT` or `PORT`; the last two mean the loopback address.
    ///
    /// # Errors
    /// [`FailureKind::InvalidConfig`] with the forms that are possible.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let plain = text.strip_prefix("tcp://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = plain.rsplit_once(':').unwrap_or(("", plain));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = match host {
            "" | "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            other => other.parse().ok(),
        };
        match (address, port.parse()) {
            (Some(address), Ok(port)) => Ok(Self::Tcp(SocketAddr::new(address, port))),
            _ => Err(Failure::new(
                FailureKind::InvalidConfig,
                format!("`{text}` is no address to listen on: use `tcp://127.0.0.1:PORT` or `unix:///PATH`"),
            )),
        }
    }

    /// Can other machines reach it?
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A taken address that refuses connections until [`Bound::listen`].
pub(crate) enum Bound {
    Tcp(TcpSocket),
    Unix(PathBuf),
}

impl Bound {
    pub(crate) async fn new(listen: &Listen) -> Result<Self, Failure> {
        let bound = match listen {
            Listen::Tcp(address) => tcp(*address).map(Self::Tcp),
            Listen::Unix(path) => free(path).await.map(|()| Self::Unix(path.clone())),
        };
        bound.map_err(|e| cannot(listen, &e))
    }

    /// The address with the port that was taken.
    pub(crate) fn address(&self) -> Result<Listen, Failure> {
        match self {
            Self::Tcp(socket) => {
                let known = socket.local_addr().map(Listen::Tcp);
                known.map_err(|e| Failure::new(FailureKind::InvalidConfig, format!("cannot listen: {e}")))
            }
            Self::Unix(path) => Ok(Listen::Unix(path.clone())),
        }
    }

    pub(crate) fn listen(self) -> Result<Listener, Failure> {
        let address = self.address()?;
        let listening = match self {
            Self::Tcp(socket) => socket.listen(BACKLOG).map(Listener::Tcp),
            Self::Unix(path) => UnixListener::bind(&path).map(|listener| Listener::Unix(listener, path)),
        };
        listening.map_err(|e| cannot(&address, &e))
    }
}

fn cannot(listen: &Listen, error: &io::Error) -> Failure {
    Failure::new(FailureKind::InvalidConfig, format!("cannot listen on {listen}: {error}"))
}

fn tcp(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A socket that nobody serves any more is taken over; anything else in its place stays.
async fn free(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if path.as_os_str().len() > SOCKET_PATH_BYTES {
        let long = format!("its path is longer than {SOCKET_PATH_BYTES} bytes, which is all that the system takes");
        return Err(io::Error::other(long));
    }
    match std::fs::symlink_metadata(path) {
        // There it can be only where its folder is.
        Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::metadata(path.parent().unwrap_or(path)).map(drop),
        Err(e) => Err(e),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::other("it exists and is not a socket")),
        Ok(_) => match UnixStream::connect(path).await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            Err(e) => Err(e),
            Ok(_) => Err(io::Error::other("another process listens there")),
        },
    }
}

pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Where it is gone already, nothing is left to do.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_cannot_be_is_known_at_once_and_one_that_can_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        for (name, words) in [("a/b", "No such file"), (&"x".repeat(120), "longer than 107 bytes")] {
            let refused = Bound::new(&Listen::Unix(folder.path().join(name))).await.err().unwrap();
            assert!(refused.message.contains(words), "{refused}");
        }
        let path = folder.path().join("s");
        // What a killed process leaves.
        drop(UnixListener::bind(&path).unwrap());
        let bound = Bound::new(&Listen::Unix(path.clone())).await.unwrap();
        assert!(!path.exists());
        let listener = bound.listen().unwrap();
        let second = Bound::new(&Listen::Unix(path.clone())).await.err().unwrap();
        assert!(second.message.contains("another process listens there"), "{second}");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn the_forms_of_an_address() {
        for (text, shown, public) in [
            ("tcp://127.0.0.1:80", "127.0.0.1:80", false),
            ("tcp://0.0.0.0:8080", "0.0.0.0:8080", true),
            ("localhost:1", "127.0.0.1:1", false),
            ("[::1]:9", "[::1]:9", false),
            (":7", "127.0.0.1:7", false),
            ("7", "127.0.0.1:7", false),
            ("unix:///run/db.sock", "unix:///run/db.sock", false),
        ] {
            let listen = Listen::parse(text).unwrap();
            assert_eq!((listen.to_string().as_str(), listen.is_public()), (shown, public), "{text}");
        }
        for bad in ["", "unix://relative", "tcp://host.example.com:1", "127.0.0.1", "1:2:3", "tcp://127.0.0.1:70000"] {
            assert!(Listen::parse(bad).unwrap_err().message.contains("unix:///PATH"), "{bad}");
        }
    }
}
