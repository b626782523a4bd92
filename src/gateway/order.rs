//! What a gateway's process is told, once, through its standard input: the one place where a
//! credential is handed on, and never by an argument, the environment or the disk.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::way_out::EgressOrder;
use crate::provider::{Credential, Route, Wire};
use crate::reach::Reach;
use crate::secret::Secret;

/// Longest order, in bytes. A route has a few hundred; what else a run has to say is small too.
pub(super) const MAX_ORDER_BYTES: u64 = 1 << 20;

/// What one gateway is to do. What is added later has a default, so that a gateway that is of another
/// version than the server understands it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayOrder {
    /// Whose it is: collection, task and id.
    pub run: String,
    /// Where requests go, and as whom.
    #[serde(with = "RouteText")]
    pub route: Route,
    /// What the sandbox must show.
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    pub token: Secret,
    /// Which addresses may be asked.
    #[serde(with = "ReachText")]
    pub reach: Reach,
    /// The file with a line for each request.
    pub ledger: PathBuf,
    /// The number of the run's last request so far.
    pub last_seq: u64,
    /// What the proxy is to do, where that is the sandbox's way out.
    #[serde(default)]
    pub egress: Option<EgressOrder>,
    /// When it ends, whatever happens.
    pub deadline: Timestamp,
    /// What is logged, in `tracing`'s filter syntax, where somebody said so.
    #[serde(default)]
    pub log_filter: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Route")]
struct RouteText {
    upstream: String,
    control: Option<String>,
    #[serde(with = "CredentialText")]
    credential: Credential,
    #[serde(with = "WireText")]
    wire: Wire,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Credential", rename_all = "snake_case")]
enum CredentialText {
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    ApiKey(Secret),
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    Bearer(Secret),
    None,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Wire", rename_all = "snake_case")]
enum WireText {
    Messages,
    Bedrock,
    Vertex,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Reach", rename_all = "snake_case")]
enum ReachText {
    Public,
    Private,
}

pub(super) fn exposed<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

pub(super) fn hidden<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressSettings, Policy, Scope};

    #[test]
    fn an_order_arrives_as_it_was_given_and_shows_no_secret() {
        let order = GatewayOrder {
            run: "team/story/0123abcd".to_owned(),
            route: Route {
                upstream: "https://api.example.org".to_owned(),
                control: None,
                credential: Credential::ApiKey(Secret::new("sk-ant-made-up-key".to_owned())),
                wire: Wire::Bedrock,
            },
            token: Secret::new("sk-ant-made-up-token".to_owned()),
            reach: Reach::Public,
            ledger: PathBuf::from("/made/up/gateway.jsonl"),
            last_seq: 7,
            egress: Some(EgressOrder {
                policy: Policy::new(Scope::Public, &EgressSettings::default()),
                resolver: "mirror.example=10.1.2.3".parse().unwrap(),
                ledger: PathBuf::from("/made/up/egress.jsonl"),
                last_seq: 3,
                masked: vec![Secret::new("made-up-secret".to_owned())],
            }),
            deadline: Timestamp::UNIX_EPOCH,
            log_filter: None,
        };
        let text = serde_json::to_string(&order).unwrap();
        let read: GatewayOrder = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.route.credential.secret().unwrap().expose(), "sk-ant-made-up-key");
        assert_eq!(read.egress.as_ref().unwrap().policy, order.egress.as_ref().unwrap().policy);
        let shown = format!("{order:?}");
        assert!(!shown.contains("made-up-key") && !shown.contains("made-up-secret"));
        // What an older server does not know of has its default.
        let mut older: serde_json::Value = serde_json::from_str(&text).unwrap();
        older.as_object_mut().unwrap().remove("log_filter");
        older.as_object_mut().unwrap().remove("egress");
        assert!(serde_json::from_value::<GatewayOrder>(older).is_ok());
    }
}
