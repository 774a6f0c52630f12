//! The destinations of the first schema (surface §B.2), read once for its two meanings: what Teleport 12 wrote (here), and what
//! `tbot migrate` makes of it (`migrate`).

use serde_json::{Map, Value, json};

use crate::OutputConfig;
use crate::destination::DestinationConfig;
use crate::mistake::{Mistake, Place, Report};
use crate::places::Places;
use crate::section::{Field, Section, Unknown, key_name, one_of};

/// The names of templates.
pub(crate) const TEMPLATES: [&str; 8] =
    ["ssh_client", "identity", "tls_cas", "kubernetes", "tls", "mongo", "cockroach", "ssh_host_cert"];

/// An entry of `destinations`.
pub(crate) struct Destination<'n> {
    pub(crate) places: Places,
    /// A directory or memory; where it is neither or both, what is wrong.
    pub(crate) backend: Backend,
    pub(crate) roles: Vec<String>,
    pub(crate) app: Option<String>,
    pub(crate) kubernetes_cluster: Option<String>,
    pub(crate) database: Option<Database>,
    pub(crate) cluster: Option<String>,
    pub(crate) templates: Vec<Template<'n>>,
}

/// A directory or memory, or what is wrong: nothing where that has been reported.
pub(crate) type Backend = Result<DestinationConfig, Option<Mistake>>;

/// What `database` says.
pub(crate) struct Database {
    pub(crate) place: Place,
    pub(crate) service: String,
    pub(crate) username: String,
    pub(crate) database: String,
}

/// An entry of `configs`.
pub(crate) struct Template<'n> {
    pub(crate) place: Place,
    /// One of [`TEMPLATES`], or what is wrong with the entry.
    pub(crate) name: Result<&'static str, &'static str>,
    /// Its options.
    pub(crate) options: Vec<(String, Field<'n>)>,
}

/// Reads `storage`; nothing in it means the default. A key that is none could be a misspelt place, or one of the second schema.
pub(crate) fn storage(mut section: Section, report: &mut Report) -> Option<DestinationConfig> {
    if section.fields().all(|(key, field)| ["directory", "memory"].contains(&key) && field.is_null()) {
        return None;
    }
    let backend = backend(&mut section, report);
    section.close(Unknown::Warning, "", report);
    backend.map_err(|mistake| report.mistakes.extend(mistake)).ok()
}

impl<'n> Destination<'n> {
    /// Reads an entry. What only one of the two meanings minds is left to it.
    pub(crate) fn read(field: &Field<'n>, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let places = Places::of(&section);
        let backend = backend(&mut section, report);
        let roles = section.field("roles").map(|field| field.texts(report)).unwrap_or_default();
        let mut text =
            |key| section.field(key).and_then(|field| field.text(report)).filter(|text: &String| !text.is_empty());
        let (app, kubernetes_cluster, cluster) = (text("app"), text("kubernetes_cluster"), text("cluster"));
        let database = section.field("database").and_then(|field| Database::read(&field, report));
        let templates = section.field("configs").map(|field| field.list(report)).unwrap_or_default();
        let templates = templates.iter().filter_map(|entry| Template::read(entry, report)).collect();
        if let Some(field) = section.field("kinds") {
            report.warning(&field.place, "`kinds` is deprecated and ignored: remove it");
        }
        section.close(Unknown::Warning, "", report);
        let roles = roles.into_iter().map(|(_, role)| role).collect();
        Some(Self { places, backend, roles, app, kubernetes_cluster, database, cluster, templates })
    }

