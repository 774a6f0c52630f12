//! How a PostgreSQL client begins (wire §i.3; PostgreSQL protocol 3.0, "Start-up", "SSL Session Encryption", "Canceling Requests in Progress").

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::Talk;
use crate::{Mode, refusal};

const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;
/// Length and code.
const HEADER: usize = 8;
/// The largest start-up message a server reads.
const STARTUP_BYTES: usize = 10_000;
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// To a client that brings no certificate where it has to.
const UNENCRYPTED: &str = "the client shows no certificate: set `sslmode=verify-full`, `sslcert` and `sslkey` as `tbot db config` says, or let the tunnel show its own with `--tunnel`";

/// What is known of a client before anything is asked of the proxy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// What the client said and the service has to hear.
    pub(crate) bytes: Vec<u8>,
    /// A request to cancel a query: it comes without TLS also from clients that use TLS otherwise.
    pub(crate) cancel: bool,
}

/// Reads until it is clear what the client wants. Where the tunnel brings the certificate, encryption is declined here, as the proxy would,
/// so that an error reaches the user as an error of the protocol. `None`: the client said nothing and went away.
pub(crate) async fn greet(client: &mut (impl AsyncRead + AsyncWrite + Unpin), mode: Mode) -> io::Result<Option<Hello>> {
    let mut declined = Vec::new();
    loop {
        let mut header = [0; HEADER];
        let first = client.read(&mut header[..1]).await?;
        if first == 0 {
            return Ok(None);
        }
        if header[0] == TLS_HANDSHAKE {
            return match mode {
                Mode::Passthrough => Ok(Some(Hello { bytes: vec![TLS_HANDSHAKE], cancel: false })),
                Mode::Authenticated => {
                    Err(io::Error::other("the client begins with TLS: set `sslmode=disable`, the tunnel encrypts"))
                }
            };
        }
        client.read_exact(&mut header[1..]).await?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let code = u32::from_be_bytes([c0, c1, c2, c3]);
        let cancel = code == CANCEL;
        if mode == Mode::Passthrough && !cancel {
            if [SSL, GSSENC].contains(&code) {
                return Ok(Some(Hello { bytes: header.to_vec(), cancel }));
            }
            // The proxy would find no cluster in a certificate that is not there.
            refusal::refuse(client, Talk::Postgres, &[], UNENCRYPTED).await;
            return Err(io::Error::other(UNENCRYPTED));
        }
        if [SSL, GSSENC].contains(&code) && length == HEADER {
            if declined.contains(&code) {
                return Err(io::Error::other("the client asks for encryption twice"));
            }
            declined.push(code);
            client.write_all(b"N").await?;
            client.flush().await?;
            continue;
        }
        if !(HEADER..=STARTUP_BYTES).contains(&length) {
            return Err(io::Error::other("the client does not speak PostgreSQL"));
        }
        let mut bytes = header.to_vec();
        bytes.resize(length, 0);
        client.read_exact(&mut bytes[HEADER..]).await?;
        return Ok(Some(Hello { bytes, cancel }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    /// What greeting a client that sends `sent` returns, and what the client hears.
    async fn greeted(sent: &[u8], mode: Mode) -> (io::Result<Option<Hello>>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(sent).await.unwrap();
        far.shutdown().await.unwrap();
        let hello = greet(&mut near, mode).await;
        drop(near);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        (hello, heard)
    }

    const STARTUP: u32 = 196_608;

    #[tokio::test]
    async fn a_tunnel_declines_encryption_and_takes_the_whole_start_up_message() {
        let startup = message(STARTUP, b"user\0alice\0\0");
        for (asked, heard) in [(vec![], ""), (vec![SSL], "N"), (vec![GSSENC, SSL], "NN")] {
            let sent: Vec<u8> = asked.into_iter().flat_map(|code| message(code, b"")).chain(startup.clone()).collect();
            let (hello, answer) = greeted(&[&sent, b"more".as_slice()].concat(), Mode::Authenticated).await;
            assert_eq!(hello.unwrap(), Some(Hello { bytes: startup.clone(), cancel: false }));
            assert_eq!(answer, heard.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_cancel_request_is_known_in_both_modes_also_with_a_long_key() {
        for key in [vec![1; 8], vec![2; 260]] {
            let cancel = message(CANCEL, &key);
            for mode in [Mode::Authenticated, Mode::Passthrough] {
                let (hello, heard) = greeted(&cancel, mode).await;
                assert_eq!(hello.unwrap(), Some(Hello { bytes: cancel.clone(), cancel: true }));
                assert!(heard.is_empty());
            }
        }
    }

    #[tokio::test]
    async fn the_clients_own_tls_is_left_to_the_proxy() {
        let (hello, heard) = greeted(&message(SSL, b""), Mode::Passthrough).await;
        assert_eq!(hello.unwrap(), Some(Hello { bytes: message(SSL, b""), cancel: false }));
        assert!(heard.is_empty());
        let (direct, _) = greeted(&[TLS_HANDSHAKE, 3, 1], Mode::Passthrough).await;
        assert_eq!(direct.unwrap().unwrap().bytes, [TLS_HANDSHAKE]);
        let (plain, heard) = greeted(&message(STARTUP, b"user\0alice\0\0"), Mode::Passthrough).await;
        assert!(plain.is_err() && heard[0] == b'E');
        assert!(String::from_utf8_lossy(&heard).contains("`--tunnel`"));
        let (refused, _) = greeted(&[TLS_HANDSHAKE, 3, 1], Mode::Authenticated).await;
        assert!(refused.unwrap_err().to_string().contains("sslmode=disable"));
    }

    #[tokio::test]
    async fn nonsense_ends_with_an_error_and_silence_without_one() {
        assert_eq!(greeted(b"", Mode::Authenticated).await.0.unwrap(), None);
        let twice = [message(SSL, b""), message(SSL, b"")].concat();
        let long = [0, 255, 255, 255, 0, 3, 0, 0];
        for bad in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &twice, &long, &[0, 0, 0, 4, 0, 3, 0, 0], b"\0\0"] {
            assert!(greeted(bad, Mode::Authenticated).await.0.is_err(), "{bad:?}");
        }
    }
}
