use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::destination::DestinationConfig;
use crate::file::Draft;
use crate::mistake::{Place, Report};
use crate::onboarding::Onboarding;
use crate::output::OutputConfig;
use crate::{ServerAddress, ServerKind, ServiceFlags, parse_flag_duration};

/// What the command line says; empty means not given (surface §A.2, §A.6).
#[derive(Clone, Default)]
pub struct Flags {
    /// `--auth-server`, or `TELEPORT_AUTH_SERVER`.
    pub auth_server: Option<String>,
    /// `--proxy-server`, or `TELEPORT_PROXY`.
    pub proxy_server: Option<String>,
    /// `--token`, or `TELEPORT_BOT_TOKEN`: a secret, or an absolute path.
    pub token: Option<Zeroizing<String>>,
    /// `--join-method`.
    pub join_method: Option<String>,
    /// `--ca-pin`, repeatable.
    pub ca_pins: Vec<String>,
    /// `--join-uri`: a secret, for it holds the token.
    pub join_uri: Option<Zeroizing<String>>,
    /// `--data-dir`, in the newest spelling `--storage`: path or URI.
    pub data_dir: Option<String>,
    /// `--destination-dir`: a path.
    pub destination_dir: Option<PathBuf>,
    /// The service that `start <service>` or `configure <service>` names: one more than the file's.
    pub service: Option<ServiceFlags>,
    /// `--certificate-ttl`, in Go's form.
    pub certificate_ttl: Option<String>,
    /// `--renewal-interval`, in Go's form.
    pub renewal_interval: Option<String>,
    /// `--diag-addr`.
    pub diag_addr: Option<String>,
    /// `--oneshot`, or `--no-oneshot`.
    pub oneshot: Option<bool>,
    /// `--debug`, or `--no-debug`.
    pub debug: Option<bool>,
    /// `--insecure`, or `--no-insecure`.
    pub insecure: Option<bool>,
    /// No bot is run, only its outputs are looked at: the address and how to join may be missing (surface §B.3).
    pub outputs_only: bool,
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flags(…)")
    }
}

impl Flags {
    /// The same flags with the environment where they say nothing. A variable that is set and empty counts as not set.
    #[must_use]
    pub(crate) fn or_environment(&self, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut this = self.clone();
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        // A flag for one kind of address goes before a variable for the other.
        if given(this.auth_server.as_deref()).is_none() && given(this.proxy_server.as_deref()).is_none() {
            this.auth_server = variable("TELEPORT_AUTH_SERVER");
            // Exported for `tsh`, too, and unknown to older agents.
            this.proxy_server = variable("TELEPORT_PROXY").filter(|_| this.auth_server.is_none());
        }
        this.token = this.token.filter(|token| !token.is_empty());
        this.token = this.token.or_else(|| variable("TELEPORT_BOT_TOKEN").map(Zeroizing::new));
        this
    }

