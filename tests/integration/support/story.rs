//! One run of the product: what it is given, and who stands by while it goes on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use runbookd::egress::EgressSettings;
use runbookd::gateway::Program;
use runbookd::guard::Guardrails;
use runbookd::plan::{Draw, Overrides, RunRequest, Setting, plan};
use runbookd::run::{
    Former, ImageRules, Limits, Network, Networks, RunId, RunPlan, Slug, StallCeilings,
};
use runbookd::secret::{Keyring, Secret};
use runbookd::snapshot::Snapshots;
use runbookd::spend::Spend;
use runbookd::store::Store;
use runbookd::toolchain::{Toolchain, ToolchainSettings};
use runbookd::trajectory::StepUpdate;
use runbookd::worker::{AgentSource, Claims, Parts, RunUpdate, SharedDisk, Stop, execute};
use uuid::Uuid;

use super::scene::{Scene, Tokens};
use super::stage::{Stage, gateway, processes_with, until};

/// What a run is given. The agent is the real CLI unless the story brings its own.
pub(crate) struct Story {
    pub(crate) runbook: String,
    /// What the model answers.
    pub(crate) script: String,
    /// What the request decides instead of the runbook.
    pub(crate) overrides: Overrides,
    /// Values of template variables.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
    /// Files for `/app/assets`: name and contents.
    pub(crate) assets: Vec<(&'static str, &'static str)>,
    /// The run whose conversation this one goes on with.
    pub(crate) former: Option<Former>,
    /// A provider that answers elsewhere, instead of the scripted one in this process.
    pub(crate) provider: Option<&'static str>,
    /// The environment of the product.
    pub(crate) keys: Vec<(&'static str, &'static str)>,
    /// A script that stands for the agent CLI.
    pub(crate) fake_agent: Option<String>,
    /// Which of the tokens that were sent the record must have.
    pub(crate) tokens: Tokens,
    /// Is told the news before they are kept.
    pub(crate) on_update: fn(&RunUpdate),
    /// Whether others run on the stage meanwhile, so that it is not bare after this one.
    pub(crate) shares_stage: bool,
    /// What can be built to start from.
    pub(crate) snapshots: Snapshots,
    /// What is spent, where several runs share it.
    pub(crate) spend: Option<PathBuf>,
    /// What the operator says of the way out.
    pub(crate) egress: EgressSettings,
    /// The disk that all sandboxes share.
    pub(crate) disk: SharedDisk,
    /// A program that gateways are started from, instead of the one that is tested.
    pub(crate) gateway: Option<PathBuf>,
    /// Limits that nobody can set from outside.
    pub(crate) limits: fn(&mut Limits),
}

impl Story {
    /// A short runbook and a model that says `script`.
    pub(crate) fn scripted(script: impl Into<String>) -> Self {
        Self {
            runbook: "# A story\n\nDo what the model says.\n".to_owned(),
            script: script.into(),
            overrides: Overrides {
                network: Some(Network::None),
                // Two retries show a retry, and take two seconds.
                model_retries: Some(2),
                ..Overrides::default()
            },
            variables: Vec::new(),
            assets: Vec::new(),
            former: None,
            provider: None,
            keys: Vec::new(),
            fake_agent: None,
            tokens: Tokens::OfWholeReplies,
            on_update: |_| {},
            shares_stage: false,
            snapshots: Snapshots::built_in(),
            spend: None,
            egress: EgressSettings { networks: Networks::all(), ..EgressSettings::default() },
            disk: SharedDisk::unbounded(),
            gateway: None,
            limits: |_| {},
        }
    }

    /// An agent CLI that is this shell script.
    pub(crate) fn fake(script: &str) -> Self {
        let fake_agent = Some(format!("#!/bin/bash\n{script}\n"));
        Self { fake_agent, ..Self::scripted("turns: [{text: nobody asks}]") }
    }

    /// Runs it to its end.
    pub(crate) async fn run(self, stage: &Stage) -> Scene {
        self.run_while(stage, async |_| {}).await
    }

    /// Runs it to its end, and `act` beside it.
    pub(crate) async fn run_while(self, stage: &Stage, act: impl AsyncFnOnce(&Live)) -> Scene {
        let work = tempfile::tempdir().unwrap();
        let live = Live::default();
        let plan = self.plan(work.path());
        let parts = self.parts(stage, work.path()).await;
        let mut watch = |update| {
            (self.on_update)(&update);
            live.updates().push(update);
        };
        let (report, ()) = tokio::join!(execute(&parts, &plan, &live.stop, &mut watch), act(&live));
        let updates = std::mem::take(&mut *live.updates());
        let scene = Scene::new(work, report.unwrap(), updates);
        if !self.shares_stage {
            assert_eq!(stage.engine.leftovers().await.unwrap(), Vec::<String>::new());
            let gateways = processes_with(stage.models().to_str().unwrap());
            assert_eq!(gateways, Vec::<String>::new());
        }
        if self.fake_agent.is_none() && self.provider.is_none() {
            scene.every_token_is_counted(self.tokens);
        }
        scene.the_interchange_document_is_valid();
        scene
    }

