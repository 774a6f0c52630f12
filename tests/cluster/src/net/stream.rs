//! Streams of bytes, whatever carries them, and the look at a ClientHello before anybody answers it.

use std::io::Cursor;

use anyhow::{Result, ensure};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, join, split};

/// More than the largest ClientHello a client sends.
const HELLO_LIMIT: usize = 16 * 1024;

/// What a connection is made of.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// A connection: TCP, or something inside of one.
pub(crate) type Stream = Box<dyn Bytes>;

/// What a client asks for before it trusts us.
pub(crate) struct Hello {
    pub server_name: String,
    pub protocols: Vec<String>,
}

/// Reads the ClientHello; the stream that comes back begins with it again.
pub(crate) async fn read_hello(mut stream: Stream) -> Result<(Hello, Stream)> {
    let mut acceptor = Acceptor::default();
    let mut seen = Vec::with_capacity(HELLO_LIMIT);
    let hello = loop {
        let known = seen.len();
        ensure!(stream.read_buf(&mut seen).await? > 0, "closed before a ClientHello");
        let mut news = &seen[known..];
        while !news.is_empty() {
            acceptor.read_tls(&mut news)?;
        }
        match acceptor.accept() {
            Ok(None) => ensure!(seen.len() < HELLO_LIMIT, "the ClientHello is too long"),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                break Hello {
                    server_name: hello.server_name().unwrap_or_default().to_owned(),
                    protocols: hello.alpn().map(|list| list.map(text).collect()).unwrap_or_default(),
                };
            }
            Err((error, _)) => return Err(error.into()),
        }
    };
    let (read, write) = split(stream);
    Ok((hello, Box::new(join(Cursor::new(seen).chain(read), write))))
}
