//! The diagnostics server of `diag_addr` (surface §F.5): plain HTTP, nothing secret, nothing that changes anything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::{Health, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::health::{Known, Services};
use crate::metrics;

/// Connections at a time: a scraper, a kubelet and some who wait.
const CONNECTIONS: usize = 64;
/// A client has this long to send its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting request looks at the clock, for what expires without a report.
const LOOK: Duration = Duration::from_secs(1);

/// A bound address that answers once [`Diagnostics::serve`] runs.
pub struct Diagnostics {
    listener: TcpListener,
    services: Services,
}

impl Diagnostics {
    /// Binds `address`, a `host:port`.
    ///
    /// # Errors
    /// Where it cannot be bound: the operator asked for it, so this ends the start.
    pub async fn bind(address: &str, services: Services) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, services })
    }

    /// Where it listens: the port, where 0 was asked for.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until dropped.
    pub async fn serve(self) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors: wait for some to close.
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let services = self.services.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request, services.clone()));
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
                if let Err(e) = server.serve_connection(TokioIo::new(stream), service).await {
                    debug!(target: "TBOT", error = %e, "A diagnostics connection broke.");
                }
                drop(slot);
            });
        }
    }
}

async fn answer(request: Request<Incoming>, all: Services) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n"));
    }
    let path = request.uri().path();
    Ok(match path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics::exposition(&all));
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        "/readyz" => ready(&all, None),
        "/wait" => wait(&all, None).await,
        _ => match (path.strip_prefix("/readyz/"), path.strip_prefix("/wait/")) {
            (Some(service), _) => ready(&all, Some(service)),
            (_, Some(service)) => wait(&all, Some(service)).await,
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz, /readyz/<service>, /wait, /wait/<service> and /metrics\n",
            ),
        },
    })
}

fn ready(all: &Services, service: Option<&str>) -> Response<Full<Bytes>> {
    let (status, body) = state(all, &all.watch().borrow(), service);
    answer_json(status, &body)
}

/// Answers when all is well, or at once where that can never be.
async fn wait(all: &Services, service: Option<&str>) -> Response<Full<Bytes>> {
    let mut services = all.watch();
    loop {
        let (status, body) = state(all, &services.borrow_and_update(), service);
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return answer_json(status, &body);
        }
        let _ = tokio::time::timeout(LOOK, services.changed()).await;
    }
}

fn state(all: &Services, known: &Known, only: Option<&str>) -> (StatusCode, Value) {
    let now = all.clock.now();
    if let Some(name) = only {
        let Some(service) = known.get(name) else {
            let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return (StatusCode::NOT_FOUND, json!({"error": format!("service {name:?} not found, there are {names}")}));
        };
        let health = service.health(now);
        return (code(health == Health::Healthy), entry(&health, service.expires));
    }
    // The worst of all.
    let (mut well, mut tried) = (true, true);
    let mut entries = serde_json::Map::new();
    for (name, service) in known {
        let health = service.health(now);
        well &= !matches!(health, Health::Unhealthy(_));
        tried &= health != Health::Initializing;
        entries.insert(name.clone(), entry(&health, service.expires));
    }
    let status = if !well {
        "unhealthy"
    } else if !tried {
        "initializing"
    } else {
        "healthy"
    };
    (code(well && tried), json!({"status": status, "services": entries}))
}

fn entry(health: &Health, expires: Option<Timestamp>) -> Value {
    let mut entry = match health {
        Health::Initializing => json!({"status": "initializing"}),
        Health::Healthy => json!({"status": "healthy"}),
        Health::Unhealthy(reason) => json!({"status": "unhealthy", "reason": reason}),
    };
    if let Some(expires) = expires {
        entry["expires"] = expires.to_string().into();
    }
    entry
}