    fn plan(&self, work: &Path) -> RunPlan {
        let assets = work.join("given");
        std::fs::create_dir(&assets).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let request = RunRequest {
            runbook: self.runbook.clone().into_bytes(),
            collection: Slug::new("stories").unwrap(),
            task: Slug::new("one").unwrap(),
            variables: self.variables.iter().map(owned).collect(),
            init_params: serde_json::Map::new(),
            assets: (self.assets.iter())
                .map(|(name, text)| asset(&assets, name, text).into())
                .collect(),
            script: self.provider.is_none().then(|| self.script.clone()),
            former: self.former.clone(),
            ceilings: runbookd::run::Allowance::default(),
            overrides: Overrides {
                model_provider: self.provider.map(str::to_owned),
                ..self.overrides.clone()
            },
        };
        let draw = Draw { run_id: RunId::from_uuid(Uuid::new_v4()), session_id: Uuid::new_v4() };
        let (networks, images) = (&self.egress.networks, &ImageRules::all());
        let setting = Setting { snapshots: &self.snapshots, networks, images };
        let mut plan = plan(&request, &self.keyring(), setting, draw).accepted().unwrap();
        (self.limits)(&mut plan.limits);
        plan
    }

    async fn parts(&self, stage: &Stage, work: &Path) -> Parts {
        Parts {
            engine: stage.engine.clone(),
            claims: Claims::open(stage.state.path().join("claims")).unwrap(),
            sockets: stage.models(),
            agents: self.fake_agent.as_ref().map_or_else(pinned, |script| {
                let path = work.join("agent");
                std::fs::write(&path, script).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
                AgentSource::Executable(path)
            }),
            guard: Guardrails::default(),
            images: ImageRules::all(),
            redact_artifacts: false,
            egress: self.egress.clone(),
            gateway: match &self.gateway {
                Some(path) => Program { path: path.clone(), ..gateway() },
                None => gateway(),
            },
            store: Store::open(&work.join("results")).unwrap(),
            snapshots: self.snapshots.clone(),
            spend: {
                let own = work.join(Spend::FILE);
                Spend::open(self.spend.as_deref().unwrap_or(&own)).await.unwrap()
            },
            ceilings: runbookd::run::Allowance::default(),
            keyring: self.keyring(),
            stall: StallCeilings::default(),
            disk: self.disk.clone(),
            clock: jiff::Timestamp::now,
        }
    }

    fn keyring(&self) -> Keyring {
        let key =
            |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new((*value).to_owned()));
        self.keys.iter().map(key).collect()
    }
}

fn asset(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The real CLI.
pub(super) fn pinned() -> AgentSource {
    let toolchain = Toolchain::new(ToolchainSettings {
        cache_dir: cache_dir(),
        registry: variable("npm_config_registry", "https://registry.npmjs.org/").parse().unwrap(),
        registry_token: None,
        extra_ca: std::env::var_os("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
    });
    AgentSource::Pinned(Arc::new(toolchain.unwrap()))
}

/// Where the pinned CLI is kept from one test to the next.
pub(crate) fn cache_dir() -> PathBuf {
    let home = variable("HOME", "/root");
    let cache = variable("XDG_CACHE_HOME", &format!("{home}/.cache"));
    PathBuf::from(variable("RUNBOOKD_TEST_CACHE", &format!("{cache}/runbookd")))
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// A run while it goes on.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) stop: Stop,
    updates: Mutex<Vec<RunUpdate>>,
}

impl Live {
    /// Waits until there is such news.
    pub(crate) async fn hears(&self, news: impl Fn(&RunUpdate) -> bool) {
        until(|| self.updates().iter().any(&news)).await;
    }

    /// Waits until a tool call began whose title holds `word`.
    pub(crate) async fn tool_begins(&self, word: &str) {
        until(|| {
            self.updates().iter().any(|update| {
                matches!(update, RunUpdate::Step(StepUpdate::Started { title, .. }) if title.contains(word))
            })
        })
        .await;
    }

    fn updates(&self) -> std::sync::MutexGuard<'_, Vec<RunUpdate>> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
