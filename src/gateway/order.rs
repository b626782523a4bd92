//! What a gateway's process is told, once, through its standard input: the one place where a
//! credential is handed on, and never by an argument, the environment or the disk.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::way_out::EgressOrder;
use crate::guard::Guardrails;
use crate::provider::{AwsKeys, Credential, Route, VertexPlace, Wire};
use crate::reach::Reach;
use crate::run::{Allowance, ProviderTools};
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
    /// What its prompts must not hold.
    #[serde(default)]
    pub guard: Guardrails,
    /// The run's own secrets: nothing of them goes into the ledger, and prompts can be kept free of
    /// them.
    #[serde(default, serialize_with = "all_exposed", deserialize_with = "all_hidden")]
    pub secrets: Vec<Secret>,
    /// Which addresses may be asked.
    #[serde(with = "ReachText")]
    pub reach: Reach,
    /// What the model service may do itself, on a network of its own.
    #[serde(default)]
    pub provider_tools: ProviderTools,
    /// What the run's requests may take; without it they are not counted.
    #[serde(default)]
    pub purse: Option<PurseOrder>,
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

/// What a run's requests may take. Limits that are added later have defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurseOrder {
    /// The file of what is spent.
    pub file: PathBuf,
    /// Whose day and month it is.
    pub collection: String,
    /// The limits.
    #[serde(default)]
    pub allowance: Allowance,
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
    #[serde(default)]
    vertex: Option<VertexPlace>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Credential", rename_all = "snake_case")]
enum CredentialText {
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    ApiKey(Secret),
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    Bearer(Secret),
    Aws(#[serde(with = "AwsKeysText")] AwsKeys),
    ServiceAccount {
        #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
        key_file: Secret,
        token_uri: String,
    },
    None,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AwsKeys")]
struct AwsKeysText {
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    id: Secret,
    #[serde(serialize_with = "exposed", deserialize_with = "hidden")]
    secret: Secret,
    #[serde(serialize_with = "exposed_or_none", deserialize_with = "hidden_or_none")]
    session: Option<Secret>,
    region: String,
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

fn exposed<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

fn exposed_or_none<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(to)
}

fn hidden_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

fn hidden<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

fn all_exposed<S: Serializer>(secrets: &[Secret], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(secrets.iter().map(Secret::expose))
}

fn all_hidden<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Secret>, D::Error> {
    let secrets = Vec::<String>::deserialize(from)?;
    Ok(secrets.into_iter().map(Secret::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressSettings, Policy, Scope};
    use crate::guard::GuardAction;

    #[test]
    fn an_order_arrives_as_it_was_given_and_shows_no_secret() {
        let order = GatewayOrder {
            run: "team/story/0123abcd".to_owned(),
            route: Route {
                upstream: "https://api.example.org".to_owned(),
                control: None,
                credential: Credential::ApiKey(Secret::new("sk-ant-made-up-key".to_owned())),
                wire: Wire::Vertex,
                vertex: Some(VertexPlace {
                    project: "made-up".to_owned(),
                    location: "global".to_owned(),
                }),
            },
            token: Secret::new("sk-ant-made-up-token".to_owned()),
            guard: Guardrails { pii: GuardAction::Mask, ..Guardrails::default() },
            secrets: vec![Secret::new("made-up-and-known".to_owned())],
            reach: Reach::Public,
            provider_tools: [].into(),
            purse: Some(PurseOrder {
                file: PathBuf::from("/made/up/spend.db"),
                collection: "team".to_owned(),
                allowance: Allowance::default(),
            }),
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
        assert_eq!(read.route.vertex, order.route.vertex);
        assert_eq!(read.route.credential.secret().unwrap().expose(), "sk-ant-made-up-key");
        assert_eq!(read.egress.as_ref().unwrap().policy, order.egress.as_ref().unwrap().policy);
        let shown = format!("{order:?}");
        for secret in ["made-up-key", "known", "made-up-secret"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        // What an older server does not know of has its default.
        let mut older: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in ["log_filter", "guard", "secrets", "egress"] {
            older.as_object_mut().unwrap().remove(name);
        }
        assert!(serde_json::from_value::<GatewayOrder>(older).is_ok());
    }
}
