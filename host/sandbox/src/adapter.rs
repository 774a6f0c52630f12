//! The traits of `identity`, played by guests of WIT 0.1.0.

use async_trait::async_trait;
use identity::{
    Attempt, Authority, Failure, Format, FormatUse, JoinMethod, JoinProof, KeyEncoding, Material, MethodDescription,
    Opening, Output, OutputDescription, OutputPlan, Piece, PrivateKey, RenderedFile, Target,
};

use crate::bindings::format::FormatPluginPre;
use crate::bindings::join::JoinPluginPre;
use crate::bindings::join::exports::tbot::join::method;
use crate::bindings::output::OutputPluginPre;
use crate::bindings::output::exports::tbot::output::output;
use crate::bindings::output::tbot::format::material as guest;
use crate::call::{call, reported};
use crate::engine::{Kind, Plugin};
use crate::error::{CallError, escaped};
use crate::limits::{JOIN_DEADLINE, PURE_DEADLINE};

fn export_missing(plugin: &Plugin, kind: Kind, error: &wasmtime::Error) -> CallError {
    let missing = escaped(&error.root_cause().to_string());
    let reason = format!("it does not export what {} plugin must: {missing}", kind.with_article());
    CallError::BadResult { plugin: plugin.name.to_string(), reason }
}

/// Instantiates in a fresh store, calls one exported function, and hands on what it returned. `key` is there for the guest where it is granted.
macro_rules! guest_call {
    ($self:ident, $deadline:expr, $interface:ident . $function:ident ( $($argument:expr),* ) $(, $key:ident)?) => {
        guest_call!(&$self.plugin, $self.pre, $deadline, $interface.$function($($argument),*) $(, $key)?)
    };
    ($plugin:expr, $pre:expr, $deadline:expr, $interface:ident . $function:ident ( $($argument:expr),* ) $(, $key:ident)?) => {
        call($plugin, stringify!($function), $deadline, async |store| {
            $(store.data_mut().reveal($key);)?
            let instance = $pre.instantiate_async(&mut *store).await?;
            guest_call!(@ $interface, $function, instance, store, $($argument),*)
        })
        .await
    };
    (@ $interface:ident, describe, $instance:ident, $store:ident, $($a:expr),*) => { $instance.$interface().call_describe(&mut *$store, $($a),*).await };
    (@ $interface:ident, prove, $instance:ident, $store:ident, $($a:expr),*) => { $instance.$interface().call_prove(&mut *$store, $($a),*).await };
    (@ $interface:ident, plan, $instance:ident, $store:ident, $($a:expr),*) => { $instance.$interface().call_plan(&mut *$store, $($a),*).await };
    (@ $interface:ident, files, $instance:ident, $store:ident, $($a:expr),*) => { $instance.$interface().call_files(&mut *$store, $($a),*).await };
    (@ $interface:ident, render, $instance:ident, $store:ident, $($a:expr),*) => { $instance.$interface().call_render(&mut *$store, $($a),*).await };
}

/// A join method played by a guest.
pub struct JoinPlugin {
    plugin: Plugin,
    pre: JoinPluginPre<crate::host::State>,
    description: MethodDescription,
}

impl JoinPlugin {
    /// Asks the guest once what it is.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn new(plugin: Plugin) -> Result<Self, CallError> {
        let pre = JoinPluginPre::new(plugin.pre.clone()).map_err(|e| export_missing(&plugin, Kind::Join, &e))?;
        let name = plugin.name.to_string();
        let mut this = Self {
            plugin,
            pre,
            description: MethodDescription { method: String::new(), opening: Opening::Immediate, keys: vec![] },
        };
        let said = guest_call!(this, PURE_DEADLINE, tbot_join_method.describe(&name))?;
        this.description = MethodDescription {
            method: escaped(&said.method),
            opening: match said.opening {
                method::Opening::Immediate => Opening::Immediate,
                method::Opening::Challenge => Opening::Challenge,
            },
            keys: said.keys.iter().map(|key| escaped(key)).collect(),
        };
        Ok(this)
    }
}

#[async_trait]
impl JoinMethod for JoinPlugin {
    fn description(&self) -> &MethodDescription {
        &self.description
    }

    async fn prove(&self, config: &str, attempt: Attempt) -> Result<JoinProof, Failure> {
        let method = self.description.method.clone();
        let attempt = method::Attempt { method, token_name: attempt.token_name, challenge: attempt.challenge };
        let config = config.to_owned();
        let plugin = self.plugin.granted(&config);
        let proof = guest_call!(&plugin, self.pre, JOIN_DEADLINE, tbot_join_method.prove(&config, &attempt))?;
        let named =
            |e| Failure::from(reported(&self.plugin, e)).context(format_args!("join method `{}`", self.plugin.name));
        Ok(match proof.map_err(named)? {
            method::Proof::Secret => JoinProof::Secret,
            method::Proof::IdToken(jwt) => JoinProof::IdToken(jwt),
            method::Proof::Azure(azure) => JoinProof::Azure {
                attested_data: azure.attested_data,
                access_token: azure.access_token,
                intermediate: azure.intermediate,
            },
            method::Proof::Iam(request) => JoinProof::Iam(request),
            method::Proof::Oracle(headers) => JoinProof::Oracle(headers),
            method::Proof::Ec2(document) => JoinProof::Ec2(document),
        })
    }
}

/// An output played by a guest.
pub struct OutputPlugin {
    plugin: Plugin,
    pre: OutputPluginPre<crate::host::State>,
    description: OutputDescription,
}

