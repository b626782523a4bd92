//! Which service a request is for, and with which key.

use reqwest::header::HeaderValue;
use url::{Host, Url};

use super::service::Service;
use crate::provider::Model;
use crate::reach::Reach;
use crate::run::ProviderName;
use crate::secret::{Keyring, Secret};

/// The keys that a request can draw on.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    /// The collection's own.
    pub own: &'a Keyring,
    /// The operator's, where they are shared.
    pub shared: Option<&'a Keyring>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The service.
    pub service: Service,
    /// What completions are asked of.
    pub url: Url,
    /// The key, which goes there and nowhere else.
    pub key: Secret,
}

/// The endpoint that a request means: of the named provider, else of the one whose model it names.
///
/// # Errors
/// A sentence that says what to set or to write.
pub fn choose(
    named: Option<&str>,
    model: &str,
    keys: Keys<'_>,
    reach: Reach,
) -> Result<Endpoint, String> {
    if let Some(word) = named {
        let service = Service::from_word(word).ok_or_else(|| unknown_provider(word))?;
        return at(service, keys, reach)?.ok_or_else(|| no_key(service));
    }
    if let Some(service) = Service::of_model(model) {
        if let Some(endpoint) = at(service, keys, reach)? {
            return Ok(endpoint);
        }
        return elsewhere(service, model, keys, reach);
    }
    // The name tells nothing: whoever has a key is meant, if that is one alone.
    let mut found = Vec::new();
    for service in Service::ALL {
        found.extend(at(service, keys, reach)?);
    }
    match (found.pop(), found.is_empty()) {
        (Some(endpoint), true) => Ok(endpoint),
        (Some(_), false) => Err(format!(
            "The model `{model}` does not tell its provider, and there are keys for several: name \
             one of `{}` in `jetty.model_provider`",
            words()
        )),
        (None, _) => Err(format!(
            "There is no key for any model provider: set one of `{}` in the collection's \
             environment",
            Service::ALL.map(|service| service.keys()[0]).join("`, `")
        )),
    }
}

/// Whether a collection reaches a service.
pub(super) fn has_key(service: Service, keys: Keys<'_>) -> bool {
    [Some(keys.own), keys.shared]
        .into_iter()
        .flatten()
        .any(|keyring| key(service, keyring).is_some())
}

/// The model's own service has no key. Another one may have the model, under another name.
fn elsewhere(
    service: Service,
    model: &str,
    keys: Keys<'_>,
    reach: Reach,
) -> Result<Endpoint, String> {
    // A server of one's own that speaks as OpenAI has models of any name.
    let is_moved = |keyring: &Keyring| keyring.get(Service::OpenAi.base_variable()).is_some();
    if has_key(Service::OpenAi, keys)
        && [Some(keys.own), keys.shared].into_iter().flatten().any(is_moved)
        && let Some(endpoint) = at(Service::OpenAi, keys, reach)?
    {
        return Ok(endpoint);
    }
    let known = Model::find(model);
    let hint = match (service, known) {
        (Service::OpenRouter, Some(known)) if has_key(Service::Anthropic, keys) => {
            format!(", or ask Anthropic for `{}`", known.at(ProviderName::Anthropic))
        }
        (Service::OpenRouter, _) => String::new(),
        (_, Some(known)) if has_key(Service::OpenRouter, keys) => {
            format!(", or ask OpenRouter for `{}`", known.at(ProviderName::OpenRouter))
        }
        (_, None) if has_key(Service::OpenRouter, keys) => {
            format!(", or ask OpenRouter for `{}/{model}`", service.word())
        }
        (Service::OpenAi | Service::Anthropic | Service::Google, _) => String::new(),
    };
    Err(format!("The model `{model}` is one of {}'s: {}{hint}", service.word(), no_key(service)))
}

