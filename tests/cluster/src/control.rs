//! The handle that changes a running stand-in.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};

use crate::{
    AuthorityKind, RotationPhase,
    api::{bot_instances::Heartbeat, resources, watch::Change},
    faults::{Fault, Request},
    net::{database::DatabaseFiles, listener},
    pki::authority::Authority,
    state::{App, Database, State, Token},
};

/// Adds resources, sets faults and reads the log. Clones share one cluster.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<State>);

impl Control {
    /// Adds or replaces a join token, and with it the bot it admits.
    pub fn add_token(&self, token: Token) {
        let mut registry = self.0.registry();
        registry.roles.extend(token.roles.iter().cloned());
        registry.tokens.insert(token.name.clone(), token);
    }

    /// A token used once: its name, the bot's name without `bot-`, and the roles it may impersonate.
    pub fn add_bot_token(&self, name: &str, bot: &str, roles: &[&str]) {
        self.add_token(Token {
            name: name.to_owned(),
            bot: bot.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            uses_once: true,
            ..Token::default()
        });
    }

    /// Lets a token run out at a time. Unknown names are ignored.
    pub fn expire_token(&self, name: &str, at: SystemTime) {
        if let Some(token) = self.0.registry().tokens.get_mut(name) {
            token.expires = Some(at);
        }
    }

    /// Whether a token is still there: one that is used once goes with its first use.
    #[must_use]
    pub fn has_token(&self, name: &str) -> bool {
        self.0.registry().tokens.contains_key(name)
    }

    /// Adds or replaces an application: `public_address` without a port, `uri` as `http://host:port` or `tcp://host:port`.
    pub fn add_app(&self, name: &str, public_address: &str, uri: &str) {
        let app = App { public_address: public_address.to_owned(), uri: uri.to_owned() };
        self.0.registry().apps.insert(name.to_owned(), app);
    }

    /// Removes an application; its sessions lead nowhere from then on.
    pub fn remove_app(&self, name: &str) {
        self.0.registry().apps.remove(name);
    }

    /// Adds or replaces a host that is reached by SSH through the proxy: its name, and `host:port` of its server.
    pub fn add_host(&self, name: &str, address: &str) {
        self.0.registry().hosts.insert(name.to_owned(), address.to_owned());
    }

    /// Adds or replaces a database: its protocol as in a resource (`postgres`), and `host:port` of a server that speaks
    /// TLS with a certificate of [`Self::sign_database`].
    pub fn add_database(&self, name: &str, protocol: &str, uri: &str) {
        let database = Database { discovered: None, protocol: protocol.to_owned(), uri: uri.to_owned() };
        self.0.registry().databases.insert(name.to_owned(), database);
    }

    /// The same for one that was discovered under a name of its own, which may not be the only one (wire §f.8).
    pub fn add_discovered_database(&self, name: &str, discovered: &str, protocol: &str, uri: &str) {
        self.add_database(name, protocol, uri);
        if let Some(database) = self.0.registry().databases.get_mut(name) {
            database.discovered = Some(discovered.to_owned());
        }
    }

