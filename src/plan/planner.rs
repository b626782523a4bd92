//! From a request to a plan: everything that can be known to fail is found here, all at once. Pure
//! but for a look at the files that the run is given.

use uuid::Uuid;

use super::budget::Budget;
use super::request::RunRequest;
use crate::guard::Guardrails;
use crate::provider;
use crate::provider::scripted::Script;
use crate::run::{
    Code, Credentials, Finding, ImageRules, Networks, Place, ProviderName, RunFailure, RunId,
    RunName, RunPlan, RuntimeName, error_chain,
};
use crate::runbook::{Position, Runbook};
use crate::secret::{Keyring, Secret};
use crate::snapshot::Snapshots;

/// Where a run leaves what it made, inside the sandbox.
pub const RESULTS_DIR: &str = "/app/results";

/// The step of a run that belongs to no workflow, by the name that clients look for.
const DEFAULT_STEP: &str = "run";

/// The names that a new run draws.
#[derive(Debug, Clone)]
pub struct Draw {
    /// The run's id.
    pub run_id: RunId,
    /// The agent session's id.
    pub session_id: Uuid,
}

/// What planning gave: a plan unless something refuses the run, and all that was found.
#[derive(Debug)]
pub struct Planned {
    /// The plan; `None` when a finding is an error.
    pub plan: Option<RunPlan>,
    /// Everything that was found, by its place in the runbook.
    pub findings: Vec<Finding>,
}

impl Planned {
    /// Whether the run reads this name of the keyring: the runbook declares it, or the way to the
    /// model has it.
    #[must_use]
    pub fn reads(&self, name: &str, keyring: &Keyring) -> bool {
        let Some(plan) = &self.plan else { return false };
        let is_declared = plan.secrets.contains_key(name);
        let is_credential = provider::credentials(plan.provider).contains(&name);
        let access = provider::access(plan.provider, plan.runtime, keyring);
        let is_passed = access.is_ok_and(|access| access.env.iter().any(|(env, _)| *env == name));
        is_declared || is_credential || is_passed
    }

    /// The plan, or why there is none.
    ///
    /// # Errors
    /// [`RunFailure::NoCredentials`] when a missing credential is all that is wrong, else
    /// [`RunFailure::Refused`] with every error.
    pub fn accepted(self) -> Result<RunPlan, RunFailure> {
        let errors: Vec<&Finding> = self.findings.iter().filter(|f| f.is_error()).collect();
        match (self.plan, errors.as_slice()) {
            (Some(plan), _) => Ok(plan),
            (None, [only]) if only.code == Code::MissingKey => {
                Err(RunFailure::NoCredentials { detail: only.message.clone() })
            }
            (None, errors) => Err(RunFailure::Refused {
                problems: errors.iter().map(|finding| finding.sentence()).collect(),
            }),
        }
    }
}

/// The variable of an environment that says where its model services' credentials are while its runs
/// last.
const CREDENTIALS: &str = "RUNBOOKD_CREDENTIALS";

/// The variable of an environment that says whether the files of its runs are masked.
const REDACT_ARTIFACTS: &str = "RUNBOOKD_REDACT_ARTIFACTS";

/// Why a run is refused whose prompts nobody could look through.
pub const GUARD_NEEDS_GATEWAY: &str = "guardrails are set for its prompts, and with its credential \
    in the sandbox the agent asks the model service itself, past them";

/// What a run is planned for.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// What can be built to start from.
    pub snapshots: &'a Snapshots,
    /// What runs may reach.
    pub networks: &'a Networks,
    /// Which images they may name.
    pub images: &'a ImageRules,
}

/// Decides everything about a run before anything is started, and finds everything at once.
#[must_use]
pub fn plan(request: &RunRequest, keyring: &Keyring, setting: Setting<'_>, draw: Draw) -> Planned {
    let runbook = match Runbook::parse(&request.runbook) {
        Ok(runbook) => runbook,
        Err(e) => {
            let finding = Finding::new(Code::UnreadableRunbook, e.problem.to_string());
            return Planned { plan: None, findings: vec![finding.at(Some(place(e.position)))] };
        }
    };
    let mut planner = Planner { request, keyring, setting, runbook: &runbook, findings: vec![] };
    let plan = planner.plan(draw);
    let mut findings = planner.findings;
    findings.sort_by_key(|finding| (finding.place, finding.code));
    let plan = plan.filter(|_| !findings.iter().any(Finding::is_error));
    let notes = findings.iter().filter(|f| !f.is_error()).map(Finding::sentence).collect();
    Planned { plan: plan.map(|plan| RunPlan { notes, ..plan }), findings }
}

