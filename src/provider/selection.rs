//! Which agent and which provider a run gets, when it does not say.

use super::models::{Broken, LARGE_WINDOW, Model};
use crate::run::{Code, Finding, ProviderName, RuntimeName};
use crate::secret::Keyring;

/// The agent of a run: the named one, else the one that the model's name tells.
///
/// # Errors
/// A [`Finding`] when the agent is not one that we run, or nothing tells it.
pub fn choose_runtime(named: Option<&str>, model: Option<&str>) -> Result<RuntimeName, Finding> {
    let known = "write `agent: claude-code`, the one that this version runs";
    match (named, model) {
        (Some("claude-code"), _) | (None, None) => Ok(RuntimeName::ClaudeCode),
        (Some(other), _) => Err(Finding::new(
            Code::UnknownAgent,
            format!("the agent `{other}` is not known: {known}"),
        )),
        (None, Some(model)) => match agent_of(model) {
            Some("claude-code") => Ok(RuntimeName::ClaudeCode),
            Some(other) => Err(Finding::new(
                Code::UnknownAgent,
                format!(
                    "the model `{model}` is for the agent {other}, which this version does not run"
                ),
            )),
            None => Err(Finding::new(
                Code::AgentNotTold,
                format!("the model `{model}` does not tell which agent is meant: {known}"),
            )),
        },
    }
}

/// The agent that a model's name means (Jetty's rule).
fn agent_of(model: &str) -> Option<&'static str> {
    let begins = |starts: &[&str]| starts.iter().any(|start| model.starts_with(start));
    if begins(&["claude-", "anthropic/"])
        || Model::find(model).is_some_and(|m| m.aliases.contains(&model))
    {
        Some("claude-code")
    } else if begins(&["gpt-", "o1-", "o3-", "o4-"]) {
        Some("codex")
    } else if begins(&["gemini-", "gemini/"]) {
        Some("gemini-cli")
    } else {
        None
    }
}

/// The provider of a run: the named one, else the one whose key is there, else the agent's own.
///
/// # Errors
/// A [`Finding`] when the named provider is not one that we reach.
pub fn choose_provider(
    named: Option<&str>,
    runtime: RuntimeName,
    keyring: &Keyring,
) -> Result<ProviderName, Finding> {
    let has = |variable: &str| keyring.get(variable).is_some();
    match named {
        Some(word) => ProviderName::from_word(word).ok_or_else(|| {
            let known = ProviderName::ALL.map(ProviderName::as_str).join("`, `");
            let agent = runtime.as_str();
            Finding::new(
                Code::UnknownProvider,
                format!("the model provider `{word}` cannot be reached with {agent}: write one of `{known}`"),
            )
        }),
        None if has("OPENROUTER_API_KEY") => Ok(ProviderName::OpenRouter),
        None if has("AWS_BEARER_TOKEN_BEDROCK") => Ok(ProviderName::Bedrock),
        None => match runtime {
            RuntimeName::ClaudeCode => Ok(ProviderName::Anthropic),
        },
    }
}

/// The model of a run, checked against what is known of its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenModel {
    /// Its name as the provider spells it.
    pub name: String,
    /// What was found about it.
    pub findings: Vec<Finding>,
}

/// Checks the named model, or takes the default one in the provider's spelling.
#[must_use]
pub fn choose_model(
    named: Option<&str>,
    runtime: RuntimeName,
    provider: ProviderName,
) -> ChosenModel {
    let Some(name) = named else {
        return ChosenModel { name: default_model(provider).to_owned(), findings: Vec::new() };
    };
    let mut findings = Vec::new();
    if let Some(fault) = malformed(name) {
        findings.push(fault);
    } else if let Some(broken) = Broken::find(runtime, provider, name) {
        findings.push(Finding::new(
            Code::BrokenModel,
            format!(
                "the model `{name}` does not work here: {}; use {}",
                broken.why, broken.instead
            ),
        ));
    } else if let Some(finding) = misspelled(name, provider) {
        findings.push(finding);
    } else if Model::find(name).is_none() && provider != ProviderName::Scripted {
        findings.push(Finding::new(
            Code::UnverifiedModel,
            format!(
                "the model `{name}` is not among those that were tried with {}; its cost is unknown",
                runtime.as_str()
            ),
        ));
    }
    ChosenModel { name: spelled(name, provider), findings }
}

