//! Join method `token`: the token is the secret, and the host, which holds it, sends it. A plugin never sees one.

use tbot_sdk::{Attempt, Error, Join, Method, Opening, Proof};

/// No keys of its own: `onboarding.token` is the host's.
#[derive(serde::Deserialize)]
struct Config {}

struct Token;

impl Join for Token {
    type Config = Config;
    const METHODS: &'static [Method] = &[Method { name: "token", keys: &[], opening: Opening::Immediate }];

    fn prove(_: &Config, attempt: &Attempt) -> Result<Proof, Error> {
        match attempt.challenge {
            None => Ok(Proof::Secret),
            Some(_) => Err(Error::unsupported("the cluster sent a challenge, which a token cannot answer")),
        }
    }
}

tbot_sdk::export_join!(Token);

#[cfg(test)]
mod tests {
    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::testing::call;

    fn attempt(challenge: Option<&str>) -> Attempt {
        Attempt { method: "token".into(), token_name: String::new(), challenge: challenge.map(str::to_owned) }
    }

    #[test]
    fn the_token_is_the_proof_and_there_is_nothing_to_configure() {
        assert_eq!(call::prove::<Token>("{}", attempt(None)).unwrap(), Proof::Secret);
        assert_eq!(call::prove::<Token>("nonsense", attempt(None)).unwrap_err().kind, ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_challenge_is_not_for_a_token() {
        assert_eq!(call::prove::<Token>("{}", attempt(Some("x"))).unwrap_err().kind, ErrorKind::Unsupported);
    }
}