    /// Lays the flags over what the file says, and warns of what they replace (surface §A.6). `--insecure` comes after the checks.
    pub(crate) fn merge(&self, draft: &mut Draft, source: &str, report: &mut Report) {
        let overriding = |what: &str, flags: &str| {
            let message = format!("CLI parameters are overriding {what} configured in {source}: {flags} wins");
            Place::default().mistake(message)
        };
        if given(self.auth_server.as_deref()).is_some() || given(self.proxy_server.as_deref()).is_some() {
            if draft.addressed {
                report
                    .warnings
                    .push(overriding("auth server", "`--auth-server` or `--proxy-server`, or its variable,"));
            }
            self.merge_addresses(draft, report);
        }
        if let Some(ttl) = duration("--certificate-ttl", self.certificate_ttl.as_deref(), report) {
            if draft.ttl.is_some() {
                report.warnings.push(overriding("certificate TTL", "`--certificate-ttl`"));
            }
            draft.ttl = Some(ttl);
        }
        if let Some(interval) = duration("--renewal-interval", self.renewal_interval.as_deref(), report) {
            if draft.renewal_interval.is_some() {
                report.warnings.push(overriding("renewal interval", "`--renewal-interval`"));
            }
            draft.renewal_interval = Some(interval);
        }
        if let Some(address) = given(self.diag_addr.as_deref()) {
            if draft.diag_addr.is_some() {
                report.warnings.push(overriding("diagnostics address", "`--diag-addr`"));
            }
            draft.diag_addr = Some(address.to_owned());
        }
        if let Some(text) = given(self.data_dir.as_deref()) {
            if draft.storage.is_some() {
                report.warnings.push(overriding("storage", "`--data-dir`"));
            }
            let place = Place::flag("--data-dir");
            match DestinationConfig::parse_uri(text) {
                Ok(storage) => draft.storage = Some((place, storage)),
                Err(message) => report.mistake(&place, message),
            }
        }
        if let Some(path) = self.destination_dir.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            if !draft.outputs.is_empty() || !draft.tunnels.is_empty() {
                report.warnings.push(overriding("all outputs", "`--destination-dir`, which is one `identity` output,"));
            }
            let destination = DestinationConfig::directory(path);
            draft.outputs = vec![OutputConfig::of_flag("--destination-dir", "identity", destination)];
            draft.tunnels.clear();
        }
        if let Some(service) = &self.service {
            let (outputs, tunnels) = service.services(report);
            draft.outputs.extend(outputs);
            draft.tunnels.extend(tunnels);
            draft.newest = true;
        }
        self.merge_onboarding(draft, source, report);
        self.merge_join_uri(draft, source, report);
        draft.oneshot = self.oneshot.unwrap_or(draft.oneshot);
        draft.debug = self.debug.unwrap_or(draft.debug);
        draft.insecure = draft.insecure.take().filter(|_| self.insecure != Some(false));
    }

    fn merge_addresses(&self, draft: &mut Draft, report: &mut Report) {
        draft.addresses.clear();
        draft.addressed = true;
        let flags = [
            ("--auth-server", &self.auth_server, ServerKind::Either),
            ("--proxy-server", &self.proxy_server, ServerKind::Proxy),
        ];
        for (flag, text, kind) in flags {
            let Some(text) = given(text.as_deref()) else { continue };
            draft.address_place = Place::flag(flag);
            match ServerAddress::parse(text, kind) {
                Ok(address) => draft.addresses.push(address),
                Err(message) => report.mistake(&draft.address_place, message),
            }
        }
    }

    /// Any one of the three replaces the section as a whole.
    fn merge_onboarding(&self, draft: &mut Draft, source: &str, report: &mut Report) {
        let (token, method) =
            (given(self.token.as_ref().map(|token| token.as_str())), given(self.join_method.as_deref()));
        if token.is_none() && method.is_none() && self.ca_pins.is_empty() {
            return;
        }
        if draft.onboarding.as_ref().is_some_and(Onboarding::written) {
            let message = format!(
                "CLI parameters are overriding onboarding config from {source}: `--token`, `--join-method`, `--ca-pin` or the \
                 variable `TELEPORT_BOT_TOKEN` replaces the whole section: unset it to use the file's"
            );
            report.warning(&Place::default(), message);
        }
        draft.onboarded = true;
        draft.onboarding = Some(Onboarding::of_flags(method.unwrap_or_default(), token, &self.ca_pins, report));
    }

    /// Address and onboarding in one: both are replaced.
    fn merge_join_uri(&self, draft: &mut Draft, source: &str, report: &mut Report) {
        let Some(text) = given(self.join_uri.as_ref().map(|text| text.as_str())) else { return };
        if draft.addressed || draft.onboarding.as_ref().is_some_and(Onboarding::written) {
            let message = format!(
                "CLI parameters are overriding join configuration from {source}: `--join-uri` replaces address and onboarding"
            );
            report.warning(&Place::default(), message);
        }
        draft.join(text, Place::flag("--join-uri"), report);
    }
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn duration(flag: &str, text: Option<&str>, report: &mut Report) -> Option<(Place, std::time::Duration)> {
    let place = Place::flag(flag);
    match parse_flag_duration(given(text)?) {
        Ok(duration) => (!duration.is_zero()).then_some((place, duration)),
        Err(message) => {
            report.mistake(&place, message);
            None
        }
    }
}