/// The model where nobody names one.
fn default_model(provider: ProviderName) -> &'static str {
    Model::find("claude-sonnet-4-6").map_or("claude-sonnet-4-6", |model| model.at(provider))
}

/// An alias of the agent CLI means another model at each service; the record has the real name.
fn spelled(name: &str, provider: ProviderName) -> String {
    match Model::find(name) {
        Some(model) if model.aliases.contains(&name) && !name.contains('-') => {
            model.at(provider).to_owned()
        }
        Some(_) | None => name.to_owned(),
    }
}

fn malformed(name: &str) -> Option<Finding> {
    let whole =
        !name.starts_with('-') && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    (!whole).then(|| {
        let shown = name.escape_debug();
        Finding::new(
            Code::WrongSlug,
            format!("`{shown}` is not a model's name: it has spaces or begins with `-`"),
        )
    })
}

/// A name that is spelled for another service than `provider`.
fn misspelled(name: &str, provider: ProviderName) -> Option<Finding> {
    let shape = Shape::of(name);
    let (fits, rule) = match provider {
        ProviderName::Scripted => return None,
        ProviderName::Anthropic => (shape == Shape::Bare, "Anthropic's API has plain names"),
        ProviderName::OpenRouter => {
            (shape == Shape::Router, "OpenRouter's names have the maker before a slash")
        }
        ProviderName::Bedrock => (
            matches!(shape, Shape::Bedrock | Shape::Arn),
            "Bedrock's names begin with a region, such as `us.anthropic.`",
        ),
        ProviderName::Vertex => (
            matches!(shape, Shape::Bare | Shape::Dated),
            "Vertex AI has plain names, some with `@` and a date",
        ),
    };
    // `anthropic/claude-sonnet-4-6` has the right shape and the wrong version for a router.
    let right = Model::find(name).map(|model| model.at(provider));
    let base = name.strip_suffix(LARGE_WINDOW).unwrap_or(name);
    let dashed = provider == ProviderName::OpenRouter && right.is_some_and(|right| right != base);
    if is_alias(name) || (fits && !dashed) {
        return None;
    }
    let mend = right.map_or_else(String::new, |right| format!(": write `{right}`"));
    Some(Finding::new(
        Code::WrongSlug,
        format!(
            "the model `{name}` is spelled for another service than {} ({rule}){mend}",
            provider.as_str()
        ),
    ))
}

fn is_alias(name: &str) -> bool {
    !name.contains('-') && Model::find(name).is_some_and(|model| model.aliases.contains(&name))
}

/// How a model's name is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Bare,
    Router,
    Bedrock,
    Arn,
    Dated,
}