impl OutputPlugin {
    /// Asks the guest once what it is.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn new(plugin: Plugin) -> Result<Self, CallError> {
        let pre = OutputPluginPre::new(plugin.pre.clone()).map_err(|e| export_missing(&plugin, Kind::Output, &e))?;
        let mut this = Self { plugin, pre, description: OutputDescription::default() };
        let said = guest_call!(this, PURE_DEADLINE, tbot_output_output.describe())?;
        this.description.keys = said.keys.iter().map(|key| escaped(key)).collect();
        Ok(this)
    }
}

#[async_trait]
impl Output for OutputPlugin {
    fn description(&self) -> &OutputDescription {
        &self.description
    }

    async fn plan(&self, config: &str, directory: Option<&str>) -> Result<OutputPlan, Failure> {
        let config = config.to_owned();
        let request = guest_call!(self, PURE_DEADLINE, tbot_output_output.plan(&config, directory))?;
        let request = request.map_err(|e| reported(&self.plugin, e))?;
        let target = match request.target {
            output::Target::Identity(output::Identity { cluster, allow_reissue }) => {
                Target::Identity { cluster, allow_reissue }
            }
            output::Target::Application(name) => Target::Application(name),
            output::Target::Database(output::Database { service, username, database }) => {
                Target::Database { service, username, database }
            }
            output::Target::Kubernetes(cluster) => Target::Kubernetes(cluster),
            output::Target::SshHost(principals) => Target::SshHost(principals),
        };
        let formats =
            request.formats.into_iter().map(|wanted| FormatUse { name: wanted.name, config: wanted.config }).collect();
        Ok(OutputPlan { target, files: request.files, formats })
    }

    async fn render(&self, config: &str, material: &Material, key: &PrivateKey) -> Result<Vec<RenderedFile>, Failure> {
        let (config, material) = (config.to_owned(), lower(material));
        let plugin = self.plugin.granted(&config);
        let files = guest_call!(&plugin, self.pre, PURE_DEADLINE, tbot_output_output.render(&config, &material), key)?;
        Ok(files.map_err(|e| reported(&self.plugin, e))?.into_iter().map(lift).collect())
    }
}

/// A format played by a guest.
pub struct FormatPlugin {
    plugin: Plugin,
    pre: FormatPluginPre<crate::host::State>,
    description: OutputDescription,
}

impl FormatPlugin {
    /// Asks the guest once what it is.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn new(plugin: Plugin) -> Result<Self, CallError> {
        let pre = FormatPluginPre::new(plugin.pre.clone()).map_err(|e| export_missing(&plugin, Kind::Format, &e))?;
        let mut this = Self { plugin, pre, description: OutputDescription::default() };
        let said = guest_call!(this, PURE_DEADLINE, tbot_format_format.describe())?;
        this.description.keys = said.keys.iter().map(|key| escaped(key)).collect();
        Ok(this)
    }
}

#[async_trait]
impl Format for FormatPlugin {
    fn description(&self) -> &OutputDescription {
        &self.description
    }

    async fn files(&self, config: &str, directory: Option<&str>) -> Result<Vec<String>, Failure> {
        let config = config.to_owned();
        let files = guest_call!(self, PURE_DEADLINE, tbot_format_format.files(&config, directory))?;
        Ok(files.map_err(|e| reported(&self.plugin, e))?)
    }

    async fn render(&self, config: &str, material: &Material, key: &PrivateKey) -> Result<Vec<RenderedFile>, Failure> {
        let (config, material) = (config.to_owned(), lower(material));
        let plugin = self.plugin.granted(&config);
        let files = guest_call!(&plugin, self.pre, PURE_DEADLINE, tbot_format_format.render(&config, &material), key)?;
        let named = |e| Failure::from(reported(&self.plugin, e)).context(format_args!("format `{}`", self.plugin.name));
        Ok(files.map_err(named)?.into_iter().map(lift).collect())
    }
}

fn lower(material: &Material) -> guest::Material {
    let authorities = |all: &[Authority]| {
        let one = |authority: &Authority| guest::Authority {
            cluster: authority.cluster.clone(),
            tls_certificates: authority.tls_certificates.clone(),
            ssh_keys: authority.ssh_keys.clone(),
        };
        all.iter().map(one).collect()
    };
    guest::Material {
        cluster: guest::Cluster { name: material.cluster.clone(), proxy: material.proxy.clone() },
        tls_certificate: material.tls.as_ref().map(|tls| tls.pem.clone()),
        ssh_certificate: material.ssh.as_ref().map(|ssh| ssh.line.clone()),
        public_key: material.public_key.clone(),
        expires: material.expires().map_or(0, |expires| u64::try_from(expires.0).unwrap_or(0)),
        host_authorities: authorities(&material.authorities.host),
        user_authorities: authorities(&material.authorities.user),
        database_authorities: authorities(&material.authorities.database),
        directory: material.directory.clone(),
        executable: material.executable.clone(),
    }
}

fn lift(file: guest::File) -> RenderedFile {
    let piece = |piece: guest::Piece| match piece {
        guest::Piece::Bytes(bytes) => Piece::Bytes(bytes),
        guest::Piece::PrivateKey(encoding) => Piece::PrivateKey(match encoding {
            guest::KeyEncoding::TraditionalPem => KeyEncoding::TraditionalPem,
            guest::KeyEncoding::Pkcs8Pem => KeyEncoding::Pkcs8Pem,
            guest::KeyEncoding::Openssh => KeyEncoding::Openssh,
        }),
    };
    RenderedFile { path: file.path, pieces: file.pieces.into_iter().map(piece).collect() }
}
