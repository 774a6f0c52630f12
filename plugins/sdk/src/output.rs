use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::output::exports::tbot::output::output::{Description, Guest};
use crate::{Error, File, Material, Request, config};

/// What certificate to ask for, and the files made of it: `type:` of an entry of `outputs`. Export it with [`crate::export_output!`].
pub trait Output {
    /// The plugin's own keys in `tbot.yaml`. Keys it does not know are the host's to report: let serde ignore them.
    type Config: DeserializeOwned;
    /// The keys of [`Self::Config`], for the host to report the others.
    const KEYS: &'static [&'static str];

    /// Pure: called without a secret and without a cluster, and must name exactly the files that [`Self::render`] returns. `directory` is
    /// what [`Material::directory`] will be.
    ///
    /// # Errors
    /// [`Error::invalid_config`] for what the operator has to change.
    fn plan(config: &Self::Config, directory: Option<&str>) -> Result<Request, Error>;

    /// The files. Pure as well: the same configuration and material give the same files.
    ///
    /// # Errors
    /// [`Error::unsupported`] for what this cluster does not offer.
    fn render(config: &Self::Config, material: &Material) -> Result<Vec<File>, Error>;
}

/// Makes an [`Output`] the component's export. Natively it only checks the type.
#[macro_export]
macro_rules! export_output {
    ($plugin:ty) => {
        const _: &[&str] = <$plugin as $crate::Output>::KEYS;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::OutputGuest<$plugin>;
    $crate::bindings::output::__export_output_world!(Exported with_types_in $crate::bindings::output);
        };
    };
}

/// From strings and JSON to an [`Output`].
pub struct OutputGuest<P>(PhantomData<P>);

impl<P: Output + 'static> Guest for OutputGuest<P> {
    fn describe() -> Description {
        Description { keys: P::KEYS.iter().map(ToString::to_string).collect() }
    }

    fn plan(config: String, directory: Option<String>) -> Result<Request, Error> {
        P::plan(&config::parse(&config)?, directory.as_deref())
    }

    fn render(config: String, material: Material) -> Result<Vec<File>, Error> {
        P::render(&config::parse(&config)?, &material)
    }
}
