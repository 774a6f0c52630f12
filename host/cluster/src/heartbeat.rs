//! What a bot says of itself from time to time, since version 16 (wire §f.5).

use identity::{Health, Heartbeat, Timestamp};

use crate::version::client_version;
use crate::wire::teleport::machineid::v1::{
    BotInstanceHealthStatus, BotInstanceServiceHealth, BotInstanceServiceIdentifier, BotInstanceStatusHeartbeat,
    BotKind, SubmitHeartbeatRequest,
};

/// Clusters keep so much of a name, in bytes (wire §p).
const NAME: usize = 64;
/// Clusters refuse a longer reason, in bytes (wire §p).
const REASON: usize = 256;

/// The message for a cluster of `version`.
pub(crate) fn request(heartbeat: &Heartbeat, now: Timestamp, version: &str) -> SubmitHeartbeatRequest {
    let stamp = |at: Timestamp| Some(prost_types::Timestamp { seconds: at.0, nanos: 0 });
    let service_health = heartbeat.services.iter().map(|service| BotInstanceServiceHealth {
        service: Some(BotInstanceServiceIdentifier {
            r#type: service.kind.clone(),
            name: cut(&service.name, NAME).to_owned(),
        }),
        status: match service.health {
            Health::Initializing => BotInstanceHealthStatus::Initializing,
            Health::Healthy => BotInstanceHealthStatus::Healthy,
            Health::Unhealthy(_) => BotInstanceHealthStatus::Unhealthy,
        }
        .into(),
        reason: match &service.health {
            Health::Unhealthy(reason) => Some(cut(reason, REASON).to_owned()),
            _ => None,
        },
        updated_at: stamp(service.since),
    });
    SubmitHeartbeatRequest {
        heartbeat: Some(BotInstanceStatusHeartbeat {
            recorded_at: stamp(now),
            is_startup: heartbeat.is_startup,
            version: client_version(version),
            hostname: heartbeat.hostname.clone(),
            uptime: prost_types::Duration::try_from(heartbeat.uptime).ok(),
            join_method: heartbeat.join_method.clone(),
            one_shot: heartbeat.one_shot,
            // As Go names them.
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            os: std::env::consts::OS.to_owned(),
            kind: BotKind::Tbot.into(),
        }),
        service_health: service_health.collect(),
    }
}

/// The start of `text`, at most `limit` bytes, in whole characters.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_whole_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
