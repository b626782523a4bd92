//! The services, and where each one's key and address stand.

/// A model service that speaks OpenAI's Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// OpenRouter, which passes on to others.
    OpenRouter,
    /// OpenAI, or whoever speaks as it does.
    OpenAi,
    /// Anthropic's endpoint for OpenAI's clients.
    Anthropic,
    /// Google's endpoint for OpenAI's clients.
    Google,
}

/// What is known of a service.
struct Facts {
    word: &'static str,
    /// Where its key can stand, the usual place first.
    keys: &'static [&'static str],
    base_variable: &'static str,
    base: &'static str,
    /// What comes between the address that a variable may have and `/chat/completions`, whether the
    /// variable's value ends in it or not.
    version: &'static str,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 4] = [Self::OpenRouter, Self::OpenAi, Self::Anthropic, Self::Google];

    fn facts(self) -> Facts {
        match self {
            Self::OpenRouter => Facts {
                word: "openrouter",
                keys: &["OPENROUTER_API_KEY"],
                base_variable: "OPENROUTER_BASE_URL",
                base: "https://openrouter.ai/api",
                version: "/v1",
            },
            Self::OpenAi => Facts {
                word: "openai",
                keys: &["OPENAI_API_KEY"],
                base_variable: "OPENAI_BASE_URL",
                base: "https://api.openai.com/v1",
                // OpenAI's clients append to this variable as it is, and so do we.
                version: "",
            },
            Self::Anthropic => Facts {
                word: "anthropic",
                keys: &["ANTHROPIC_API_KEY"],
                base_variable: "ANTHROPIC_BASE_URL",
                base: "https://api.anthropic.com",
                version: "/v1",
            },
            Self::Google => Facts {
                word: "google",
                keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
                base_variable: "GEMINI_BASE_URL",
                base: "https://generativelanguage.googleapis.com/v1beta/openai",
                version: "",
            },
        }
    }

    /// The word that requests name it by.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.facts().word
    }

    /// The service that a request's word means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let word = if word == "gemini" { "google" } else { word };
        Self::ALL.into_iter().find(|service| service.word() == word)
    }

    /// The variables in which its key can stand, the usual one first.
    #[must_use]
    pub fn keys(self) -> &'static [&'static str] {
        self.facts().keys
    }

    /// The variable that moves its address.
    #[must_use]
    pub fn base_variable(self) -> &'static str {
        self.facts().base_variable
    }

    /// The URL that completions are asked of, at the usual address or at another one.
    pub(super) fn completions(self, base: Option<&str>) -> String {
        let facts = self.facts();
        let base = base.unwrap_or(facts.base).trim().trim_end_matches('/');
        let base = base.strip_suffix(facts.version).unwrap_or(base).trim_end_matches('/');
        format!("{base}{}/chat/completions", facts.version)
    }

    /// The service whose own models have such a name; `None` where the name does not tell.
    pub(super) fn of_model(model: &str) -> Option<Self> {
        let begins = |starts: &[&str]| starts.iter().any(|start| model.starts_with(start));
        if model.contains('/') && !begins(&["models/"]) {
            Some(Self::OpenRouter)
        } else if begins(&["gpt-", "chatgpt-", "o1", "o3", "o4"]) {
            Some(Self::OpenAi)
        } else if begins(&["claude-"]) {
            Some(Self::Anthropic)
        } else if begins(&["gemini-", "models/gemini-", "gemma-"]) {
            Some(Self::Google)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_asked_where_its_variable_says() {
        for (service, base, expected) in [
            (Service::OpenRouter, None, "https://openrouter.ai/api/v1/chat/completions"),
            (Service::OpenAi, None, "https://api.openai.com/v1/chat/completions"),
            (Service::Anthropic, None, "https://api.anthropic.com/v1/chat/completions"),
            (
                Service::Google,
                None,
                "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
            ),
            (Service::OpenRouter, Some("https://h/api/v1/"), "https://h/api/v1/chat/completions"),
            (Service::OpenRouter, Some("https://h/api"), "https://h/api/v1/chat/completions"),
            (Service::OpenAi, Some("https://h/v1/"), "https://h/v1/chat/completions"),
            (Service::OpenAi, Some("https://h/openai"), "https://h/openai/chat/completions"),
            (Service::Anthropic, Some("https://h"), "https://h/v1/chat/completions"),
            (Service::Anthropic, Some("https://h/v1"), "https://h/v1/chat/completions"),
        ] {
            assert_eq!(service.completions(base), expected);
        }
    }

    #[test]
    fn a_word_means_its_service() {
        for service in Service::ALL {
            assert_eq!(Service::from_word(service.word()), Some(service));
        }
        assert_eq!(Service::from_word("gemini"), Some(Service::Google));
        assert_eq!(Service::from_word("bedrock"), None);
    }
}
