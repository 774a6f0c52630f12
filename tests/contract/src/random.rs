use std::sync::Arc;

use identity::{Authority, Material, Timestamp};
use serde_json::{Map, Value, json};

/// Repeatable nonsense: the same seed gives the same.
pub struct Random(u64);

impl Random {
    /// Any seed, zero too.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15))
    }

    /// A number below `bound` (splitmix64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).unwrap_or_default()]
    }

    /// Text that someone may have typed, or meant to do harm with.
    pub fn text(&mut self) -> String {
        const PARTS: [&str; 16] = [
            "",
            "a",
            "name",
            " ",
            "\n",
            "\"",
            "\\",
            "../",
            "/",
            "%",
            "$HOME",
            "é𝄞",
            "\u{0}",
            ":443",
            "*.example.com",
            "-----BEGIN CERTIFICATE-----\n",
        ];
        let length = self.pick(&[0, 1, 1, 2, 3, 5, 300]);
        (0..length).map(|_| self.pick(&PARTS)).collect()
    }

    /// The configuration `like`, with nonsense for some of `keys` and for keys that nobody knows.
    pub fn config(&mut self, keys: &[String], like: &str) -> String {
        let mut config: Map<String, Value> = serde_json::from_str(like).unwrap_or_default();
        for key in keys {
            if self.below(10) == 0 {
                config.insert(key.clone(), self.value(0));
            }
        }
        for _ in 0..self.below(3) {
            config.insert(self.text(), self.value(0));
        }
        Value::Object(config).to_string()
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth > 2 { 7 } else { 10 }) {
            0 => Value::Null,
            1 | 2 => Value::Bool(self.below(2) == 0),
            3 => json!(self.below(u64::MAX)),
            4 => json!(-1.5e300),
            5 | 6 => Value::String(self.text()),
            7 => json!("plain"),
            8 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => {
                let key = self.pick(&["name", "file", ""]).to_owned();
                Value::Object(Map::from_iter([(key, self.value(depth + 1)), (self.text(), self.value(depth + 1))]))
            }
        }
    }

    /// `like`, with nonsense in some of its places.
    pub fn material(&mut self, like: &Material) -> Material {
        let mut material = like.clone();
        for place in [&mut material.cluster, &mut material.proxy, &mut material.public_key, &mut material.executable] {
            if self.below(3) == 0 {
                *place = self.text();
            }
        }
        if let Some(tls) = &mut material.tls {
            if self.below(3) == 0 {
                tls.pem = self.text();
            }
            tls.before = Timestamp(self.pick(&[0, -1, 1, i64::MAX, i64::MIN, 1_800_000_000]));
        }
        material.tls = material.tls.filter(|_| self.below(8) > 0);
        material.ssh = material.ssh.filter(|_| self.below(2) == 0);
        material.directory = self.pick(&[None, Some("/opt/x"), Some("")]).map(|path| format!("{path}{}", self.text()));
        let mut authorities = (*material.authorities).clone();
        for list in [&mut authorities.host, &mut authorities.user, &mut authorities.database] {
            match self.below(3) {
                0 => list.clear(),
                1 => list.push(Authority {
                    cluster: self.text(),
                    tls_certificates: vec![self.text(), self.text()],
                    ssh_keys: vec![self.text()],
                }),
                _ => {}
            }
        }
        material.authorities = Arc::new(authorities);
        material
    }
}
