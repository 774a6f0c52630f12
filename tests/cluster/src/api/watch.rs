//! Watches: what changed, and who asked to hear of it (wire §f.5, §f.9).

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{grpc::Connection, refusal::Refusal};
use crate::wire::{
    proto::{Event, Watch, WatchKind, event},
    types::{CertAuthorityV2, Metadata, WatchStatusSpecV1, WatchStatusV1, WebSessionV2},
};

/// Events a slow client may leave unread before it holds the watch up.
const UNREAD: usize = 64;

/// Something that changed.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Authority(CertAuthorityV2),
    AppSession(WebSessionV2),
}

/// Opens a watch. The first event is INIT with the kinds that were admitted.
pub(crate) fn open(
    connection: &Arc<Connection>,
    watch: Watch,
) -> Result<ReceiverStream<Result<Event, Status>>, Refusal> {
    let caller = connection.caller()?;
    if watch.kinds.is_empty() {
        return Err(Refusal::BadParameter("can't setup global watch".to_owned()));
    }
    for kind in &watch.kinds {
        match kind.kind.as_str() {
            "cert_authority" => {}
            "web_session" if filter(kind, "user") == Some(&caller.user) => {}
            other => return Err(Refusal::AccessDenied(format!("access denied to watch {other:?}"))),
        }
    }
    let mut changes = connection.state.changes.subscribe();
    let (events, stream) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        if events.send(Ok(init(watch.kinds.clone()))).await.is_err() {
            return;
        }
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = events.closed() => return,
            };
            let event = match change {
                Ok(change) if watch.kinds.iter().any(|kind| concerns(kind, &change)) => Ok(put(&change)),
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    Err(Refusal::ConnectionProblem("the watcher was too slow".to_owned()).status())
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let last = event.is_err();
            if events.send(event).await.is_err() || last {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

fn init(kinds: Vec<WatchKind>) -> Event {
    let status = WatchStatusV1 {
        kind: "watch_status".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(Metadata {
            name: "watch-status".to_owned(),
            namespace: "default".to_owned(),
            ..Metadata::default()
        }),
        spec: Some(WatchStatusSpecV1 { kinds }),
        ..WatchStatusV1::default()
    };
    Event { r#type: event::Operation::Init.into(), resource: Some(event::Resource::WatchStatus(status)) }
}

fn put(change: &Change) -> Event {
    let resource = match change.clone() {
        Change::Authority(authority) => event::Resource::CertAuthority(authority),
        Change::AppSession(session) => event::Resource::AppSession(session),
    };
    Event { r#type: event::Operation::Put.into(), resource: Some(resource) }
}

/// An authority's filter lists types with the cluster's name each; none means all.
fn concerns(kind: &WatchKind, change: &Change) -> bool {
    match change {
        Change::Authority(authority) => {
            let name = authority.metadata.as_ref().map(|metadata| metadata.name.as_str());
            kind.kind == "cert_authority"
                && (kind.filter.is_empty() || filter(kind, &authority.sub_kind).map(String::as_str) == name)
        }
        Change::AppSession(session) => {
            kind.kind == "web_session"
                && kind.sub_kind == session.sub_kind
                && filter(kind, "user") == session.spec.as_ref().map(|spec| &spec.user)
        }
    }
}

fn filter<'a>(kind: &'a WatchKind, key: &str) -> Option<&'a String> {
    kind.filter.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}
