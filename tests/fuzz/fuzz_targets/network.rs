//! Whatever a cluster, a proxy or a load balancer may send: an answer or an error, no panic, bounded messages.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    cluster::fuzz::answer(bytes);
    cluster::fuzz::stream(bytes);
});
