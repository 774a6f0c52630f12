//! One output: from plan to files that were read back.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use identity::{
    Authorities, Clock, Destination, Failure, FailureKind, Format, Formats, Issued, KeyAlgorithm, Material, Order,
    Output, OutputFile, OutputPlan, PrivateKey, PublicKey, RelativePath, Session, Target, Timestamp, assemble,
    verify_chain, verify_written,
};
use tracing::{info, warn};

use crate::hook::Hook;
use crate::schedule::{go_duration, sleep};

/// How far this machine's clock may be behind before it is called wrong: what Kerberos grants. Clusters date certificates back by a minute.
const LONGEST_SKEW: Duration = Duration::from_secs(300);

/// What the configuration says of one output.
pub struct OutputSettings {
    /// Unique name, as health and errors show it.
    pub name: String,
    /// The `type` of the configuration.
    pub kind: String,
    /// The plugin's own keys, a JSON object.
    pub options: String,
    /// Roles to impersonate; empty means all that the bot may.
    pub roles: Vec<String>,
    /// Wanted life of the certificate.
    pub ttl: Duration,
    /// How often it is renewed.
    pub interval: Duration,
    /// The plugin.
    pub output: Arc<dyn Output>,
    /// Where the files go.
    pub destination: Arc<dyn Destination>,
    /// What is done after its files have changed.
    pub on_change: Option<Hook>,
    /// Absolute path of this program.
    pub executable: String,
}

/// An output that is planned: what it asks for and which files it writes is known, nothing has been asked of the cluster.
pub struct OutputJob {
    settings: OutputSettings,
    plan: OutputPlan,
    formats: Vec<PlannedFormat>,
}

struct PlannedFormat {
    format: Arc<dyn Format>,
    name: String,
    config: String,
    files: Vec<String>,
}

/// Every path that an output would write into `directory`, with those of its formats: what `tbot init` prepares.
///
/// # Errors
/// What the plugins say of the configuration, JSON in `options`.
pub async fn planned_files(
    output: &dyn Output,
    options: &str,
    directory: Option<&str>,
    available: &dyn Formats,
) -> Result<Vec<String>, Failure> {
    let (plan, formats) = plan(output, options, directory, available).await?;
    Ok(plan.files.into_iter().chain(formats.into_iter().flat_map(|format| format.files)).collect())
}

async fn plan(
    output: &dyn Output,
    options: &str,
    directory: Option<&str>,
    available: &dyn Formats,
) -> Result<(OutputPlan, Vec<PlannedFormat>), Failure> {
    let plan = output.plan(options, directory).await?;
    let mut formats = Vec::new();
    for wanted in &plan.formats {
        let format = available.format(&wanted.name).await.map_err(|e| e.context("format"))?;
        let named = |e: Failure| e.context(format_args!("format `{}`", wanted.name));
        let files = format.files(&wanted.config, directory).await.map_err(named)?;
        formats.push(PlannedFormat { format, name: wanted.name.clone(), config: wanted.config.clone(), files });
    }
    Ok((plan, formats))
}

impl OutputJob {
    /// Plans the output and resolves its formats.
    ///
    /// # Errors
    /// What the plugins say of the configuration; [`FailureKind::InvalidConfig`] where two files of one name would be written.
    pub async fn new(settings: OutputSettings, available: &dyn Formats) -> Result<Self, Failure> {
        let directory = directory(&*settings.destination);
        let (plan, formats) = plan(&*settings.output, &settings.options, directory.as_deref(), available).await?;
        let job = Self { settings, plan, formats };
        let mut seen = BTreeSet::new();
        for path in job.files() {
            RelativePath::parse(path)?;
            if !seen.insert(path) {
                let message = format!("two files would be named `{path}`: give the format another file name");
                return Err(Failure::new(FailureKind::InvalidConfig, message));
            }
        }
        Ok(job)
    }

