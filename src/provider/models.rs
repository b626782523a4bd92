//! What is known of models: how each service spells them, which do not work, what they cost.
//!
//! This is data. `docs/providers.md` is made from it, and a test holds the two together.

use crate::run::{ProviderName, RuntimeName};

/// A model that was tried with Claude Code, under its name at each service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// Anthropic's own name, without a date.
    pub name: &'static str,
    /// Its other names: aliases and dated forms at Anthropic's API.
    pub aliases: &'static [&'static str],
    /// Its name at OpenRouter.
    pub openrouter: &'static str,
    /// Its name at Bedrock, in the United States' inference profile.
    pub bedrock: &'static str,
    /// Its name at Vertex AI.
    pub vertex: &'static str,
    /// What it costs.
    pub price: Price,
}

/// List prices in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Input that did not touch the cache.
    pub input: f64,
    /// Output.
    pub output: f64,
}

/// Where the prices come from and when they were read.
pub const PRICE_SOURCE: &str =
    "the list prices in Claude Code 2.1.126 (built 2026-04-30) for Anthropic's API";

/// What writing to the cache for five minutes costs, as a multiple of input.
pub(super) const CACHE_WRITE_5M: f64 = 1.25;

/// What writing to the cache for an hour costs, as a multiple of input.
pub(super) const CACHE_WRITE_1H: f64 = 2.0;

/// What reading from the cache costs, as a multiple of input.
pub(super) const CACHE_READ: f64 = 0.1;

/// What a search costs that a model service makes itself, in dollars.
pub const WEB_SEARCH: f64 = 0.01;

/// The models that were tried.
pub const MODELS: &[Model] = &[
    Model {
        name: "claude-sonnet-4-6",
        aliases: &["sonnet"],
        openrouter: "anthropic/claude-sonnet-4.6",
        bedrock: "us.anthropic.claude-sonnet-4-6",
        vertex: "claude-sonnet-4-6",
        price: Price { input: 3.0, output: 15.0 },
    },
    Model {
        name: "claude-sonnet-4-5",
        aliases: &["claude-sonnet-4-5-20250929"],
        openrouter: "anthropic/claude-sonnet-4.5",
        bedrock: "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        vertex: "claude-sonnet-4-5@20250929",
        price: Price { input: 3.0, output: 15.0 },
    },
    Model {
        name: "claude-opus-4-7",
        aliases: &["opus"],
        openrouter: "anthropic/claude-opus-4.7",
        bedrock: "us.anthropic.claude-opus-4-7",
        vertex: "claude-opus-4-7",
        price: Price { input: 5.0, output: 25.0 },
    },
    Model {
        name: "claude-haiku-4-5",
        aliases: &["haiku", "claude-haiku-4-5-20251001"],
        openrouter: "anthropic/claude-haiku-4.5",
        bedrock: "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        vertex: "claude-haiku-4-5@20251001",
        price: Price { input: 1.0, output: 5.0 },
    },
];

/// Models that do not work with an agent, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The agent.
    pub runtime: RuntimeName,
    /// The provider; `None` is every one.
    pub provider: Option<ProviderName>,
    /// What the model's name begins with.
    pub holds: &'static str,
    /// Why it does not work, as a fragment.
    pub why: &'static str,
    /// What to use instead, as a fragment.
    pub instead: &'static str,
}

/// The models that are known not to work.
pub const BROKEN: &[Broken] = &[
    bedrock("zai."),
    bedrock("nvidia."),
    bedrock("deepseek."),
    bedrock("qwen."),
    bedrock("meta."),
    foreign(
        "gpt-",
        "an Anthropic model; this one's own agent is codex, which this version does not run",
    ),
    foreign(
        "gemini-",
        "an Anthropic model; this one's own agent is gemini-cli, which this version does not run",
    ),
];

const fn bedrock(holds: &'static str) -> Broken {
    Broken {
        runtime: RuntimeName::ClaudeCode,
        provider: Some(ProviderName::Bedrock),
        holds,
        why: "Bedrock refuses the metadata that Claude Code sends along for other makers' models",
        instead: "a model whose name begins with `us.anthropic.`",
    }
}

const fn foreign(holds: &'static str, instead: &'static str) -> Broken {
    Broken {
        runtime: RuntimeName::ClaudeCode,
        provider: None,
        holds,
        why: "Claude Code speaks Anthropic's API, and this model does not",
        instead,
    }
}

impl Broken {
    /// The row that speaks of a model.
    #[must_use]
    pub fn find(
        runtime: RuntimeName,
        provider: ProviderName,
        model: &str,
    ) -> Option<&'static Self> {
        // Routers write the maker before a slash.
        let bare = model.rsplit('/').next().unwrap_or(model);
        BROKEN.iter().find(|row| {
            row.runtime == runtime
                && row.provider.is_none_or(|only| only == provider)
                && bare.starts_with(row.holds)
        })
    }
}

impl Model {
    /// Its name at a provider.
    #[must_use]
    pub fn at(&self, provider: ProviderName) -> &'static str {
        match provider {
            ProviderName::Anthropic | ProviderName::Scripted => self.name,
            ProviderName::OpenRouter => self.openrouter,
            ProviderName::Bedrock => self.bedrock,
            ProviderName::Vertex => self.vertex,
        }
    }
}

impl Model {
    /// The model that a name means, in whatever service's spelling.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        let name = name.strip_suffix(LARGE_WINDOW).unwrap_or(name);
        let bare = canonical(name);
        MODELS.iter().find(|model| {
            model.name == bare || model.aliases.contains(&name) || canonical(model.bedrock) == bare
        })
    }
}

/// What Claude Code reads as a wish for a window of a million tokens. It is no part of the name.
pub(super) const LARGE_WINDOW: &str = "[1m]";

/// A name without its service's decorations: region and maker before it, date and version behind
/// it, dots in the version.
fn canonical(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.rsplit_once("anthropic.").map_or(name, |(_, name)| name);
    let name = name.split('@').next().unwrap_or(name);
    let name = name.split("-v1:").next().unwrap_or(name);
    let name = match name.rsplit_once('-') {
        Some((name, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => name,
    };
    name.replace('.', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_model_means_that_model() {
        for model in MODELS {
            let names = [model.name, model.openrouter, model.bedrock, model.vertex];
            for name in names.iter().chain(model.aliases) {
                assert_eq!(Model::find(name), Some(model), "{name}");
            }
        }
        for name in [
            "eu.anthropic.claude-sonnet-4-6",
            "global.anthropic.claude-sonnet-4-6-20260115-v1:0",
            "claude-sonnet-4-6[1m]",
            "anthropic/claude-sonnet-4-6",
        ] {
            assert_eq!(Model::find(name).map(|m| m.name), Some("claude-sonnet-4-6"), "{name}");
        }
        for name in ["gpt-5.5", "claude-sonnet-9", "", "zai.glm-5"] {
            assert_eq!(Model::find(name), None, "{name}");
        }
    }
}