/// A service with its key, where there is one.
fn at(service: Service, keys: Keys<'_>, reach: Reach) -> Result<Option<Endpoint>, String> {
    let variable = service.base_variable();
    let (keyring, found) = match (key(service, keys.own), keys.shared) {
        (Some(found), _) => (keys.own, found),
        (None, Some(shared)) => match key(service, shared) {
            // Who can move the address would get the operator's key.
            Some((name, _)) if keys.own.get(variable).is_some() => {
                return Err(format!(
                    "{variable} is the collection's, and the server's own {name} is not sent to \
                     another address: set {name} in the collection too"
                ));
            }
            Some(found) => (shared, found),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let (name, key) = found;
    let base = keyring.get(variable).map(|value| value.expose().to_owned());
    let url = address(&service.completions(base.as_deref()), reach)
        .map_err(|why| format!("{variable} {why}"))?;
    let key = Secret::new(key.expose().trim().to_owned());
    if HeaderValue::from_str(key.expose()).is_err() {
        return Err(format!("{name} has characters that no key has: set it again"));
    }
    Ok(Some(Endpoint { service, url, key }))
}

fn key(service: Service, keyring: &Keyring) -> Option<(&'static str, &Secret)> {
    let is_there = |name: &&'static str| {
        keyring.get(name).filter(|value| !value.expose().trim().is_empty()).map(|v| (*name, v))
    };
    service.keys().iter().find_map(is_there)
}

/// Reads an address. A host that is a name is looked at again when it is called. What is wrong is a
/// fragment; the value is not repeated, for it may hold a token.
fn address(text: &str, reach: Reach) -> Result<Url, &'static str> {
    let shape = "is not a base URL: write one such as https://gateway.example.org/v1, without a \
                 password, `?` or `#` in it";
    let url = Url::parse(text).map_err(|_| shape)?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    if !is_plain || url.query().is_some() || url.fragment().is_some() {
        return Err(shape);
    }
    let is_permitted = match url.host() {
        Some(Host::Ipv4(address)) => reach.permits(address.into()),
        Some(Host::Ipv6(address)) => reach.permits(address.into()),
        Some(Host::Domain(_)) => true,
        None => return Err(shape),
    };
    match url.scheme() {
        _ if !is_permitted => {
            Err("leads to a private address: the server's operator can allow that \
             (RUNBOOKD_UPSTREAM_PRIVATE=1)")
        }
        "https" => Ok(url),
        // In one's own network, where there may be no certificates.
        "http" if reach == Reach::Private => Ok(url),
        "http" => Err(
            "must begin with `https://`, or the key could be read on its way (the server's operator \
             can allow `http://` with RUNBOOKD_UPSTREAM_PRIVATE=1)",
        ),
        _ => Err(shape),
    }
}

fn unknown_provider(word: &str) -> String {
    let word: String = word.chars().take(64).collect();
    format!(
        "The model provider `{word}` cannot be reached by chat: write one of `{}` into \
         `jetty.model_provider`, or leave it out",
        words()
    )
}

fn no_key(service: Service) -> String {
    let keys = service.keys().join("` or `");
    format!("set `{keys}` in the collection's environment")
}

