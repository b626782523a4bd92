//! The names of all findings, how bad each is, and what it means.

use std::fmt;

use super::Severity;

/// The name of a kind of finding. Its word is stable: programs and people search for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`about` tells what each means, once")]
pub enum Code {
    UnreadableRunbook,
    UnknownAgent,
    AgentNotTold,
    UnknownProvider,
    WrongSlug,
    BrokenModel,
    UnverifiedModel,
    MissingKey,
    ConflictingCredentials,
    SeveralCredentials,
    CredentialInSandbox,
    MalformedCredential,
    UnreadableSetting,
    GuardNeedsGateway,
    UnknownSnapshot,
    SnapshotNeedsDocker,
    MissingTools,
    PackagesNeedDocker,
    BadPackage,
    ImageNotPermitted,
    ImageNotExtended,
    NetworkNotPermitted,
    UnknownEvaluation,
    MissingSecret,
    OptionalSecret,
    MissingFile,
    UnsetVariable,
    UnusableInput,
    LimitOutOfRange,
    BudgetTooSmall,
    BudgetCannotBeKept,
    IdleBudget,
    MissingScript,
    UnreadableScript,
    CannotResume,
    MaskedConversation,
    UnknownPermissionMode,
    UnusableToolRule,
    IdleToolList,
    UnknownProviderTool,
    ProviderToolNotGranted,
    UnknownKey,
    UnfilledVariable,
    UnusedVariable,
    ImageInsteadOfSnapshot,
    NoObjective,
    NoRequiredOutputs,
    NoFinalChecklist,
    NoValidationReport,
    NoEvaluationSection,
    NoIterationBound,
    NoOutputVerification,
    VariablesWithoutParameters,
    LeftOverTodo,
    NoFrontMatter,
    NoPrimaryOutputs,
}

/// What is known of a code.
struct About {
    word: &'static str,
    severity: Severity,
    text: &'static str,
}

const fn error(word: &'static str, text: &'static str) -> About {
    About { word, severity: Severity::Error, text }
}

