//! A plan for a test: a short runbook with this front matter, and what stands around it.

use uuid::Uuid;

use super::{Draw, Overrides, Planned, RunRequest, Setting, plan};
use crate::run::{Allowance, ImageRules, Networks, RunId, Slug};
use crate::secret::Secret;
use crate::snapshot::Snapshots;

/// What is planned.
pub(super) struct Rehearsal<'a> {
    pub(super) front_matter: &'a str,
    pub(super) overrides: Overrides,
    /// The environment.
    pub(super) keys: &'a [(&'a str, &'a str)],
    /// Whether the model is scripted.
    pub(super) is_scripted: bool,
    pub(super) ceilings: Allowance,
    pub(super) networks: Networks,
    pub(super) images: ImageRules,
}

impl<'a> Rehearsal<'a> {
    /// A run on the scripted model, to which everything is allowed.
    pub(super) fn of(front_matter: &'a str, overrides: Overrides) -> Self {
        Self {
            front_matter,
            overrides,
            keys: &[],
            is_scripted: true,
            ceilings: Allowance::default(),
            networks: Networks::all(),
            images: ImageRules::all(),
        }
    }

    pub(super) fn planned(self) -> Planned {
        let request = RunRequest {
            runbook: format!("---\n{}\n---\n# T\n", self.front_matter).into_bytes(),
            collection: Slug::new("c").unwrap(),
            task: Slug::new("t").unwrap(),
            variables: [].into(),
            init_params: serde_json::Map::new(),
            assets: vec![],
            script: self.is_scripted.then(|| "turns: [{ text: Done. }]".to_owned()),
            former: None,
            ceilings: self.ceilings,
            overrides: self.overrides,
        };
        let key = |&(name, value): &(&str, &str)| (name.to_owned(), Secret::new(value.to_owned()));
        let keyring = self.keys.iter().map(key).collect();
        let draw = Draw { run_id: RunId::from_uuid(Uuid::nil()), session_id: Uuid::nil() };
        let setting = Setting {
            snapshots: &Snapshots::built_in(),
            networks: &self.networks,
            images: &self.images,
        };
        plan(&request, &keyring, setting, draw)
    }
}
