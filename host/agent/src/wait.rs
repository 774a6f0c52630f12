//! `tbot wait` (surface §A.13): until a running agent says that it is healthy.

use std::time::Duration;

use crate::flags::Wait;
use crate::start::runtime;

/// One request: the agent answers when it is ready, or this long after.
const REQUEST: Duration = Duration::from_secs(5);
/// First pause between requests; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Returns when the agent, or one of its services, is healthy.
pub(crate) fn wait(command: &Wait) -> Result<(), String> {
    let timeout = command.timeout.as_deref().map(config::parse_flag_duration).transpose();
    let timeout = timeout.map_err(|e| format!("--timeout: {e}"))?;
    let service = command.service.as_deref().map(|name| format!("/{name}")).unwrap_or_default();
    let url = format!("http://{}/wait{service}", command.diag_addr);
    let mut last = "it was not asked yet".to_owned();
    runtime()?.block_on(async {
        let ready = poll(&url, &mut last);
        match timeout {
            None => ready.await,
            Some(limit) => match tokio::time::timeout(limit, ready).await {
                Ok(ended) => ended,
                Err(_) => Err(format!("timed out after {}: {last}", config::format_duration(limit))),
            },
        }
    })
}

async fn poll(url: &str, last: &mut String) -> Result<(), String> {
    let client = reqwest::Client::builder().timeout(REQUEST).no_proxy().build().map_err(|e| e.to_string())?;
    let mut pause = FIRST_PAUSE;
    loop {
        match client.get(url).send().await {
            Ok(answer) if answer.status() == reqwest::StatusCode::OK => return Ok(()),
            Ok(answer) => {
                let status = answer.status();
                let reason = answer.text().await.unwrap_or_default();
                *last = format!("the agent answered {status} {}", reason.trim());
            }
            Err(e) if e.is_builder() => return Err(format!("--diag-addr: {url} is no address: write `host:port`")),
            Err(e) => *last = format!("the agent does not answer: {}", root(&e)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
