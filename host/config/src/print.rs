//! A configuration as text, in the order and the style of the original's `configure` (surface §A.7, §B.4): what is printed reads back equal.

use serde_json::{Map, Value, json};

use crate::hook::{Action, OnChange};
use crate::onboarding::method_key;
use crate::{
    Acls, Config, DestinationConfig, Layout, Onboarding, OutputConfig, PluginConfig, PluginKind, Reader, ServerKind,
    Symlinks, Token, TunnelConfig, TunnelKind, format_duration, yaml,
};

impl Config {
    /// The configuration as YAML, with every default written out. It holds the token, where there is one.
    pub fn to_yaml(&self) -> String {
        let mut root = Map::new();
        root.insert("version".to_owned(), json!("v2"));
        root.insert("onboarding".to_owned(), onboarding(&self.onboarding));
        root.insert("storage".to_owned(), destination(&self.storage));
        let services: Vec<Value> = self.outputs.iter().map(output).chain(self.tunnels.iter().map(tunnel)).collect();
        if !services.is_empty() {
            root.insert(if self.newest { "services" } else { "outputs" }.to_owned(), services.into());
        }
        if !self.plugins.is_empty() {
            root.insert("plugins".to_owned(), self.plugins.iter().map(plugin).collect());
        }
        root.insert("debug".to_owned(), self.debug.into());
        let address = if self.address.kind == ServerKind::Proxy { "proxy_server" } else { "auth_server" };
        root.insert(address.to_owned(), self.address.text.as_str().into());
        let ttl = if self.newest { "credential_ttl" } else { "certificate_ttl" };
        root.insert(ttl.to_owned(), format_duration(self.ttl).into());
        root.insert("renewal_interval".to_owned(), format_duration(self.renewal_interval).into());
        root.insert("oneshot".to_owned(), self.oneshot.into());
        root.insert("fips".to_owned(), false.into());
        root.extend(self.diag_addr.as_ref().map(|address| ("diag_addr".to_owned(), address.as_str().into())));
        if self.insecure {
            root.insert("insecure".to_owned(), true.into());
        }
        yaml::file(&root)
    }
}

/// A destination with its `type`.
pub(crate) fn destination(destination: &DestinationConfig) -> Value {
    let DestinationConfig::Directory { path, symlinks, acls, readers, layout } = destination else {
        return json!({"type": "memory"});
    };
    let symlinks = match symlinks {
        Symlinks::Insecure => "insecure",
        Symlinks::TrySecure => "try-secure",
        Symlinks::Secure => "secure",
    };
    let acls = match acls {
        Acls::Off => "off",
        Acls::Try => "try",
        Acls::Required => "required",
    };
    let mut map = json!({"type": "directory", "path": path.to_string_lossy(), "symlinks": symlinks, "acls": acls});
    if !readers.is_empty() {
        let reader = |reader: &Reader| match reader {
            Reader::User(user) => json!({ "user": user }),
            Reader::Group(group) => json!({ "group": group }),
        };
        map["readers"] = readers.iter().map(reader).collect();
    }
    if *layout == Layout::Generations {
        map["layout"] = json!("generations");
    }
    map
}

fn onboarding(onboarding: &Onboarding) -> Value {
    let mut map = Map::new();
    let token = onboarding.token.as_ref().map(|token| match token {
        Token::Literal(text) => text.as_str().into(),
        Token::File(path) => path.to_string_lossy().into(),
    });
    map.extend(token.map(|token| ("token".to_owned(), token)));
    map.extend(onboarding.ca_path.as_ref().map(|path| ("ca_path".to_owned(), path.to_string_lossy().into())));
    if !onboarding.ca_pins.is_empty() {
        map.insert("ca_pins".to_owned(), json!(onboarding.ca_pins));
    }
    map.insert("join_method".to_owned(), onboarding.join_method.as_str().into());
    if onboarding.method_config.as_object().is_some_and(|config| !config.is_empty()) {
        map.insert(method_key(&onboarding.join_method).to_owned(), onboarding.method_config.clone());
    }
    Value::Object(map)
}

fn output(output: &OutputConfig) -> Value {
    let mut map = Map::new();
    map.insert("type".to_owned(), output.kind.as_str().into());
    if output.places.has("name") {
        map.insert("name".to_owned(), output.name.as_str().into());
    }
    map.insert("destination".to_owned(), destination(&output.destination));
    common(&mut map, &output.roles, output.ttl, output.renewal_interval);
    map.extend(output.options.iter().map(|(key, value)| (key.clone(), value.clone())));
    map.extend(output.on_change.as_ref().map(|hook| ("on_change".to_owned(), on_change(hook))));
    Value::Object(map)
}

fn tunnel(tunnel: &TunnelConfig) -> Value {
    let mut map = Map::new();
    map.insert("type".to_owned(), tunnel.kind.service_type().into());
    if tunnel.places.has("name") {
        map.insert("name".to_owned(), tunnel.name.as_str().into());
    }
    map.insert("listen".to_owned(), tunnel.listen.uri().into());
    common(&mut map, &tunnel.roles, tunnel.ttl, tunnel.renewal_interval);
    let own = match &tunnel.kind {
        TunnelKind::Application { app_name } => vec![("app_name", app_name)],
        TunnelKind::Database { service, username, database } => {
            vec![("service", service), ("username", username), ("database", database)]
        }
    };
    map.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value.as_str().into())));
    Value::Object(map)
}

fn common(
    map: &mut Map<String, Value>,
    roles: &[String],
    ttl: Option<std::time::Duration>,
    interval: Option<std::time::Duration>,
) {
    if !roles.is_empty() {
        map.insert("roles".to_owned(), json!(roles));
    }
    map.extend(ttl.map(|ttl| ("credential_ttl".to_owned(), format_duration(ttl).into())));
    map.extend(interval.map(|interval| ("renewal_interval".to_owned(), format_duration(interval).into())));
}

fn on_change(hook: &OnChange) -> Value {
    let mut map = match &hook.action {
        Action::Command(arguments) => json!({ "command": arguments }),
        Action::Signal { pid_file, signal } => {
            json!({"signal": {"pid_file": pid_file.to_string_lossy(), "signal": signal.name()}})
        }
        Action::SystemdReload(unit) => json!({ "systemd_reload": unit }),
    };
    map["timeout"] = format_duration(hook.timeout).into();
    map
}

fn plugin(plugin: &PluginConfig) -> Value {
    let kind = match plugin.kind {
        PluginKind::Join => "join",
        PluginKind::Output => "output",
        PluginKind::Format => "format",
    };
    let mut map = json!({"name": plugin.name, "kind": kind});
    if let Some(path) = &plugin.path {
        map["path"] = path.to_string_lossy().into();
    }
    if let Some(digest) = &plugin.digest {
        map["digest"] = digest.as_str().into();
    }
    if plugin.grants.as_object().is_some_and(|grants| !grants.is_empty()) {
        map["grants"] = plugin.grants.clone();
    }
    map
}
