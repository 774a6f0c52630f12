//! An error in the client's own protocol, where that has a way to say it before anything else was said.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::Talk;

/// What the client has sent meanwhile is read for so long at most: closing on unread bytes would take the error away from it.
const DRAIN: Duration = Duration::from_secs(1);

/// Tells the client why there is no connection, and ends. Without a way to tell, the connection ends at once.
pub(crate) async fn refuse(client: &mut (impl AsyncRead + AsyncWrite + Unpin), talk: Talk, message: &str) {
    let Some(bytes) = bytes(talk, message) else { return };
    let told = async {
        client.write_all(&bytes).await?;
        client.shutdown().await?;
        let mut sink = [0; 4096];
        while client.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that has gone needs no error.
    let _ = tokio::time::timeout(DRAIN, told).await;
}

fn bytes(talk: Talk, message: &str) -> Option<Vec<u8>> {
    let message = format!("tbot: {}", message.replace(['\0', '\r', '\n'], " "));
    match talk {
        Talk::Opaque => None,
        Talk::Postgres => {
            // Severity twice (the second is never translated), SQLSTATE connection_failure, message.
            let fields = format!("SFATAL\0VFATAL\0C08006\0M{message}\0\0");
            let length = u32::try_from(fields.len() + 4).ok()?;
            Some([b"E", length.to_be_bytes().as_slice(), fields.as_bytes()].concat())
        }
        Talk::Mysql => {
            // ERR in place of the server's greeting; 1105 is ER_UNKNOWN_ERROR. Before the greeting there is no SQLSTATE.
            let payload = [&[0xff], 1105_u16.to_le_bytes().as_slice(), message.as_bytes()].concat();
            let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
            Some([&length[..3], &[0], &payload].concat())
        }
        Talk::Redis => Some(format!("-ERR {message}\r\n").into_bytes()),
        Talk::Http => Some(http(&message)),
    }
}

/// 502, and the connection is over.
pub(crate) fn http(message: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{message}\n",
        message.len() + 1
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_what_they_should() {
        let error = bytes(Talk::Postgres, "no\nway").unwrap();
        assert_eq!(error[0], b'E');
        assert_eq!(u32::from_be_bytes(error[1..5].try_into().unwrap()) as usize, error.len() - 1);
        assert!(error.ends_with(b"Mtbot: no way\0\0"));
        let error = bytes(Talk::Mysql, "no").unwrap();
        assert_eq!(usize::from(error[0]), error.len() - 4);
        assert_eq!(&error[3..5], &[0, 0xff]);
        let error = String::from_utf8(bytes(Talk::Http, "no").unwrap()).unwrap();
        assert!(error.contains("Content-Length: 9\r\n") && error.ends_with("\r\n\r\ntbot: no\n"), "{error}");
        assert_eq!(bytes(Talk::Redis, "a\r\nb").unwrap(), b"-ERR tbot: a  b\r\n");
    }
}
