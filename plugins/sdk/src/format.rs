use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::format::exports::tbot::format::format::{Description, Guest};
use crate::{Error, File, Material, config};

/// How additional files look: `format:` of an output. Export it with [`crate::export_format!`].
pub trait Format {
    /// The format's own keys in `tbot.yaml`. Keys it does not know are the host's to report: let serde ignore them.
    type Config: DeserializeOwned;
    /// The keys of [`Self::Config`], for the host to report the others.
    const KEYS: &'static [&'static str];

    /// The paths that [`Self::render`] returns, all of them and no other: known before anything is asked of the cluster.
    /// `directory` is what [`Material::directory`] will be.
    ///
    /// # Errors
    /// [`Error::invalid_config`] for what the operator has to change.
    fn files(config: &Self::Config, directory: Option<&str>) -> Result<Vec<String>, Error>;

    /// The files. Pure: the same configuration and material give the same files.
    ///
    /// # Errors
    /// [`Error::unsupported`] for what this cluster or destination does not offer.
    fn render(config: &Self::Config, material: &Material) -> Result<Vec<File>, Error>;
}

/// Makes a [`Format`] the component's export. Natively it only checks the type.
#[macro_export]
macro_rules! export_format {
    ($plugin:ty) => {
        const _: &[&str] = <$plugin as $crate::Format>::KEYS;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::FormatGuest<$plugin>;
    $crate::bindings::format::__export_format_world!(Exported with_types_in $crate::bindings::format);
        };
    };
}

/// From strings and JSON to a [`Format`].
pub struct FormatGuest<P>(PhantomData<P>);

impl<P: Format + 'static> Guest for FormatGuest<P> {
    fn describe() -> Description {
        Description { keys: P::KEYS.iter().map(ToString::to_string).collect() }
    }

    fn files(config: String, directory: Option<String>) -> Result<Vec<String>, Error> {
        P::files(&config::parse(&config)?, directory.as_deref())
    }

    fn render(config: String, material: Material) -> Result<Vec<File>, Error> {
        P::render(&config::parse(&config)?, &material)
    }
}
