//! What a run is given: its text, its files, its secrets, its MCP servers' variables.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::planner::{Planner, RESULTS_DIR};
use super::request::GivenFile;
use crate::run::{Asset, Code, Finding, McpServers, Place, RuntimeName};
use crate::runbook::{Part, Rendered};
use crate::secret::Secret;

/// What the agent is told before the runbook. Agents that are only given a document summarise it or
/// ask what to do with it.
const PREAMBLE: &str = "\
You carry out a runbook on your own, in a sandbox. Do all of it now; do not only read it or \
summarise it. Nobody can answer questions: where something is open, decide, go on, and write down \
what you assumed. Put every output under /app/results. Files that you were given are in \
/app/assets. The runbook follows.

";

/// What it is told instead when it goes on with the conversation of a former run.
const RESUMED_PREAMBLE: &str = "\
You go on with your work of an earlier run, in a new sandbox. /app/results and /app/assets hold \
that run's files as they were at its end; what else it had made is gone. What is done and still \
right need not be done again. As before, carry the runbook out on your own: nobody can answer \
questions; where something is open, decide, go on, and write down what you assumed. Put every \
output under /app/results. The runbook follows.

";

/// What stands between the runbook and the words of the one who asked for the run.
const PROMPT_HEADING: &str = "\n\n---\n\n# The request\n\nWhoever started this run says:\n\n";

/// Variables that every sandbox has, beside the declared secrets.
const ALWAYS_SET: [&str; 6] = ["HOME", "USER", "LOGNAME", "PATH", "PWD", "RESULTS_DIR"];

/// Longest name of an MCP server, in bytes, as in a runbook's front matter.
const MAX_SERVER_NAME_BYTES: usize = 64;

/// A variable in an MCP server's settings, `${NAME}` or `${NAME:-default}`.
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}").expect("the pattern is valid")
});