fn code(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer_json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, format!("{body}\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use identity::{Clock, Failure, FailureKind, Monitor, ServiceHealth};
    use std::sync::atomic::{AtomicI64, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Now(AtomicI64);

    impl Clock for Now {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    async fn server() -> (SocketAddr, Services, Arc<Now>) {
        let clock = Arc::new(Now(AtomicI64::new(1000)));
        let health =
            Services::new(["identity", "application-1"].map(|name| (name.into(), "application".into())), clock.clone());
        let server = Diagnostics::bind("127.0.0.1:0", health.clone()).await.unwrap();
        let address = server.address().unwrap();
        tokio::spawn(server.serve());
        (address, health, clock)
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn ok(health: &Services, service: &str, until: i64) {
        health.tried(service, Duration::from_millis(300), Ok(Timestamp(until)));
    }

    #[tokio::test]
    async fn it_is_ready_when_every_service_is_and_no_longer_when_one_fails_or_expires() {
        let (address, health, clock) = server().await;
        assert_eq!(get(address, "/livez").await.0, 200);
        let (status, body) = get(address, "/readyz").await;
        assert!(status == 503 && body.contains(r#""status":"initializing""#), "{body}");
        ok(&health, "identity", 2000);
        assert_eq!(get(address, "/readyz").await.0, 503);
        ok(&health, "application-1", 1500);
        assert_eq!(get(address, "/readyz").await.0, 200);
        let failure = Failure::new(FailureKind::Denied, "role \"x\" was refused");
        health.tried("application-1", Duration::from_millis(300), Err(&failure));
        let (status, body) = get(address, "/readyz/application-1").await;
        assert!(status == 503 && body.contains("was refused"), "{body}");
        assert_eq!(get(address, "/readyz/identity").await.0, 200);
        assert_eq!(get(address, "/readyz/no-such").await.0, 404);
        let since: Vec<_> =
            health.services().into_iter().map(|ServiceHealth { name, since, .. }| (name, since.0)).collect();
        assert_eq!(since, [("application-1".into(), 1000), ("identity".into(), 1000)]);
        ok(&health, "application-1", 1500);
        clock.0.store(1500, Ordering::Relaxed);
        let (status, body) = get(address, "/readyz").await;
        assert!(status == 503 && body.contains("expired at 1970-01-01T00:25:00Z"), "{body}");
    }

    #[tokio::test]
    async fn waiting_ends_when_it_is_ready() {
        let (address, health, _) = server().await;
        let waiting = tokio::spawn(get(address, "/wait/identity"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        ok(&health, "identity", 2000);
        assert_eq!(waiting.await.unwrap().0, 200);
        assert_eq!(get(address, "/wait/no-such").await.0, 404);
    }

    #[tokio::test]
    async fn metrics_count_tries_failures_and_expiry() {
        let (address, health, _) = server().await;
        let failure = Failure::new(FailureKind::Unavailable, "away");
        health.tried("identity", Duration::from_secs(7), Err(&failure));
        ok(&health, "identity", 2000);
        let (_, text) = get(address, "/metrics").await;
        for line in [
            "tbot_task_iterations_total{service=\"identity\"} 2",
            "tbot_task_iterations_failed{service=\"identity\"} 1",
            "tbot_task_iterations_successful_bucket{service=\"identity\",le=\"0\"} 0",
            "tbot_task_iterations_successful_bucket{service=\"identity\",le=\"1\"} 1",
            "tbot_task_iteration_duration_seconds_bucket{service=\"identity\",le=\"5\"} 1",
            "tbot_task_iteration_duration_seconds_bucket{service=\"identity\",le=\"+Inf\"} 2",
            "tbot_service_expiry_timestamp_seconds{service=\"identity\"} 2000",
            "tbot_service_healthy{service=\"identity\"} 1",
            "tbot_service_healthy{service=\"application-1\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_dropped_and_what_is_unknown_not_found() {
        let (address, ..) = server().await;
        assert_eq!(get(address, "/debug/pprof/").await.0, 404);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST /livez HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }
}