    /// Every path that a renewal writes, inside the destination.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let more = self.formats.iter().flat_map(|format| &format.files);
        self.plan.files.iter().chain(more).map(String::as_str)
    }

    /// The format plugins that it uses: name, configuration (JSON), and the keys that the plugin knows.
    pub fn formats(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        self.formats.iter().map(|one| (&*one.name, &*one.config, &*one.format.description().keys))
    }

    /// The unique name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What the configuration says of it.
    pub fn settings(&self) -> &OutputSettings {
        &self.settings
    }

    /// What its certificate is for.
    pub fn target(&self) -> &Target {
        &self.plan.target
    }

    /// Where its files go.
    pub fn destination(&self) -> &dyn Destination {
        &*self.settings.destination
    }

    /// As log lines name it: `application (directory: /opt/machine-id)`.
    pub fn description(&self) -> String {
        format!("{} ({})", self.settings.kind, self.settings.destination.description())
    }

    pub(crate) fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// Creates the destination and proves it writable.
    ///
    /// # Errors
    /// [`FailureKind::Storage`].
    pub async fn prepare(&self) -> Result<(), Failure> {
        self.settings.destination.prepare().await
    }

    pub(crate) fn key_algorithm(&self, session: &dyn Session) -> KeyAlgorithm {
        session.info().suite.output_key(matches!(self.plan.target, Target::Database { .. }))
    }

    /// Says that a renewal begins.
    pub(crate) fn announce(&self) {
        info!(target: "TBOT", output = %self.description(), "Generating output.");
    }

    /// Issues, renders, writes and reads back one generation. Returns when its certificate expires.
    pub(crate) async fn renew(
        &self,
        session: &dyn Session,
        key: &Arc<PrivateKey>,
        clock: &dyn Clock,
    ) -> Result<Timestamp, Failure> {
        // Nothing is asked of the cluster for a place that cannot take the answer.
        self.prepare().await?;
        let order = Order {
            target: self.plan.target.clone(),
            roles: self.settings.roles.clone(),
            ttl: self.settings.ttl,
            key: key.public_key().clone(),
        };
        let issued = session.issue(&order).await?;
        let authorities = session.authorities().await?;
        self.await_validity(&issued, clock).await;
        check(&issued, key.public_key(), &session.info().name, &authorities, clock.now())?;
        let material = Material {
            cluster: session.info().name.clone(),
            proxy: session.info().proxy.clone(),
            tls: issued.tls,
            ssh: issued.ssh,
            public_key: key.public_key().ssh_line(),
            authorities,
            directory: directory(&*self.settings.destination),
            executable: self.settings.executable.clone(),
        };
        let files = self.render(&material, key).await?;
        self.settings.destination.write(files.clone()).await?;
        self.verify(&files, &material, clock).await?;
        self.log_target();
        info!(target: "TBOT", output = %self.description(), "Generated output.");
        material.expires().ok_or_else(nothing_issued)
    }

    /// Waits until what was issued is valid by this machine's clock too, where that is a little behind the cluster's: nobody here would accept
    /// it before. Whoever is further behind hears of it from [`check`].
    async fn await_validity(&self, issued: &Issued, clock: &dyn Clock) {
        let begins = [issued.tls.as_ref().map(|tls| tls.after), issued.ssh.as_ref().map(|ssh| ssh.after)];
        let early = begins.into_iter().flatten().max().map_or(Duration::ZERO, |after| after.since(clock.now()));
        if !early.is_zero() && early <= LONGEST_SKEW {
            warn!(target: "TBOT", output = %self.description(), "This machine's clock is behind the cluster's: waiting {} until the certificate is valid here, set the clock.", go_duration(early));
            sleep(clock, early).await;
        }
    }

    /// Is there a set in place whose hook may not have run? Nobody knows after a start: the agent may have been killed before it did.
    pub(crate) async fn owes_hook(&self) -> bool {
        let first = self.files().next();
        match (&self.settings.on_change, first) {
            (Some(_), Some(first)) => matches!(self.settings.destination.read(first).await, Ok(Some(_))),
            _ => false,
        }
    }

    /// Runs the hook, where there is one.
    pub(crate) async fn run_hook(&self) -> Result<(), Failure> {
        let Some(hook) = &self.settings.on_change else { return Ok(()) };
        let directory = self.settings.destination.directory().map(|path| path.to_string_lossy());
        hook.run(&self.settings.name, directory.as_deref()).await
    }

    async fn render(&self, material: &Material, key: &PrivateKey) -> Result<Vec<OutputFile>, Failure> {
        let rendered = self.settings.output.render(&self.settings.options, material, key).await?;
        let mut files = assemble(&self.plan.files, rendered, key)
            .map_err(|e| e.context(format_args!("output plugin `{}`", self.settings.kind)))?;
        for planned in &self.formats {
            let rendered = planned.format.render(&planned.config, material, key).await?;
            let more = assemble(&planned.files, rendered, key);
            files.extend(more.map_err(|e| e.context(format_args!("format plugin `{}`", planned.name)))?);
        }
        Ok(files)
    }

    /// Reads every file back, as a reader would: the bytes are those meant, and keys and certificates in them hold together.
    async fn verify(&self, files: &[OutputFile], material: &Material, clock: &dyn Clock) -> Result<(), Failure> {
        let mut key = None;
        let mut certificate = None;
        for file in files {
            let read = self.settings.destination.read(file.path.as_str()).await?;
            let Some(read) = read.filter(|read| **read == *file.contents) else {
                let message =
                    format!("file `{}` was changed while it was written: is another process writing there?", file.path);
                return Err(Failure::new(FailureKind::Storage, message));
            };
            if key.is_none() && read.starts_with(b"-----BEGIN ") && PrivateKey::from_pem(&read).is_ok() {
                key = Some(read);
            } else if certificate.is_none()
                && let Some(tls) = &material.tls
                && read.starts_with(tls.pem.as_bytes())
            {
                certificate = Some(read);
            }
        }
        match (key, certificate) {
            (Some(key), Some(certificate)) => verify_written(&key, &certificate, &material.authorities, clock.now()),
            // An output of another shape, such as a key store: its bytes are what the plugin made of verified parts.
            _ => Ok(()),
        }
    }

    /// The words that users look for in the log (surface §F.4).
    fn log_target(&self) {
        match &self.plan.target {
            Target::Application(name) => info!(target: "TBOT", "Generated identity for app {name:?}"),
            Target::Database { service, .. } => info!(target: "TBOT", "Generated identity for database {service:?}"),
            Target::Kubernetes(name) => info!(target: "TBOT", "Generated identity for Kubernetes cluster {name:?}"),
            Target::Identity { .. } | Target::SshHost(_) => {}
        }
    }
}