const fn warning(word: &'static str, text: &'static str) -> About {
    About { word, severity: Severity::Warning, text }
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 56] = [
        Self::UnreadableRunbook,
        Self::UnknownAgent,
        Self::AgentNotTold,
        Self::UnknownProvider,
        Self::WrongSlug,
        Self::BrokenModel,
        Self::UnverifiedModel,
        Self::MissingKey,
        Self::ConflictingCredentials,
        Self::SeveralCredentials,
        Self::CredentialInSandbox,
        Self::MalformedCredential,
        Self::UnreadableSetting,
        Self::GuardNeedsGateway,
        Self::UnknownSnapshot,
        Self::SnapshotNeedsDocker,
        Self::MissingTools,
        Self::PackagesNeedDocker,
        Self::BadPackage,
        Self::ImageNotPermitted,
        Self::ImageNotExtended,
        Self::NetworkNotPermitted,
        Self::UnknownEvaluation,
        Self::MissingSecret,
        Self::OptionalSecret,
        Self::MissingFile,
        Self::UnsetVariable,
        Self::UnusableInput,
        Self::LimitOutOfRange,
        Self::BudgetTooSmall,
        Self::BudgetCannotBeKept,
        Self::IdleBudget,
        Self::MissingScript,
        Self::UnreadableScript,
        Self::CannotResume,
        Self::MaskedConversation,
        Self::UnknownPermissionMode,
        Self::UnusableToolRule,
        Self::IdleToolList,
        Self::UnknownProviderTool,
        Self::ProviderToolNotGranted,
        Self::UnknownKey,
        Self::UnfilledVariable,
        Self::UnusedVariable,
        Self::ImageInsteadOfSnapshot,
        Self::NoObjective,
        Self::NoRequiredOutputs,
        Self::NoFinalChecklist,
        Self::NoValidationReport,
        Self::NoEvaluationSection,
        Self::NoIterationBound,
        Self::NoOutputVerification,
        Self::VariablesWithoutParameters,
        Self::LeftOverTodo,
        Self::NoFrontMatter,
        Self::NoPrimaryOutputs,
    ];

    /// The word by which it is known.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.entry().word
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.entry().severity
    }

    /// What it means and what to do, for `runbookd explain`.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.entry().text
    }

    #[expect(clippy::too_many_lines, reason = "one row a code")]
    fn entry(self) -> About {
        match self {
            Self::UnreadableRunbook => error(
                "unreadable-runbook",
                "The file cannot be read as a runbook: its encoding, its front matter's YAML, \
                 or the type of a value. The message names the line and what to write \
                 instead.",
            ),
            Self::UnknownAgent => error(
                "unknown-agent",
                "The agent is not one that this version runs. Write `agent: claude-code`, or \
                 leave the key out and name a model from which the agent can be told.",
            ),
            Self::AgentNotTold => error(
                "agent-not-told",
                "No agent is named, and the model's name does not tell one. Names that begin \
                 with `claude-` or `anthropic/` mean claude-code; for others write `agent:`.",
            ),
            Self::UnknownProvider => error(
                "unknown-provider",
                "The model provider is not one that this version reaches with this agent. The \
                 message lists those that are.",
            ),
            Self::WrongSlug => error(
                "wrong-slug",
                "The model's name is spelled for another provider. Each service has its own \
                 spelling, and a wrong one ends the run in seconds. The message gives the \
                 right one.",
            ),
            Self::BrokenModel => error(
                "broken-model",
                "The model is known not to work with this agent and provider. The message \
                 says why and what to use instead.",
            ),
            Self::UnverifiedModel => warning(
                "unverified-model",
                "The model is not in the table of those that were tried. It may work; its \
                 cost is unknown.",
            ),
            Self::MissingKey => error(
                "missing-key",
                "The provider's credential is not set. The message names the variable.",
            ),
            Self::ConflictingCredentials => error(
                "conflicting-credentials",
                "Two credentials are set that the agent CLI would send together or mix up. \
                 The message says which to remove.",
            ),
            Self::SeveralCredentials => warning(
                "several-credentials",
                "More than one credential of the provider is set. The message says which is used.",
            ),
            Self::CredentialInSandbox => warning(
                "credential-in-sandbox",
                "The gateway cannot put this kind of credential on requests, so the agent has it. \
                 The message says which provider's.",
            ),
            Self::MalformedCredential => error(
                "malformed-credential",
                "A credential is set that cannot be right by its shape. It is never printed.",
            ),
            Self::UnreadableSetting => error(
                "unreadable-setting",
                "A setting of the collection's environment cannot be read. The message says which, \
                 and what it may be.",
            ),
            Self::GuardNeedsGateway => error(
                "guard-needs-gateway",
                "Guardrails look through prompts in the gateway, and this run would not use it. Use \
                 a credential that the gateway can put on, or switch the guardrails off.",
            ),
            Self::UnknownSnapshot => error(
                "unknown-snapshot",
                "The snapshot is not one that this installation can build. `runbookd snapshot \
                 list` shows those that are; or name an `image:`.",
            ),
            Self::SnapshotNeedsDocker => warning(
                "snapshot-needs-docker",
                "Bubblewrap has no images: this machine's own system stands in for the \
                 snapshot, and its tools may be missing.",
            ),
            Self::MissingTools => error(
                "missing-tools",
                "Bubblewrap has no images, and this machine lacks programs that the snapshot \
                 promises. The message lists them: install them, or run it on Docker.",
            ),
            Self::PackagesNeedDocker => error(
                "packages-need-docker",
                "`apt_packages` are installed in an image of their own. Bubblewrap has no images: \
                 install them on this machine and leave the key out, or run it on Docker.",
            ),
            Self::BadPackage => error(
                "bad-package",
                "A Debian package is a name of lower-case letters, digits and `+.-`, optionally \
                 with `=` and a version.",
            ),
            Self::ImageNotPermitted => error(
                "image-not-permitted",
                "Which images runs may name is the operator's to say: RUNBOOKD_IMAGES lists them. \
                 Snapshots are always allowed.",
            ),
            Self::ImageNotExtended => error(
                "image-not-extended",
                "Installing packages runs what is in the image as root and outside of a sandbox, so \
                 RUNBOOKD_PACKAGE_IMAGES has to list it. Packages on snapshots are always allowed.",
            ),
            Self::NetworkNotPermitted => error(
                "network-not-permitted",
                "What a sandbox may reach is the operator's to say: RUNBOOKD_NETWORKS lists the \
                 modes that runs may use. `open` is not among them unless it is switched on. A run \
                 is never narrowed in silence.",
            ),
            Self::UnknownEvaluation => error(
                "unknown-evaluation",
                "`evaluation` is `programmatic` or `rubric`. Other kinds need something that \
                 a server does not have.",
            ),
            Self::MissingSecret => error(
                "missing-secret",
                "The runbook declares a secret as required, and its variable is not set.",
            ),
            Self::OptionalSecret => warning(
                "optional-secret",
                "The runbook declares a secret that is not set. It is optional, so the run \
                 starts without it.",
            ),
            Self::MissingFile => error(
                "missing-file",
                "A file that the run is given is not there, is not a regular file, or has the \
                 name of another one.",
            ),
            Self::UnusableInput => {
                error("unusable-input", "A part of the request has a form that cannot be used.")
            }
            Self::UnsetVariable => error(
                "unset-variable",
                "An MCP server's settings refer to a variable with `${NAME}` that the sandbox \
                 will not have. The agent CLI would pass the text on literally, without a \
                 warning. Declare it as a secret and set it.",
            ),
            Self::LimitOutOfRange => error(
                "limit-out-of-range",
                "A limit of the run is beyond what can be given. The message names the range.",
            ),
            Self::BudgetTooSmall => error(
                "budget-too-small",
                "A limit of what may be spent leaves no room for the agent's first request and an \
                 answer with which it can work. The message says how much that is.",
            ),
            Self::BudgetCannotBeKept => error(
                "budget-cannot-be-kept",
                "A limit of what may be spent cannot be kept: the model's price is not known, or the \
                 run would ask its model service past the gateway.",
            ),
            Self::IdleBudget => warning(
                "idle-budget",
                "A limit of what may be spent has no effect: the scripted provider costs nothing.",
            ),
            Self::MissingScript => error(
                "missing-script",
                "The scripted provider answers from a script, and there is none. Give one \
                 with `--script FILE`.",
            ),
            Self::UnreadableScript => error(
                "unreadable-script",
                "The script of the scripted provider cannot be read. The message names the place and \
                 what to write instead; docs/scripted-provider.md describes the format.",
            ),
            Self::CannotResume => error(
                "cannot-resume",
                "The run whose conversation shall go on is not there, has not ended, has another \
                 agent, or left no session files. The message says which.",
            ),
            Self::MaskedConversation => warning(
                "masked-conversation",
                "The session files of a run are kept with its secrets masked. Who goes on with \
                 the conversation reads `[redacted]` where a secret stood.",
            ),
            Self::UnknownPermissionMode => error(
                "unknown-permission-mode",
                "`permission_mode` is `plan`, `acceptEdits`, `default` or `bypassPermissions`. \
                 Other modes of the agent CLI need a person or a service that judges.",
            ),
            Self::UnusableToolRule => error(
                "unusable-tool-rule",
                "A rule of `allowed_tools` or `disallowed_tools` names a tool that the agent CLI \
                 does not have, or is not written as `Tool`, `Tool(…)` or `mcp__server__tool`. The \
                 CLI would accept it silently, and it would do nothing.",
            ),
            Self::IdleToolList => warning(
                "idle-tool-list",
                "`allowed_tools` says what is allowed beside the permission mode. With \
                 `bypassPermissions` everything is, so the list does nothing.",
            ),
            Self::UnknownProviderTool => error(
                "unknown-provider-tool",
                "`provider_tools` and `RUNBOOKD_PROVIDER_TOOLS` are lists of `web_search`, \
                 `web_fetch`, `code_execution`, `remote_mcp` and `url_media`.",
            ),
            Self::ProviderToolNotGranted => error(
                "provider-tool-not-granted",
                "The runbook asks for something that the model service does itself, on a network of \
                 its own. The operator grants it (`RUNBOOKD_PROVIDER_TOOLS`), and the collection's \
                 environment may not take it away.",
            ),
            Self::UnknownKey => warning(
                "unknown-key",
                "A key of the front matter is not known and does nothing. It may be a \
                 misspelling.",
            ),
            Self::UnfilledVariable => warning(
                "unfilled-variable",
                "A declared variable has no value. It stays in the text as it is written.",
            ),
            Self::UnusedVariable => warning(
                "unused-variable",
                "A value was given for a variable that the runbook has no place for.",
            ),
            Self::ImageInsteadOfSnapshot => warning(
                "image-instead-of-snapshot",
                "Both an image and a snapshot are named. The image is used.",
            ),
            Self::NoObjective => warning(
                "no-objective",
                "There is no section `## Objective`. Agents do better when they are told what \
                 for.",
            ),
            Self::NoRequiredOutputs => warning(
                "no-required-outputs",
                "There is no section `## REQUIRED OUTPUT FILES`. Without it agents tend to \
                 answer instead of writing files.",
            ),
            Self::NoFinalChecklist => {
                warning("no-final-checklist", "There is no section `## Final Checklist`.")
            }
            Self::NoValidationReport => warning(
                "no-validation-report",
                "The runbook never asks for `validation_report.json`. Without it nothing but \
                 the declared outputs can be checked.",
            ),
            Self::NoEvaluationSection => warning(
                "no-evaluation-section",
                "The runbook has no part on evaluation or a rubric.",
            ),
            Self::NoIterationBound => warning(
                "no-iteration-bound",
                "The runbook asks for no bound on its rounds (`max 3 rounds`), so an agent \
                 may polish without end.",
            ),
            Self::NoOutputVerification => warning(
                "no-output-verification",
                "The runbook has no final verification of its outputs.",
            ),
            Self::VariablesWithoutParameters => warning(
                "variables-without-parameters",
                "The text has `{{variables}}` and no `## Parameters` section that declares \
                 them.",
            ),
            Self::LeftOverTodo => {
                warning("left-over-todo", "A `{TODO: …}` of the template is still in the text.")
            }
            Self::NoFrontMatter => warning(
                "no-front-matter",
                "There is no front matter: agent, model and outputs are left to the defaults.",
            ),
            Self::NoPrimaryOutputs => warning(
                "no-primary-outputs",
                "`primary_outputs` is not set, so no output is checked.",
            ),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words_with_an_explanation() {
        let mut words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
        let places: Vec<usize> = Code::ALL.iter().map(|&code| code as usize).collect();
        assert_eq!(places, (0..Code::ALL.len()).collect::<Vec<_>>());
        for code in Code::ALL {
            assert!(code.as_str().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{code}");
            assert!(code.about().ends_with('.'), "{code}");
        }
    }
}
