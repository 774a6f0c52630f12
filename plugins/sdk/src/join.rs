use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::join::exports::tbot::join::method::{Description, Guest};
use crate::{Attempt, Error, Opening, Proof, config};

/// How a machine proves who it is: `join_method:` of `onboarding`. Export it with [`crate::export_join!`].
pub trait Join {
    /// The method's own keys in `tbot.yaml`. Keys it does not know are the host's to report: let serde ignore them.
    type Config: DeserializeOwned;
    /// The keys of [`Self::Config`], for the host to report the others.
    const KEYS: &'static [&'static str];
    /// Name on the wire, as `onboarding.join_method` spells it.
    const METHOD: &'static str;
    /// Does the cluster open the conversation?
    const OPENING: Opening;

    /// The evidence for one attempt; [`Attempt::challenge`] is there where [`Self::OPENING`] asks for one.
    ///
    /// # Errors
    /// [`Error::unavailable`] where another attempt may succeed, [`Error::denied`] where the environment refused.
    fn prove(config: &Self::Config, attempt: &Attempt) -> Result<Proof, Error>;
}

/// Makes a [`Join`] the component's export. Natively it only checks the type.
#[macro_export]
macro_rules! export_join {
    ($plugin:ty) => {
        const _: &[&str] = <$plugin as $crate::Join>::KEYS;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::JoinGuest<$plugin>;
    $crate::bindings::join::__export_join_world!(Exported with_types_in $crate::bindings::join);
        };
    };
}

/// From strings and JSON to a [`Join`].
pub struct JoinGuest<P>(PhantomData<P>);

impl<P: Join + 'static> Guest for JoinGuest<P> {
    fn describe() -> Description {
        Description {
            method: P::METHOD.to_owned(),
            opening: P::OPENING,
            keys: P::KEYS.iter().map(ToString::to_string).collect(),
        }
    }

    fn prove(config: String, attempt: Attempt) -> Result<Proof, Error> {
        P::prove(&config::parse(&config)?, &attempt)
    }
}
