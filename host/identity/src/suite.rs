use crate::KeyAlgorithm;

/// A cluster's signature algorithm suite: which keys a client should make (wire §e.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Suite {
    /// RSA-2048 everywhere; also what a cluster without a suite means.
    #[default]
    Legacy,
    /// ECDSA P-256 for users and hosts.
    BalancedV1,
    /// ECDSA P-256, FIPS-approved algorithms only.
    FipsV1,
    /// ECDSA P-256, what hardware security modules support.
    HsmV1,
}

impl Suite {
    /// Reads the short name, the full enum name or the number (wire §a.2); anything else is legacy.
    pub fn parse(text: &str) -> Self {
        match text.trim_start_matches("SIGNATURE_ALGORITHM_SUITE_").to_ascii_lowercase().replace('_', "-").as_str() {
            "balanced-v1" | "2" => Self::BalancedV1,
            "fips-v1" | "3" => Self::FipsV1,
            "hsm-v1" | "4" => Self::HsmV1,
            _ => Self::Legacy,
        }
    }

    /// The algorithm of a key that lands in the files of an output. Database client keys stay RSA-2048 in every suite.
    pub fn output_key(self, database: bool) -> KeyAlgorithm {
        match self {
            Self::Legacy => KeyAlgorithm::Rsa2048,
            _ if database => KeyAlgorithm::Rsa2048,
            _ => KeyAlgorithm::EcdsaP256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling_and_takes_the_unknown_for_legacy() {
        for (text, suite) in [
            ("balanced-v1", Suite::BalancedV1),
            ("SIGNATURE_ALGORITHM_SUITE_BALANCED_V1", Suite::BalancedV1),
            ("3", Suite::FipsV1),
            ("hsm-v1", Suite::HsmV1),
            ("legacy", Suite::Legacy),
            ("", Suite::Legacy),
            ("SIGNATURE_ALGORITHM_SUITE_UNSPECIFIED", Suite::Legacy),
        ] {
            assert_eq!(Suite::parse(text), suite, "{text}");
        }
    }

    #[test]
    fn a_database_key_is_rsa_in_every_suite() {
        for suite in [Suite::Legacy, Suite::BalancedV1, Suite::FipsV1, Suite::HsmV1] {
            assert_eq!(suite.output_key(true), KeyAlgorithm::Rsa2048);
        }
        assert_eq!(Suite::BalancedV1.output_key(false), KeyAlgorithm::EcdsaP256);
    }
}
