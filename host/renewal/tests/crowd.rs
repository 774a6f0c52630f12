//! Two hundred outputs under a clock that the test turns. Alone in its program: it listens to the whole log.

mod fakes;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fakes::{FakeCluster, FakeDestination, INTERVAL, TestClock, Worse, bot};
use identity::{Failure, FailureKind};
use renewal::Reload;

/// What is logged at `info` and above.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_that_fail_for_ever_neither_delay_the_others_nor_fill_the_log() {
    const WATCHED: Duration = Duration::from_secs(8 * 3600);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let clock = TestClock::new();
    let cluster = FakeCluster::new(clock.clone());
    let store = FakeDestination::new("store", &cluster);
    let outputs: Vec<_> =
        (0..200).map(|n| (format!("app-{n:03}"), FakeDestination::new(&format!("place-{n:03}"), &cluster))).collect();
    // Every second one: refused, unreachable, defective, or without any answer.
    for (n, (name, place)) in outputs.iter().enumerate().filter(|(n, _)| n % 2 == 1) {
        let failure = |kind| Failure::new(kind, "as the test wishes");
        match n / 2 % 5 {
            0 => drop(cluster.state().issue.insert(name.clone(), failure(FailureKind::Denied))),
            1 => drop(cluster.state().issue.insert(name.clone(), failure(FailureKind::Unavailable))),
            2 => drop(cluster.state().issue.insert(name.clone(), failure(FailureKind::Plugin))),
            3 => drop(cluster.state().worse.insert(name.clone(), Worse::Never)),
            _ => *place.refuse.lock().unwrap() = Some(failure(FailureKind::Storage)),
        }
    }
    let bot = bot(&cluster, &clock, &store, &outputs).await;
    bot.run(Reload::new(), tokio::time::sleep(WATCHED)).await.unwrap();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (n, (_, place)) in outputs.iter().enumerate() {
        let lines = text.lines().filter(|line| line.contains(&format!("place-{n:03})"))).count();
        let written = place.written.lock().unwrap();
        if n % 2 == 1 {
            assert_eq!(written.len(), 0);
            assert!((1..=2).contains(&lines), "place-{n:03} has {lines} lines:\n{text}");
            continue;
        }
        assert!((24..=25).contains(&written.len()), "place-{n:03}: {} renewals", written.len());
        for pair in written.windows(2) {
            let apart = (pair[1] - pair[0]).as_secs_f64() / INTERVAL.as_secs_f64();
            assert!((apart - 1.0).abs() <= 0.0101, "place-{n:03}: {apart} of the interval");
        }
        assert_eq!(lines, 2 * written.len(), "begin and end of each renewal");
    }
}