impl Planner<'_> {
    /// The declared secrets that have a value.
    pub(super) fn secrets(&mut self) -> BTreeMap<String, Secret> {
        let mut found = BTreeMap::new();
        for (name, secret) in &self.runbook.front_matter().secrets {
            let env = &secret.env;
            match self.keyring.get(env) {
                Some(value) => {
                    found.insert(env.clone(), value.clone());
                }
                None if secret.required => self.find_at(
                    "secrets",
                    Finding::new(
                        Code::MissingSecret,
                        format!(
                            "the runbook needs the secret `{name}`: set {env} in the environment"
                        ),
                    ),
                ),
                None => self.find_at(
                    "secrets",
                    Finding::new(
                        Code::OptionalSecret,
                        format!("the optional secret `{name}` is not set ({env})"),
                    ),
                ),
            }
        }
        found
    }

    /// The variables that the request adds.
    pub(super) fn agent_env(&mut self) -> BTreeMap<String, Secret> {
        let given = &self.request.overrides.agent_env;
        for name in given.keys().filter(|name| !is_variable(name)) {
            self.find(
                Code::UnusableInput,
                format!(
                    "`agent_env` has the variable `{name}`: a name has letters, digits and `_`, and \
                     does not begin with a digit"
                ),
            );
        }
        given.clone()
    }

    /// The runbook's MCP servers and the request's. Finds variables that the sandbox will not have.
    pub(super) fn mcp_servers(
        &mut self,
        secrets: &BTreeMap<String, Secret>,
        agent_env: &BTreeMap<String, Secret>,
    ) -> McpServers {
        let mut servers = self.runbook.front_matter().mcp_servers.clone();
        for (name, settings) in &self.request.overrides.mcp_servers {
            if !is_server_name(name) || !settings.is_object() {
                self.find(
                    Code::UnusableInput,
                    format!(
                        "the MCP server `{name}` of the request cannot be used: a name has 1 to \
                         {MAX_SERVER_NAME_BYTES} letters, digits, `_` and `-`, its settings are an \
                         object"
                    ),
                );
            }
            servers.insert(name.clone(), settings.clone());
        }
        let mut findings = Vec::new();
        for (server, settings) in &servers {
            for_each_text(settings, &mut |text| {
                for variable in VARIABLE.captures_iter(text) {
                    let name = &variable[1];
                    let known = ALWAYS_SET.contains(&name)
                        || secrets.contains_key(name)
                        || agent_env.contains_key(name);
                    if !known && variable.get(2).is_none() {
                        findings.push(Finding::new(
                            Code::UnsetVariable,
                            format!(
                                "the MCP server `{server}` needs the variable `{name}`: declare it \
                                 under `secrets:` and set it, or give it a default, `${{{name}:-…}}`"
                            ),
                        ));
                    }
                }
            });
        }
        for finding in findings {
            self.find_at("mcp_servers", finding);
        }
        servers
    }

    pub(super) fn assets(&mut self) -> Vec<Asset> {
        let mut assets: Vec<Asset> = Vec::new();
        for file in &self.request.assets {
            match asset(file) {
                Ok(asset) if assets.iter().any(|other| other.name == asset.name) => self.find(
                    Code::MissingFile,
                    format!("two files are called `{}`: rename one", asset.name),
                ),
                Ok(asset) => assets.push(asset),
                Err(problem) => self.find(Code::MissingFile, problem),
            }
        }
        // The conversation speaks of the files that the former run was given.
        let former = self.request.former.iter().flat_map(|former| &former.assets);
        for asset in former {
            if assets.iter().all(|other| other.name != asset.name) {
                assets.push(asset.clone());
            }
        }
        assets
    }

    /// Finds what keeps the conversation of the former run from going on.
    pub(super) fn former(&mut self, runtime: Option<RuntimeName>) {
        let (Some(former), Some(runtime)) = (&self.request.former, runtime) else { return };
        if former.agent != runtime.as_str() {
            self.find(
                Code::CannotResume,
                format!(
                    "the run {} was carried out by the agent `{}`, so `{}` cannot go on with its \
                     conversation",
                    former.name,
                    former.agent,
                    runtime.as_str()
                ),
            );
        }
        if former.is_masked {
            self.find(
                Code::MaskedConversation,
                format!(
                    "the conversation of the run {} was kept with its secrets masked: the agent \
                     reads [redacted] in their place",
                    former.name
                ),
            );
        }
    }

    /// What the agent is told.
    pub(super) fn instruction(&mut self) -> String {
        let mut values = self.runbook.defaults();
        values.insert("results_dir".to_owned(), RESULTS_DIR.to_owned());
        values.extend(self.request.variables.clone());
        let Rendered { text, filled, unfilled } = self.runbook.render(Part::Whole, &values);
        for variable in unfilled {
            let finding = Finding::new(
                Code::UnfilledVariable,
                format!("the variable `{}` has no value and stays as it is written", variable.name),
            );
            self.findings.push(finding.at(Some(Place { line: variable.line, column: 1 })));
        }
        for name in self.request.variables.keys().filter(|name| !filled.contains(name)) {
            self.findings.push(Finding::new(
                Code::UnusedVariable,
                format!("the variable `{name}` was given, but the runbook has no place for it"),
            ));
        }
        let preamble = match self.request.former {
            None => PREAMBLE,
            Some(_) => RESUMED_PREAMBLE,
        };
        match &self.request.overrides.prompt {
            None => format!("{preamble}{text}"),
            Some(prompt) => format!("{preamble}{}{PROMPT_HEADING}{prompt}\n", text.trim_end()),
        }
    }

    pub(super) fn unknown_keys(&mut self) {
        for key in &self.runbook.front_matter().unknown {
            let finding = Finding::new(
                Code::UnknownKey,
                format!("the key `{}` is not known and does nothing", key.name),
            );
            self.findings.push(finding.at(Some(Place { line: key.line, column: 1 })));
        }
    }
}

/// Calls `visit` with every text in a JSON value.
fn for_each_text(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| for_each_text(item, visit)),
        Value::Object(fields) => fields.values().for_each(|field| for_each_text(field, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether this can be the name of an environment variable.
fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_word)
}

/// Whether this can be the name of an MCP server, by the rule of the runbook's front matter.
fn is_server_name(name: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=MAX_SERVER_NAME_BYTES).contains(&name.len()) && name.chars().all(is_legal)
}

/// A file for the run, by the name that it was given or its base name.
fn asset(file: &GivenFile) -> Result<Asset, String> {
    let path = &file.path;
    let shown = path.display();
    let name = match &file.name {
        Some(name) => Some(name.as_str()).filter(|name| name.split('/').all(is_file_name)),
        None => path.file_name().and_then(|name| name.to_str()),
    };
    let name = name.ok_or_else(|| format!("`{shown}` does not name a file"))?;
    let metadata =
        path.metadata().map_err(|e| format!("the file `{shown}` cannot be given: {e}"))?;
    if !metadata.is_file() {
        return Err(format!("`{shown}` is not a regular file: give files one by one"));
    }
    Ok(Asset { name: name.to_owned(), host_path: path.to_owned() })
}

/// Whether a name is a single, harmless path segment.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}
