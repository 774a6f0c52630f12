//! Any file: an answer, no panic; and what was read prints and reads back equal.
#![no_main]

use std::path::Path;

use config::{Config, Flags, Mistakes, migrate, parse};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8]) -> Result<Config, Mistakes> {
    parse(Some((Path::new("tbot.yaml"), bytes)), &Flags::default(), &|_| None)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = migrate(Path::new("tbot.yaml"), bytes);
    if let Ok(mut config) = read(bytes) {
        let printed = config.to_yaml();
        let mut again = read(printed.as_bytes()).unwrap_or_else(|mistakes| panic!("{printed}\n{mistakes}"));
        config.warnings.clear();
        again.warnings.clear();
        assert_eq!(again, config, "{printed}");
    }
});