fn place(position: Position) -> Place {
    Place { line: position.line, column: position.column }
}

/// A plan in the making: what is found collects here.
pub(super) struct Planner<'a> {
    pub(super) request: &'a RunRequest,
    pub(super) keyring: &'a Keyring,
    pub(super) setting: Setting<'a>,
    pub(super) runbook: &'a Runbook,
    pub(super) findings: Vec<Finding>,
}

/// What the request said whole, or the values of its variables.
fn init_params(request: &RunRequest) -> serde_json::Map<String, serde_json::Value> {
    if !request.init_params.is_empty() {
        return request.init_params.clone();
    }
    let variables = request.variables.iter();
    variables.map(|(name, value)| (name.clone(), value.clone().into())).collect()
}

impl Planner<'_> {
    /// The plan, as far as there can be one.
    fn plan(&mut self, draw: Draw) -> Option<RunPlan> {
        let runtime = self.runtime();
        let provider = self.provider(runtime.unwrap_or(RuntimeName::ClaudeCode));
        let model = self.model(runtime, provider);
        let base = self.base();
        let apt_packages = self.packages(&base);
        let limits = self.limits();
        let permissions = self.permissions();
        let secrets = self.secrets();
        let credentials = self.credentials(runtime, provider);
        let guard = self.guard(credentials, provider);
        let redact_artifacts = self.redact_artifacts();
        let Budget { allowance, max_output_tokens } = self.budget(provider, &model, credentials);
        let provider_tools = self.provider_tools();
        let network = self.network();
        self.former(runtime);
        let agent_env = self.agent_env();
        let mcp_servers = self.mcp_servers(&secrets, &agent_env);
        self.evaluation();
        let assets = self.assets();
        let instruction = self.instruction();
        self.unknown_keys();
        let (request, front_matter) = (self.request, self.runbook.front_matter());
        Some(RunPlan {
            name: RunName {
                collection: request.collection.clone(),
                task: request.task.clone(),
                id: draw.run_id,
            },
            step: request.overrides.step.clone().unwrap_or_else(|| DEFAULT_STEP.to_owned()),
            runtime: runtime?,
            provider: provider?,
            model,
            script: request.script.clone().filter(|_| provider == Some(ProviderName::Scripted)),
            base,
            apt_packages,
            network,
            credentials,
            guard,
            redact_artifacts,
            provider_tools,
            limits,
            allowance,
            max_output_tokens,
            setup: front_matter.setup.clone(),
            permissions,
            init_params: init_params(request),
            runbook: request.runbook.clone(),
            instruction,
            session_id: draw.session_id,
            former: request.former.clone(),
            assets,
            secrets,
            agent_env,
            mcp_servers,
            primary_outputs: front_matter.primary_outputs.clone(),
            notes: Vec::new(),
        })
    }

    pub(super) fn find(&mut self, code: Code, message: impl Into<String>) {
        self.findings.push(Finding::new(code, message));
    }

    /// Notes a finding about a key of the front matter, at its place.
    pub(super) fn find_at(&mut self, key: &str, finding: Finding) {
        self.findings.push(finding.at(self.runbook.position(key).map(place)));
    }

    fn runtime(&mut self) -> Option<RuntimeName> {
        let front_matter = self.runbook.front_matter();
        let overrides = &self.request.overrides;
        let named = overrides.agent.as_ref().or(front_matter.agent.as_ref());
        let model = overrides.model.as_ref().or(front_matter.model.as_ref());
        match provider::choose_runtime(named.map(String::as_str), model.map(String::as_str)) {
            Ok(runtime) => Some(runtime),
            Err(finding) => {
                let key = if front_matter.agent.is_some() { "agent" } else { "model" };
                self.find_at(key, finding);
                None
            }
        }
    }

    fn provider(&mut self, runtime: RuntimeName) -> Option<ProviderName> {
        let front_matter = self.runbook.front_matter();
        // A script is a part of the request, so it wins over the runbook.
        let script = self.request.script.as_deref().map(Script::parse);
        let named = self.request.overrides.model_provider.as_deref();
        let named = named.or(script.as_ref().map(|_| "scripted"));
        let named = named.or(front_matter.model_provider.as_deref());
        let chosen = provider::choose_provider(named, runtime, self.keyring);
        let fault = match (&chosen, script) {
            (_, Some(Err(e))) => Some(Finding::new(Code::UnreadableScript, error_chain(&e))),
            (Ok(ProviderName::Scripted), None) => Some(Finding::new(
                Code::MissingScript,
                "the scripted provider needs a script: give one with `--script FILE`",
            )),
            (_, None | Some(Ok(_))) => None,
        };
        let (chosen, unknown) = match chosen {
            Ok(provider) => (Some(provider), None),
            Err(finding) => (None, Some(finding)),
        };
        for finding in fault.into_iter().chain(unknown) {
            self.find_at("model_provider", finding);
        }
        chosen
    }

    fn model(&mut self, runtime: Option<RuntimeName>, provider: Option<ProviderName>) -> String {
        let front_matter = self.runbook.front_matter();
        let named = self.request.overrides.model.as_ref().or(front_matter.model.as_ref());
        let named = named.map(String::as_str);
        let (Some(runtime), Some(provider)) = (runtime, provider) else {
            // Without an agent and a provider nothing can be said of the model.
            return named.unwrap_or_default().to_owned();
        };
        let chosen = provider::choose_model(named, runtime, provider);
        for finding in chosen.findings {
            self.find_at("model", finding);
        }
        chosen.name
    }

    fn credentials(
        &mut self,
        runtime: Option<RuntimeName>,
        provider: Option<ProviderName>,
    ) -> Credentials {
        let wanted = self.wanted_credentials();
        let (Some(runtime), Some(provider)) = (runtime, provider) else { return wanted };
        match provider::access(provider, runtime, self.keyring) {
            Ok(access) => {
                // Where there is nothing to hide, nothing is hidden badly.
                let can_be_brokered = access.can_be_brokered() || access.secrets.is_empty();
                self.findings.extend(access.findings);
                if wanted == Credentials::Gateway && !can_be_brokered {
                    self.find(
                        Code::CredentialInSandbox,
                        format!(
                            "the gateway cannot stand in for this credential of {}: it is in the \
                             sandbox, where the agent can read it",
                            provider.as_str()
                        ),
                    );
                    return Credentials::Direct;
                }
            }
            Err(faults) => self.findings.extend(faults),
        }
        wanted
    }

    /// Where the credential is to be: the request's word, or that of the environment.
    fn wanted_credentials(&mut self) -> Credentials {
        let word = self.keyring.get(CREDENTIALS).map(|word| word.expose().trim().to_owned());
        let of_environment = word.as_deref().map(Credentials::from_word);
        if of_environment == Some(None) {
            let message = format!("{CREDENTIALS} is neither `gateway` nor `direct`");
            self.find(Code::MalformedCredential, message);
        }
        self.request.overrides.credentials.or(of_environment.flatten()).unwrap_or_default()
    }

    /// What the collection wants of its prompts.
    fn guard(&mut self, credentials: Credentials, provider: Option<ProviderName>) -> Guardrails {
        let read = Guardrails::read(|name| self.keyring.get(name).map(Secret::expose));
        let rails = read.unwrap_or_else(|faults| {
            for fault in faults {
                self.find(Code::UnreadableSetting, fault.to_string());
            }
            Guardrails::default()
        });
        let leaves = provider.is_some_and(|provider| provider != ProviderName::Scripted);
        if leaves && !rails.is_off() && credentials == Credentials::Direct {
            self.find(Code::GuardNeedsGateway, GUARD_NEEDS_GATEWAY);
        }
        rails
    }

    /// Whether the runbook or the collection wants its files masked.
    fn redact_artifacts(&mut self) -> bool {
        let word = self.keyring.get(REDACT_ARTIFACTS).map(|word| word.expose().trim().to_owned());
        let of_collection = match word.as_deref() {
            None | Some("" | "0") => false,
            Some("1") => true,
            Some(_) => {
                let message = format!("{REDACT_ARTIFACTS} is neither `0` nor `1`");
                self.find(Code::UnreadableSetting, message);
                true
            }
        };
        of_collection || self.runbook.front_matter().redact_artifacts == Some(true)
    }

    fn evaluation(&mut self) {
        let evaluation = self.runbook.front_matter().evaluation.as_deref();
        if let Some(other) = evaluation.filter(|word| !matches!(*word, "programmatic" | "rubric")) {
            let finding = Finding::new(
                Code::UnknownEvaluation,
                format!(
                    "the evaluation `{other}` cannot be done here: write `programmatic` or `rubric`"
                ),
            );
            self.find_at("evaluation", finding);
        }
    }
}