    /// The outputs that write what Teleport 12 wrote for this destination: the user's files, and beside them a host's where
    /// `ssh_host_cert` wants them.
    pub(crate) fn outputs(self, report: &mut Report) -> Vec<OutputConfig> {
        let mut places = self.places;
        let special = [
            ("app", self.app.is_some()),
            ("database", self.database.is_some()),
            ("kubernetes_cluster", self.kubernetes_cluster.is_some()),
        ];
        let special: Vec<&str> = special.into_iter().filter_map(|(key, given)| given.then_some(key)).collect();
        if let [_, second, ..] = special[..] {
            let message =
                "a destination can make at most one special certificate request: make a destination of its own of each";
            report.mistakes.push(places.mistake(second, message));
            return Vec::new();
        }
        if self.cluster.is_some() && !special.is_empty() {
            let message = "the cluster option can only be used with ssh certificates: it is ignored, remove it";
            report.warnings.push(places.mistake("cluster", message));
        }
        let mut options = Map::new();
        let kind = if let Some(app) = self.app {
            places.alias("app_name", places.at("app"));
            options.insert("app_name".to_owned(), app.into());
            "application"
        } else if let Some(database) = self.database {
            for (key, value) in
                [("service", database.service), ("database", database.database), ("username", database.username)]
            {
                places.alias(key, database.place.clone());
                if !value.is_empty() {
                    options.insert(key.to_owned(), value.into());
                }
            }
            "database"
        } else if self.kubernetes_cluster.is_some() {
            let message = "`kubernetes_cluster` is not supported yet: remove this destination";
            report.mistakes.push(places.mistake("kubernetes_cluster", message));
            return Vec::new();
        } else {
            options.extend(self.cluster.map(|cluster| ("cluster".to_owned(), cluster.into())));
            "identity"
        };
        places.alias("format", places.at("configs"));
        files(&self.templates, kind, &mut options, report);
        let destination = match self.backend {
            Ok(destination) => destination,
            Err(mistake) => {
                report.mistakes.extend(mistake);
                return Vec::new();
            }
        };
        let hosts = self.templates.iter().filter(|template| template.name == Ok("ssh_host_cert"));
        let hosts = hosts.map(|template| ("ssh_host", template.host(report)));
        let output = |(kind, options)| OutputConfig {
            options,
            places: places.clone(),
            roles: self.roles.clone(),
            ..OutputConfig::of_flag("", kind, destination.clone())
        };
        [(kind, options)].into_iter().chain(hosts).map(output).collect()
    }
}

impl Database {
    fn read(field: &Field, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let mut text = |key| section.field(key).and_then(|field| field.text(report)).unwrap_or_default();
        let (service, username, database) = (text("service"), text("username"), text("database"));
        section.close(Unknown::Warning, "", report);
        Some(Self { place: field.place.clone(), service, username, database })
    }
}

impl<'n> Template<'n> {
    fn read(field: &Field<'n>, report: &mut Report) -> Option<Self> {
        let place = field.place.clone();
        let name = |name: &str, report: &mut Report| {
            let known = TEMPLATES.into_iter().find(|known| *known == name);
            if known.is_none() {
                let remedy = one_of(name, &TEMPLATES);
                report.mistake(&place, format!("unrecognized config template \"{}\": {remedy}", key_name(name)));
            }
            known
        };
        if !field.is_map() {
            let name = name(&field.text(report)?, report)?;
            return Some(Self { place, name: Ok(name), options: Vec::new() });
        }
        let section = field.section(report)?;
        let given = section.fields().filter(|(_, field)| !field.is_null());
        let entries: Vec<_> = given.map(|(key, field)| (name(key, report), field)).collect();
        let (found, options) = match &entries[..] {
            [] => (Err("config template must not be empty"), None),
            [(found, field)] => (Ok((*found)?), field.section(report)),
            _ => (Err("config template must have exactly one configuration"), None),
        };
        let options = options.map(|section| section.fields().map(|(key, field)| (key.to_owned(), field)).collect());
        Some(Self { place, name: found, options: options.unwrap_or_default() })
    }

    pub(crate) fn option(&self, key: &str) -> Option<&Field<'n>> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, field)| field)
    }

    /// The options of the output that `ssh_host_cert` means.
    fn host(&self, report: &mut Report) -> Map<String, Value> {
        self.close(&["principals", "prefix"], report);
        self.options.iter().map(|(key, field)| (key.clone(), field.json())).collect()
    }

    /// Warns of the options that it does not have.
    fn close(&self, known: &[&str], report: &mut Report) {
        for (key, field) in self.options.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let message = format!("unknown key `{}`: remove it (it is ignored)", key_name(key));
            report.warning(&field.place, message);
        }
    }
}