fn directory(destination: &dyn Destination) -> Option<String> {
    destination.directory().map(|path| path.to_string_lossy().into_owned())
}

/// What the cluster issued is for our key, of this cluster, signed by its authority and valid now; and whom its holder is to trust came with
/// it. Anything else would be worse than what is in place. The signature of an SSH certificate is checked by whoever it is shown to.
fn check(
    issued: &Issued,
    key: &PublicKey,
    cluster: &str,
    authorities: &Authorities,
    now: Timestamp,
) -> Result<(), Failure> {
    let for_key = issued.tls.as_ref().is_none_or(|tls| tls.matches(key))
        && issued.ssh.as_ref().is_none_or(|ssh| ssh.public_key == key.ssh_wire());
    if !for_key {
        return Err(Failure::new(FailureKind::Internal, "the cluster certified another key than the one sent"));
    }
    let denied =
        |e: &dyn Display| Failure::new(FailureKind::Denied, format!("what the cluster issued does not verify: {e}"));
    if let Some(ssh) = &issued.ssh {
        ssh.verify_time(now).map_err(|e| denied(&e))?;
    }
    if let Some(tls) = &issued.tls {
        if tls.cluster != cluster {
            return Err(denied(&format_args!("the certificate is of cluster `{}`, not `{cluster}`", tls.cluster)));
        }
        verify_chain(tls, &authorities.user_tls(), now).map_err(|e| denied(&e))?;
    }
    if issued.tls.is_none() && issued.ssh.is_none() {
        return Err(nothing_issued());
    }
    match authorities.host.iter().any(|one| one.cluster == cluster) {
        true => Ok(()),
        false => Err(Failure::new(FailureKind::Denied, "the cluster named no authority of its own hosts")),
    }
}

fn nothing_issued() -> Failure {
    Failure::new(FailureKind::Internal, "the cluster issued no certificate")
}
