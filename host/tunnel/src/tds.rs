//! How a client of SQL Server is told why there is no connection (\[MS-TDS\] §2.2.6): there is no room for words before its login.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Type, status, length, process, number, window.
const HEADER: usize = 8;
const LAST_PACKET: u8 = 1;
const RESPONSE: u8 = 4;
/// No client writes more before it is logged in.
const LOGIN_BYTES: usize = 64 * 1024;
/// A version (16.0, since it has to have one), and that there is no encryption: the tunnel's peers are on this machine.
const PRELOGIN: [u8; 18] = [0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 255, 16, 0, 0, 0, 0, 0, 2];

/// Takes the client, which has asked how to log in, up to its login, and answers that with an error.
pub(crate) async fn refuse(client: &mut (impl AsyncRead + AsyncWrite + Unpin), message: &str) -> io::Result<()> {
    client.write_all(&packet(&PRELOGIN)?).await?;
    request(client).await?;
    client.write_all(&packet(&error(message)?)?).await
}

/// Reads a message to its last packet.
pub(crate) async fn request(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        let start = read.len();
        read.resize(start + HEADER, 0);
        client.read_exact(&mut read[start..]).await?;
        let (status, length) = (read[start + 1], u16::from_be_bytes([read[start + 2], read[start + 3]]));
        let end = start + usize::from(length);
        if end < read.len() || end > LOGIN_BYTES {
            return Err(io::Error::other("the client does not speak TDS"));
        }
        let begun = read.len();
        read.resize(end, 0);
        client.read_exact(&mut read[begun..]).await?;
        if status & LAST_PACKET != 0 {
            return Ok(read);
        }
    }
}

fn packet(body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(HEADER + body.len()).map_err(io::Error::other)?.to_be_bytes();
    Ok([&[RESPONSE, LAST_PACKET], length.as_slice(), &[0, 0, 1, 0], body].concat())
}

/// ERROR and DONE, as of TDS 7.2.
fn error(message: &str) -> io::Result<Vec<u8>> {
    const ERROR: u8 = 0xaa;
    const DONE: [u8; 13] = [0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // 17809 is "could not connect" of the server itself; state 1, and severity 20: the connection ends.
    const KIND: [u8; 6] = [0x91, 0x45, 0, 0, 1, 20];
    // One packet holds it.
    let text: Vec<u16> = message.encode_utf16().take(1000).collect();
    let length = |n: usize| u16::try_from(n).map(u16::to_le_bytes).map_err(io::Error::other);
    let words: Vec<u8> = text.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    // No server, no procedure, line 0.
    let fields = [&KIND, length(text.len())?.as_slice(), &words, &[0; 6]].concat();
    Ok([&[ERROR], length(fields.len())?.as_slice(), &fields, &DONE].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_is_answered_with_the_reason() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        // A PRELOGIN, then a login in two packets.
        let prelogin = [0x12, 1, 0, 9, 0, 0, 1, 0, 255];
        far.write_all(&prelogin).await.unwrap();
        assert_eq!(request(&mut near).await.unwrap(), prelogin);
        let refusing = tokio::spawn(async move { refuse(&mut near, "tbot: no").await });
        let mut answer = [0; HEADER + PRELOGIN.len()];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[HEADER..], PRELOGIN);
        far.write_all(&[0x10, 0, 0, 10, 0, 0, 1, 0, 7, 7, 0x10, 1, 0, 9, 0, 0, 2, 0, 7]).await.unwrap();
        let mut error = Vec::new();
        far.read_to_end(&mut error).await.unwrap();
        refusing.await.unwrap().unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([error[2], error[3]])), error.len());
        let length = usize::from(u16::from_le_bytes([error[9], error[10]]));
        assert_eq!((error[8], error[11 + length]), (0xaa, 0xfd));
        let words: Vec<u8> = "tbot: no".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(error.windows(words.len()).any(|seen| seen == words));
    }

    #[tokio::test]
    async fn other_protocols_and_endless_logins_are_given_up() {
        for sent in [b"GET / HTTP/1.1\r\n\r\n".repeat(2), [0x10, 0, 255, 255, 0, 0, 1, 0].repeat(20_000)] {
            let (mut near, mut far) = tokio::io::duplex(512 * 1024);
            far.write_all(&sent).await.unwrap();
            far.shutdown().await.unwrap();
            assert!(request(&mut near).await.is_err());
        }
    }
}
