//! `runbookd demo`: the real agent CLI in a real sandbox, on a model that answers from a script.

use std::collections::BTreeMap;

use super::args::DemoArguments;
use super::exit::ExitCode;
use super::{complain, run};
use crate::config::Settings;
use crate::plan::{Overrides, RunRequest};
use crate::run::{Network, Slug};

/// The runbook of the demo.
const RUNBOOK: &str = include_str!("../../runbooks/demo.md");

/// What its model answers.
const SCRIPT: &str = include_str!("../../runbooks/demo.script.yaml");

/// Runs the demo.
pub(super) async fn demo(arguments: &DemoArguments, settings: &Settings) -> ExitCode {
    let (Ok(collection), Ok(task)) = (Slug::new("local"), Slug::new("demo")) else {
        complain("the demo's names are broken; please report it");
        return ExitCode::RunFailed;
    };
    let request = RunRequest {
        runbook: RUNBOOK.as_bytes().to_vec(),
        collection,
        task,
        variables: BTreeMap::new(),
        init_params: serde_json::Map::new(),
        assets: Vec::new(),
        script: Some(SCRIPT.to_owned()),
        former: None,
        ceilings: settings.allowance,
        overrides: Overrides {
            image: arguments.common.image.clone(),
            snapshot: arguments.common.snapshot.clone(),
            // Its model is a socket in the sandbox; there is nothing else to reach.
            network: Some(Network::None),
            ..Overrides::default()
        },
    };
    run::start(&request, &arguments.common, None, settings).await
}
