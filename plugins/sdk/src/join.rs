use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::join::exports::tbot::join::method::{Description, Guest};
use crate::{Attempt, Error, Opening, Proof, config};

/// How a machine proves who it is: `join_method:` of `onboarding`. Export it with [`crate::export_join!`].
pub trait Join {
    /// The method's own keys in `tbot.yaml`. Keys it does not know are the host's to report: let serde ignore them.
    type Config: DeserializeOwned;
    /// What it can be: more than one where methods differ only in the place of their evidence. An unknown name means the first.
    const METHODS: &'static [Method];

    /// The evidence for one attempt by the method that [`Attempt::method`] names.
    ///
    /// # Errors
    /// [`Error::unavailable`] where another attempt may succeed, [`Error::denied`] where the environment refused.
    fn prove(config: &Self::Config, attempt: &Attempt) -> Result<Proof, Error>;
}

/// A method that a [`Join`] serves.
pub struct Method {
    /// Name on the wire, as `onboarding.join_method` spells it.
    pub name: &'static str,
    /// The configuration keys it knows, for the host to report the others.
    pub keys: &'static [&'static str],
    /// Does the cluster open the conversation, with [`Attempt::challenge`]?
    pub opening: Opening,
}

/// Makes a [`Join`] the component's export. Natively it only checks the type.
#[macro_export]
macro_rules! export_join {
    ($plugin:ty) => {
        const _: &[$crate::Method] = <$plugin as $crate::Join>::METHODS;
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
    fn describe(name: String) -> Description {
        const { assert!(!P::METHODS.is_empty(), "a join plugin is at least one method") };
        let method = P::METHODS.iter().find(|method| method.name == name).unwrap_or(&P::METHODS[0]);
        Description {
            method: method.name.to_owned(),
            opening: method.opening,
            keys: method.keys.iter().map(ToString::to_string).collect(),
        }
    }

    fn prove(config: String, attempt: Attempt) -> Result<Proof, Error> {
        P::prove(&config::parse(&config)?, &attempt)
    }
}
