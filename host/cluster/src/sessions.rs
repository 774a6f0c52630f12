//! When an application session becomes visible: one watch for all sessions of the bot (rust-wire §4).

use std::time::Duration;

use identity::{Failure, FailureKind};
use tokio::sync::{Mutex, broadcast};
use tokio::time::Instant;
use tonic::Code;
use tracing::debug;

use crate::session::Caller;
use crate::wire::proto::{FilterEntry, GetAppSessionRequest, Watch, WatchKind, event};

/// A session is visible after a second at most (rust-wire §4); a cluster under load may take longer.
const VISIBLE_WITHIN: Duration = Duration::from_secs(30);
/// Where the watch breaks, it is asked for like this.
const POLL: Duration = Duration::from_millis(500);
/// Sessions announced while one waiter is busy; one that misses some asks instead.
const ANNOUNCED: usize = 256;

pub(crate) struct SessionWatch {
    caller: Caller,
    user: String,
    running: Mutex<Option<broadcast::WeakSender<String>>>,
}

impl SessionWatch {
    pub(crate) fn new(caller: Caller, user: String) -> Self {
        Self { caller, user, running: Mutex::new(None) }
    }

    /// Listens from now on; opens the watch where it is not open. To be called before the session is created.
    pub(crate) async fn listen(&self) -> Option<broadcast::Receiver<String>> {
        let mut running = self.running.lock().await;
        if let Some(sender) = running.as_ref().and_then(broadcast::WeakSender::upgrade) {
            return Some(sender.subscribe());
        }
        let filter = vec![FilterEntry { key: "user".into(), value: self.user.clone() }];
        let kind =
            WatchKind { kind: "web_session".into(), sub_kind: "app_session".into(), filter, ..WatchKind::default() };
        let watch = Watch { kinds: vec![kind], allow_partial_success: false };
        let mut events = match self.caller.call(self.caller.auth().watch_events(watch)).await {
            Ok(events) => events,
            Err(failure) => {
                debug!(target: "TBOT", "Application sessions cannot be watched, asking for them instead: {failure}");
                return None;
            }
        };
        let (sender, receiver) = broadcast::channel(ANNOUNCED);
        *running = Some(sender.downgrade());
        tokio::spawn(async move {
            // Ends with the stream, or when the last who waited is gone.
            while let Ok(Some(event)) = tokio::select! {
                event = events.message() => event,
                () = sender.closed() => Ok(None),
            } {
                let session = match event.resource {
                    Some(event::Resource::AppSession(session) | event::Resource::WebSession(session)) => session,
                    _ => continue,
                };
                if let Some(metadata) = session.metadata {
                    let _ = sender.send(metadata.name);
                }
            }
        });
        Some(receiver)
    }

    /// Waits until `id` is visible. No permit is held meanwhile.
    pub(crate) async fn visible(
        &self,
        asker: &Caller,
        id: &str,
        announced: Option<broadcast::Receiver<String>>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        if let Some(mut announced) = announced {
            loop {
                match tokio::time::timeout_at(started + VISIBLE_WITHIN, announced.recv()).await {
                    Ok(Ok(name)) if name == id => return Ok(()),
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
        loop {
            let request = GetAppSessionRequest { session_id: id.to_owned() };
            match asker.auth().get_app_session(request).await {
                Ok(_) => return Ok(()),
                Err(e) if e.code() != Code::NotFound => return Err(crate::error::status(&asker.route, &e)),
                Err(_) if started.elapsed() > VISIBLE_WITHIN => {
                    let message =
                        format!("the application session was not visible within {} s", VISIBLE_WITHIN.as_secs());
                    return Err(Failure::new(FailureKind::Unavailable, message));
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}
