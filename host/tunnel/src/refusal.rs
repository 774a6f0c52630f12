//! An error in the client's own protocol, where that has a way to say it before anything else was said.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::Talk;
use crate::tds;

/// Telling takes no longer. What the client has sent meanwhile is read too: closing on unread bytes would take the error away from it.
const DRAIN: Duration = Duration::from_secs(1);

/// Tells the client, which has begun with `first`, why there is no connection, and ends. Without a way to tell, the connection ends at once.
pub(crate) async fn refuse(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    talk: Talk,
    first: &[u8],
    message: &str,
) {
    let told = async {
        match bytes(talk, first, message) {
            Some(bytes) => client.write_all(&bytes).await?,
            None if talk == Talk::SqlServer => tds::refuse(client, &worded(message)).await?,
            None => return Ok(()),
        }
        client.shutdown().await?;
        let mut sink = [0; 4096];
        while client.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that has gone needs no error.
    let _ = tokio::time::timeout(DRAIN, told).await;
}

fn bytes(talk: Talk, first: &[u8], message: &str) -> Option<Vec<u8>> {
    let message = worded(message);
    match talk {
        Talk::Opaque | Talk::SqlServer => None,
        // A fatal alert, internal_error (RFC 8446 §6.2): it has no room for words.
        Talk::Tls => Some(vec![21, 3, 1, 0, 2, 2, 80]),
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
        Talk::Mongo => mongo(first, &message),
        Talk::Redis => Some(format!("-ERR {message}\r\n").into_bytes()),
        Talk::Http | Talk::HttpDatabase => Some(http(&message)),
    }
}

/// On one line, and whose it is.
fn worded(message: &str) -> String {
    format!("tbot: {}", message.replace(['\0', '\r', '\n'], " "))
}

/// Length, request, what it answers, and kind (MongoDB wire protocol, "Standard Message Header").
pub(crate) const MONGO_HEADER: usize = 16;

/// The answer to the message with this header, of the same kind: `{ok: 0.0, errmsg: …, code: 6}`, which is HostUnreachable.
fn mongo(asked: &[u8], message: &str) -> Option<Vec<u8>> {
    const QUERY: [u8; 4] = 2004_u32.to_le_bytes();
    const MESSAGE: [u8; 4] = 2013_u32.to_le_bytes();
    const REPLY: [u8; 4] = 1_u32.to_le_bytes();
    let length = |bytes: usize| Some(u32::try_from(bytes).ok()?.to_le_bytes());
    let fields = [
        b"\x01ok\0\0\0\0\0\0\0\0\0\x02errmsg\0".as_slice(),
        &length(message.len() + 1)?,
        message.as_bytes(),
        b"\0\x10code\0\x06\0\0\0\0",
    ]
    .concat();
    let document = [length(fields.len() + 4)?.as_slice(), &fields].concat();
    let (id, kind) = (asked.get(4..8)?, asked.get(12..MONGO_HEADER)?);
    let (kind, before): (_, &[u8]) = if kind == QUERY {
        // No flags, no cursor, the first and only document.
        (REPLY, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0")
    } else {
        // No flags, one document.
        (MESSAGE, b"\0\0\0\0\0")
    };
    let whole = length(MONGO_HEADER + before.len() + document.len())?;
    Some([&whole, &[0; 4], id, &kind, before, &document].concat())
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

    fn said(talk: Talk, message: &str) -> Vec<u8> {
        bytes(talk, &[], message).unwrap()
    }

    #[test]
    fn lengths_count_what_they_should() {
        let error = said(Talk::Postgres, "no\nway");
        assert_eq!(error[0], b'E');
        assert_eq!(u32::from_be_bytes(error[1..5].try_into().unwrap()) as usize, error.len() - 1);
        assert!(error.ends_with(b"Mtbot: no way\0\0"));
        let error = said(Talk::Mysql, "no");
        assert_eq!(usize::from(error[0]), error.len() - 4);
        assert_eq!(&error[3..5], &[0, 0xff]);
        let error = String::from_utf8(said(Talk::Http, "no")).unwrap();
        assert!(error.contains("Content-Length: 9\r\n") && error.ends_with("\r\n\r\ntbot: no\n"), "{error}");
        assert_eq!(said(Talk::Redis, "a\r\nb"), b"-ERR tbot: a  b\r\n");
    }

    #[test]
    fn mongodb_is_answered_in_the_kind_in_which_it_asks() {
        for (asked, answered, before) in [(2013_u32, 2013_u32, 5), (2004, 1, 20)] {
            let header = [44_u32, 77, 0, asked].map(u32::to_le_bytes).concat();
            let heard = bytes(Talk::Mongo, &header, "no").unwrap();
            let number = |at: usize| u32::from_le_bytes(heard[at..at + 4].try_into().unwrap());
            assert_eq!((number(0) as usize, number(8), number(12)), (heard.len(), 77, answered));
            let document = MONGO_HEADER + before;
            assert_eq!(number(document) as usize, heard.len() - document);
            assert!(heard.windows(9).any(|words| words == b"tbot: no\0"));
        }
    }
}
