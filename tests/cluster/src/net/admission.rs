//! The log and the faults of connections that are no requests: tunnels, databases, applications by TCP.

use std::sync::Arc;

use crate::{
    api::{grpc::locked, refusal::Refusal},
    faults::{Fault, Request},
    state::State,
};

/// Records a connection under the name of its protocol and applies faults. A connection has no answer:
/// [`Fault::LoseAnswer`] and [`Fault::Hostile`] cut it.
pub(crate) async fn admit(state: &Arc<State>, method: &str, user: &str) -> Result<(), Refusal> {
    let (method, peer) = (method.to_owned(), user.to_owned());
    state.faults.record(Request { method: method.clone(), peer, port: "proxy", version: None });
    for fault in state.faults.take(&method) {
        match fault {
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::Unavailable => {
                return Err(Refusal::ConnectionProblem(format!("the stand-in lets `{method}` fail")));
            }
            Fault::Cut | Fault::LoseAnswer | Fault::Hostile(_) => return Err(Refusal::Cut),
        }
    }
    Ok(())
}

/// The same for a session of a user, whom locks concern; a tunnel is opened for anybody and leaves it to auth.
pub(crate) async fn admit_user(state: &Arc<State>, method: &str, user: &str) -> Result<(), Refusal> {
    admit(state, method, user).await?;
    match state.faults.lock_on(user) {
        Some(message) => Err(locked(user, &message)),
        None => Ok(()),
    }
}
