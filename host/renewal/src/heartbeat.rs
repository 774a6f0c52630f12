//! The bot tells the cluster how it is (surface §F.7): at the start, every half hour, and at the end of a one-shot run.

use std::sync::Arc;
use std::time::Duration;

use identity::{Clock, FailureKind, Health, Heartbeat, Monitor, ServiceHealth, Session};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use crate::schedule::{retry_after, sleep};

/// Between two heartbeats (surface §F.7).
const INTERVAL: Duration = Duration::from_secs(30 * 60);
/// The first waits this long for every service to have been tried.
const SETTLE: Duration = Duration::from_secs(30);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// Tries of one heartbeat.
const TRIES: u32 = 5;
/// A one-shot run does not wait longer for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends heartbeats for ever. Never an error: a cluster that does not listen costs nothing but the news.
pub(crate) async fn keep_heartbeat(
    mut sessions: watch::Receiver<Option<Arc<dyn Session>>>,
    monitor: Arc<dyn Monitor>,
    join_method: String,
    clock: Arc<dyn Clock>,
) {
    let started = Instant::now();
    let initializing = || monitor.services().iter().any(|service| service.health == Health::Initializing);
    while started.elapsed() < SETTLE && initializing() {
        tokio::time::sleep(LOOK).await;
    }
    let mut is_startup = true;
    loop {
        for attempt in 1..=TRIES {
            let Ok(session) = sessions.wait_for(Option::is_some).await.map(|session| session.clone()) else { return };
            let Some(session) = session else { continue };
            let heartbeat = Heartbeat {
                is_startup,
                hostname: hostname(),
                uptime: started.elapsed(),
                join_method: join_method.clone(),
                one_shot: false,
                services: monitor.services(),
            };
            match session.heartbeat(&heartbeat).await {
                Ok(_) => {
                    is_startup = false;
                    break;
                }
                Err(failure) => {
                    debug!(target: "TBOT", error = %failure, attempt, "The heartbeat did not arrive.");
                    sleep(&*clock, retry_after(FailureKind::Unavailable, attempt, INTERVAL)).await;
                }
            }
        }
        let wait = INTERVAL.mul_f64(rand::rng().random_range(0.9..1.0));
        sleep(&*clock, wait).await;
    }
}

/// The only heartbeat of a run that ends.
pub(crate) async fn last_heartbeat(
    session: &dyn Session,
    join_method: &str,
    services: Vec<ServiceHealth>,
    uptime: Duration,
) {
    let heartbeat = Heartbeat {
        is_startup: true,
        hostname: hostname(),
        uptime,
        join_method: join_method.to_owned(),
        one_shot: true,
        services,
    };
    match tokio::time::timeout(PATIENCE, session.heartbeat(&heartbeat)).await {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => debug!(target: "TBOT", error = %failure, "The heartbeat did not arrive."),
        Err(_) => debug!(target: "TBOT", "The heartbeat did not arrive in time."),
    }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