fn words() -> String {
    Service::ALL.map(Service::word).join("`, `")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(vars: &[(&str, &str)]) -> Keyring {
        vars.iter().map(|(n, v)| ((*n).to_owned(), Secret::new((*v).to_owned()))).collect()
    }

    fn chosen(
        (named, model): (Option<&str>, &str),
        own: &[(&str, &str)],
        shared: Option<&[(&str, &str)]>,
        reach: Reach,
    ) -> String {
        let (own, shared) = (keyring(own), shared.map(keyring));
        let keys = Keys { own: &own, shared: shared.as_ref() };
        match choose(named, model, keys, reach) {
            Ok(endpoint) => {
                format!("{} {} {}", endpoint.service.word(), endpoint.url, endpoint.key.expose())
            }
            Err(why) => why,
        }
    }

    const OPENAI: (&str, &str) = ("OPENAI_API_KEY", "sk-made-up");
    const CLAUDE: (&str, &str) = ("ANTHROPIC_API_KEY", "sk-ant-made-up\n");
    const ROUTER: (&str, &str) = ("OPENROUTER_API_KEY", "sk-or-made-up");
    const GEMINI: (&str, &str) = ("GEMINI_API_KEY", "AIza-made-up");

    #[test]
    fn a_request_goes_to_the_named_provider_or_to_the_one_of_its_model() {
        let all = [OPENAI, CLAUDE, ROUTER, GEMINI];
        for (named, model, keys, expected) in [
            (None, "gpt-5.5", &all[..], "openai https://api.openai.com/v1/chat"),
            (None, "o3-mini", &all, "openai "),
            (None, "claude-sonnet-4-6", &all, "anthropic https://api.anthropic.com/v1/chat"),
            (None, "gemini-3-pro", &all, "google "),
            (None, "openai/gpt-5.5", &all, "openrouter https://openrouter.ai/api/v1/chat"),
            (Some("openrouter"), "gpt-5.5", &all, "openrouter "),
            (Some("gemini"), "gpt-5.5", &all, "google "),
            (None, "llama3", &[CLAUDE], "anthropic "),
            (None, "llama3", &all, "The model `llama3` does not tell its provider"),
            (None, "llama3", &[], "There is no key for any model provider: set one of `OPENROUTER"),
            (Some("bedrock"), "x", &all, "The model provider `bedrock` cannot be reached by chat"),
            (Some("openai"), "x", &[CLAUDE], "set `OPENAI_API_KEY` in the collection's"),
            (Some("google"), "x", &[], "set `GEMINI_API_KEY` or `GOOGLE_API_KEY` in the"),
        ] {
            let found = chosen((named, model), keys, None, Reach::Public);
            assert!(found.starts_with(expected), "{named:?} {model}: {found}");
        }
        let found = chosen((None, "claude-sonnet-4-6"), &[CLAUDE], None, Reach::Public);
        assert!(found.ends_with(" sk-ant-made-up"), "a line break is no part of a key: {found}");
    }

    #[test]
    fn where_a_models_own_service_has_no_key_the_right_name_elsewhere_is_offered() {
        for (model, keys, expected) in [
            ("gpt-5.5", &[ROUTER][..], "or ask OpenRouter for `openai/gpt-5.5`"),
            ("claude-sonnet-4-6", &[ROUTER], "or ask OpenRouter for `anthropic/claude-sonnet-4.6`"),
            ("anthropic/claude-opus-4.7", &[CLAUDE], "or ask Anthropic for `claude-opus-4-7`"),
            ("gpt-5.5", &[CLAUDE], "set `OPENAI_API_KEY` in the collection's environment"),
        ] {
            let found = chosen((None, model), keys, None, Reach::Public);
            assert!(found.ends_with(expected), "{model}: {found}");
        }
        // A server of one's own has models of any name.
        let own = [OPENAI, ("OPENAI_BASE_URL", "https://h.example/v1")];
        let found = chosen((None, "meta-llama/Llama-3"), &own, None, Reach::Public);
        assert_eq!(found, "openai https://h.example/v1/chat/completions sk-made-up");
    }

    #[test]
    fn the_operators_key_goes_to_the_operators_address_alone() {
        let ask = ("openai", "gpt-5.5");
        let shared = [OPENAI, ("OPENAI_BASE_URL", "https://h.example/v1")];
        let go =
            |own: &[(&str, &str)]| chosen((Some(ask.0), ask.1), own, Some(&shared), Reach::Public);
        assert_eq!(go(&[]), "openai https://h.example/v1/chat/completions sk-made-up");
        // The collection's own key does not take the operator's address along.
        assert!(go(&[("OPENAI_API_KEY", "sk-own")]).starts_with("openai https://api.openai.com/"));
        let moved = go(&[("OPENAI_BASE_URL", "https://evil.example/v1")]);
        assert!(
            moved.starts_with("OPENAI_BASE_URL is the collection's, and the server's"),
            "{moved}"
        );
    }

    #[test]
    fn an_address_leads_to_public_hosts_over_tls_unless_the_operator_says_otherwise() {
        for (base, public, private) in [
            ("https://h.example/v1", true, true),
            ("http://h.example/v1", false, true),
            ("https://127.0.0.1:8080", false, true),
            ("http://[::1]:8080/v1", false, true),
            ("https://169.254.169.254", false, true),
            ("https://user:made-up@h.example", false, false),
            ("https://h.example/v1?key=made-up", false, false),
            ("ftp://h.example", false, false),
            ("made-up", false, false),
        ] {
            for (reach, is_legal) in [(Reach::Public, public), (Reach::Private, private)] {
                let own = [OPENAI, ("OPENAI_BASE_URL", base)];
                let found = chosen((Some("openai"), "x"), &own, None, reach);
                assert_eq!(found.starts_with("openai "), is_legal, "{base}: {found}");
                assert!(is_legal || found.starts_with("OPENAI_BASE_URL "), "{found}");
                assert!(is_legal || !found.contains("made-up"), "a value is shown: {found}");
            }
        }
    }
}