    /// Adds a leaf cluster: certificates may be routed to it, and its host authority is listed.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn add_leaf(&self, name: &str) -> Result<()> {
        let authority = Authority::new(AuthorityKind::Host, name, self.0.options.release)?;
        self.0.registry().leaves.insert(name.to_owned(), authority);
        Ok(())
    }

    /// Adds so many leaf clusters at once, `leaf-0` and on. They share one authority, which makes them cheap.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn add_leaves(&self, count: usize) -> Result<()> {
        let one = Authority::new(AuthorityKind::Host, "leaf", self.0.options.release)?;
        let leaves = (0..count).map(|number| (format!("leaf-{number}"), one.clone()));
        self.0.registry().leaves.extend(leaves);
        Ok(())
    }

    /// A certificate for a database server on this machine, and whom it is to let in.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn sign_database(&self) -> Result<DatabaseFiles> {
        DatabaseFiles::new(&self.0)
    }

    /// Changes the roles a bot may impersonate, from the next request on. Unknown bots are ignored.
    pub fn set_roles(&self, bot: &str, roles: &[&str]) {
        let mut registry = self.0.registry();
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        registry.roles.extend(roles.iter().cloned());
        if let Some(bot) = registry.bots.get_mut(&format!("bot-{bot}")) {
            bot.roles = roles;
        }
    }

    /// Lets a method fail `times` times, or for ever with `None`. A method is named in full
    /// (`/proto.AuthService/Ping`, `POST /v2/tokens/register`) or by its last part (`Ping`, `register`). Connections that
    /// are no requests have methods too: `teleport-auth`, `teleport-transport-dial`, `teleport-tcp`, `teleport-postgres` and
    /// so on; they have no answer to lose, so that fault cuts them.
    pub fn fault(&self, method: &str, fault: Fault, times: Option<u32>) {
        self.0.faults.add(method, fault, times);
    }

    /// Takes all faults of methods back.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// Answers PermissionDenied to certificates routed to this application or database.
    pub fn deny_output(&self, name: &str) {
        self.0.faults.deny_output(name);
    }

    /// Takes [`Self::deny_output`] back.
    pub fn allow_output(&self, name: &str) {
        self.0.faults.allow_output(name);
    }

    /// Locks a user (`bot-NAME`): every authenticated call is refused without a reason, a join with one that holds
    /// `message`.
    pub fn lock_user(&self, user: &str, message: &str) {
        self.0.faults.lock(user, message);
    }

    /// Removes a bot and its user: its certificates are of nobody from then on. Unknown bots are ignored.
    pub fn remove_bot(&self, bot: &str) {
        self.0.registry().bots.remove(&format!("bot-{bot}"));
    }

    /// Takes a lock back.
    pub fn unlock_user(&self, user: &str) {
        self.0.faults.unlock(user);
    }

    /// Changes the generation the cluster has stored for a bot: its next renewal meets a mismatch.
    pub fn set_generation(&self, bot: &str, generation: u64) {
        if let Some(bot) = self.0.registry().bots.get_mut(&format!("bot-{bot}")) {
            bot.generation = generation;
        }
    }

    /// The generation stored for a bot; 0 for one that never joined.
    #[must_use]
    pub fn generation(&self, bot: &str) -> u64 {
        self.0.registry().bots.get(&format!("bot-{bot}")).map_or(0, |bot| bot.generation)
    }

    /// No certificate issued from now on lives longer than this.
    pub fn cap_ttl(&self, longest: Duration) {
        self.0.registry().ttl_cap = longest;
    }

    /// Moves an authority to a phase of a rotation and tells the watches (wire §f.9).
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn rotate(&self, kind: AuthorityKind, phase: RotationPhase) -> Result<()> {
        let options = &self.0.options;
        let changed = {
            let mut authorities = self.0.authorities();
            let authority = authorities
                .iter_mut()
                .find(|authority| authority.kind == kind)
                .with_context(|| format!("this release has no authority `{}`", kind.name()))?;
            authority.rotate(phase, &options.cluster_name, options.release)?;
            resources::authority(authority, &options.cluster_name)
        };
        self.0.renew_tls()?;
        // Without a watch there is nobody to tell.
        let _ = self.0.changes.send(Arc::new(Change::Authority(changed)));
        Ok(())
    }

    /// Cuts every open connection; new ones are accepted.
    pub fn drop_connections(&self) {
        listener::cut(&self.0);
    }

    /// An outage: closes both ports and cuts every connection.
    pub fn stop_listening(&self) {
        listener::close(&self.0);
    }

    /// Ends an outage, on the same ports.
    ///
    /// # Errors
    /// When somebody else has taken a port.
    pub async fn start_listening(&self) -> Result<()> {
        listener::open(&self.0).await
    }

    /// How many requests of a method arrived, named as in [`Self::fault`].
    #[must_use]
    pub fn calls(&self, method: &str) -> usize {
        self.0.faults.calls(method)
    }

    /// Every heartbeat so far, in order of arrival.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        self.0.registry().heartbeats.clone()
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn log(&self) -> Vec<Request> {
        self.0.faults.log()
    }
}