impl Shape {
    fn of(name: &str) -> Self {
        let maker = name.split('.').next().unwrap_or_default();
        let is_region =
            matches!(maker, "us" | "eu" | "apac" | "global" | "us-gov" | "jp" | "au" | "ca");
        if name.starts_with("arn:") {
            Self::Arn
        } else if name.contains('/') {
            Self::Router
        } else if name.contains('@') {
            Self::Dated
        } else if is_region || maker == "anthropic" {
            Self::Bedrock
        } else {
            Self::Bare
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn an_agent_is_told_by_name_or_by_model() {
        let code = |agent, model| choose_runtime(agent, model).map_err(|f| f.code);
        let ours = Ok(RuntimeName::ClaudeCode);
        assert_eq!(code(None, None), ours);
        assert_eq!(code(None, Some("claude-sonnet-4-6")), ours);
        assert_eq!(code(None, Some("anthropic/claude-sonnet-4.6")), ours);
        assert_eq!(code(None, Some("opus")), ours);
        assert_eq!(code(Some("claude-code"), Some("us.anthropic.claude-sonnet-4-6")), ours);
        assert_eq!(code(None, Some("us.anthropic.claude-sonnet-4-6")), Err(Code::AgentNotTold));
        assert_eq!(code(None, Some("gpt-5.5")), Err(Code::UnknownAgent));
        assert_eq!(code(Some("codex"), Some("gpt-5.5")), Err(Code::UnknownAgent));
    }

    #[test]
    fn a_provider_is_the_named_one_then_the_one_with_a_key() {
        let choose = |named, keys: &[&str]| {
            let keyring = keys
                .iter()
                .map(|&key| (key.to_owned(), Secret::new("made-up".to_owned())))
                .collect();
            choose_provider(named, RuntimeName::ClaudeCode, &keyring).map_err(|f| f.code)
        };
        assert_eq!(choose(None, &[]), Ok(ProviderName::Anthropic));
        assert_eq!(choose(None, &["AWS_BEARER_TOKEN_BEDROCK"]), Ok(ProviderName::Bedrock));
        assert_eq!(
            choose(None, &["AWS_BEARER_TOKEN_BEDROCK", "OPENROUTER_API_KEY"]),
            Ok(ProviderName::OpenRouter)
        );
        assert_eq!(choose(Some("anthropic"), &["OPENROUTER_API_KEY"]), Ok(ProviderName::Anthropic));
        for word in ["replicate", "openai", "Anthropic"] {
            assert_eq!(choose(Some(word), &[]), Err(Code::UnknownProvider));
        }
    }

    /// jetty-api 15 and 16: a wrong slug and a broken model are refused with the right one.
    #[test]
    fn f15_f16_a_name_is_checked_against_its_provider() {
        use ProviderName::{Anthropic, Bedrock, OpenRouter, Vertex};
        let found = |provider, name| {
            let chosen = choose_model(Some(name), RuntimeName::ClaudeCode, provider);
            let findings: Vec<String> =
                chosen.findings.iter().map(|f| format!("{}: {}", f.code, f.message)).collect();
            format!("{} [{}]", chosen.name, findings.join(" | "))
        };
        for (provider, name, expected) in [
            (Anthropic, "claude-sonnet-4-6", "claude-sonnet-4-6 []"),
            (Anthropic, "claude-sonnet-4-6[1m]", "claude-sonnet-4-6[1m] []"),
            (Anthropic, "claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001 []"),
            (Anthropic, "opus", "claude-opus-4-7 []"),
            (Bedrock, "sonnet", "us.anthropic.claude-sonnet-4-6 []"),
            (OpenRouter, "haiku", "anthropic/claude-haiku-4.5 []"),
            (OpenRouter, "anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4.6 []"),
            (Bedrock, "us.anthropic.claude-sonnet-4-6", "us.anthropic.claude-sonnet-4-6 []"),
            (Bedrock, "eu.anthropic.claude-sonnet-4-6", "eu.anthropic.claude-sonnet-4-6 []"),
            (Vertex, "claude-haiku-4-5@20251001", "claude-haiku-4-5@20251001 []"),
        ] {
            assert_eq!(found(provider, name), expected);
        }
        for (provider, name, code, mend) in [
            (OpenRouter, "claude-sonnet-4-6", "wrong-slug", "write `anthropic/claude-sonnet-4.6`"),
            (
                OpenRouter,
                "anthropic/claude-sonnet-4-6",
                "wrong-slug",
                "`anthropic/claude-sonnet-4.6`",
            ),
            (Anthropic, "anthropic/claude-sonnet-4.6", "wrong-slug", "write `claude-sonnet-4-6`"),
            (Anthropic, "us.anthropic.claude-opus-4-7", "wrong-slug", "write `claude-opus-4-7`"),
            (Bedrock, "claude-sonnet-4-6", "wrong-slug", "write `us.anthropic.claude-sonnet-4-6`"),
            (
                Vertex,
                "anthropic/claude-haiku-4.5",
                "wrong-slug",
                "write `claude-haiku-4-5@20251001`",
            ),
            (Bedrock, "zai.glm-5", "broken-model", "use a model whose name begins with"),
            (Anthropic, "gpt-5.5", "broken-model", "codex"),
            (OpenRouter, "google/gemini-3-pro", "broken-model", "gemini-cli"),
            (Anthropic, "claude-sonnet-9", "unverified-model", "its cost is unknown"),
            (Anthropic, "--model x", "wrong-slug", "not a model's name"),
        ] {
            let found = found(provider, name);
            assert!(found.contains(code) && found.contains(mend), "{name}: {found}");
        }
    }

    #[test]
    fn the_default_model_is_spelled_for_its_provider() {
        let default = |provider| choose_model(None, RuntimeName::ClaudeCode, provider).name;
        assert_eq!(default(ProviderName::OpenRouter), "anthropic/claude-sonnet-4.6");
        assert_eq!(default(ProviderName::Bedrock), "us.anthropic.claude-sonnet-4-6");
    }
}