/// `directory`, a path or a map, or `memory`: exactly one of them.
pub(crate) fn backend(section: &mut Section, report: &mut Report) -> Backend {
    let place = section.place.clone();
    let (directory, memory) = (section.field("directory"), section.field("memory"));
    if let Some(memory) = &memory
        && !memory.is_map()
        && memory.boolean(report) == Some(false)
    {
        report.mistake(&memory.place, "memory must not be false (leave unset to disable): remove it");
    }
    match (directory, memory) {
        (Some(directory), None) => {
            let read = if directory.is_map() {
                directory.section(report).and_then(|mut section| {
                    let read = DestinationConfig::read_directory(&mut section, report);
                    section.close(Unknown::Warning, "", report);
                    read
                })
            } else {
                directory.text(report).map(DestinationConfig::directory)
            };
            match read {
                Some(DestinationConfig::Directory { path, .. }) if path.as_os_str().is_empty() => {
                    report.mistake(&directory.place, "destination path must not be empty: write a path");
                    Err(None)
                }
                read => read.ok_or(None),
            }
        }
        (None, Some(_)) => Ok(DestinationConfig::Memory),
        (None, None) => {
            let message = "at least one of `memory' and 'directory' must be specified: add `directory: /some/path`";
            Err(Some(place.mistake(message)))
        }
        (Some(_), Some(memory)) => {
            let message = "both 'memory' and 'directory' cannot be specified: remove one of the two";
            Err(Some(memory.place.mistake(message)))
        }
    }
}

/// What the templates write, as options that every output plugin has.
fn files(templates: &[Template], kind: &str, options: &mut Map<String, Value>, report: &mut Report) {
    let mut formats = Vec::new();
    for template in templates {
        let name = match template.name {
            Ok(name) => name,
            Err(wrong) => {
                report.mistake(&template.place, format!("{wrong}: write its name"));
                continue;
            }
        };
        let mut renamed = |from: &str, to: &str| {
            options.extend(template.option(from).map(|field| (to.to_owned(), field.json())));
        };
        match name {
            "identity" => {
                renamed("file_name", "identity_file");
                template.close(&["file_name"], report);
            }
            "tls_cas" => {
                let keys = ["host_ca_path", "user_ca_path", "database_ca_path"];
                keys.into_iter().for_each(|key| renamed(key, key));
                template.close(&keys, report);
            }
            "ssh_client" => {
                if let Some(field) = template.option("proxy_port") {
                    report.warning(&field.place, "`proxy_port` is deprecated and ignored: remove it");
                }
                template.close(&["proxy_port"], report);
            }
            // An output of its own.
            "ssh_host_cert" => {}
            "kubernetes" => {
                report.warning(&template.place, "`kubernetes` without `kubernetes_cluster` writes nothing: remove it")
            }
            format => {
                let known: &[&str] = match format {
                    "tls" => &["prefix", "ca_cert_type"],
                    "mongo" => &["prefix"],
                    _ => &["dir_name"],
                };
                template.close(known, report);
                let mut entry = Map::from_iter([("name".to_owned(), json!(format))]);
                let given = template.options.iter().filter(|(key, _)| known.contains(&key.as_str()));
                entry.extend(given.map(|(key, field)| (key.clone(), field.json())));
                formats.push(if entry.len() == 1 { json!(format) } else { Value::Object(entry) });
            }
        }
    }
    // Teleport 12 wrote `known_hosts` and `ssh_config` everywhere; here only an `identity` output does on its own.
    if kind == "identity" {
        options.insert("ssh_config".to_owned(), "v12".into());
    } else {
        formats.push(json!("ssh-client"));
    }
    if !formats.is_empty() {
        options.insert("format".to_owned(), Value::Array(formats));
    }
}
