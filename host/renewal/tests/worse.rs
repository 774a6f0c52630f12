//! What must not take the place of a good set.

mod fakes;

use fakes::{FakeCluster, FakeDestination, TestClock, Worse, bot};

#[tokio::test(start_paused = true)]
async fn a_working_set_is_not_replaced_by_a_worse_one() {
    let clock = TestClock::new();
    let cluster = FakeCluster::new(clock.clone());
    let (store, place) = (FakeDestination::new("store", &cluster), FakeDestination::new("out", &cluster));
    let pass = async |application: &str| {
        let outputs = [(application.to_owned(), place.clone())];
        bot(&cluster, &clock, &store, &outputs).await.oneshot(std::future::pending()).await
    };
    pass("a").await.unwrap();
    let good = place.files.lock().unwrap().clone();
    for (worse, words) in [
        (Worse::Expired, "certificate is valid from"),
        (Worse::NotYetValid, "certificate is valid from"),
        (Worse::OtherCluster, "is of cluster `other.example.com`"),
        (Worse::OtherAuthority, "not signed by an authority of this cluster"),
        (Worse::OtherKey, "another key than the one sent"),
        (Worse::SshExpired, "certificate is valid from"),
        (Worse::NoHostAuthority, "no authority of its own hosts"),
    ] {
        cluster.state().worse = [("a".to_owned(), worse)].into();
        let refused = pass("a").await.unwrap_err();
        assert!(refused[0].message.contains(words), "{worse:?}: {}", refused[0]);
        assert_eq!(place.files.lock().unwrap().clone(), good, "{worse:?}");
    }
    cluster.state().worse.clear();
    let refused = pass("misses a file").await.unwrap_err();
    assert!(refused[0].message.contains("planned file `key` and did not return it"), "{}", refused[0]);
    assert_eq!(place.files.lock().unwrap().clone(), good);
    pass("a").await.unwrap();
    assert_ne!(place.files.lock().unwrap().clone(), good);
}
