//! The models that are known to be within reach of some keys.

use super::choose::{Keys, has_key};
use super::service::Service;
use crate::provider::{MODELS, access};
use crate::run::{ProviderName, RuntimeName};

/// A model that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Its name, as that provider spells it.
    pub id: &'static str,
    /// The provider.
    pub provider: &'static str,
}

/// The known models within reach, each once. A service has others too; nobody asks it.
#[must_use]
pub fn offers(keys: Keys<'_>) -> Vec<Offer> {
    let reaches = |provider: ProviderName| {
        let can_run = |keyring| access(provider, RuntimeName::ClaudeCode, keyring).is_ok();
        let by_chat = Service::from_word(provider.as_str());
        [Some(keys.own), keys.shared].into_iter().flatten().any(can_run)
            || by_chat.is_some_and(|service| has_key(service, keys))
    };
    let mut offers: Vec<Offer> = Vec::new();
    for provider in ProviderName::ALL {
        // The scripted model is anybody's, and no model.
        if provider == ProviderName::Scripted || !reaches(provider) {
            continue;
        }
        for model in MODELS {
            let offer = Offer { id: model.at(provider), provider: provider.as_str() };
            if offers.iter().all(|other| other.id != offer.id) {
                offers.push(offer);
            }
        }
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Keyring, Secret};

    fn told(own: &[&str], shared: Option<&[&str]>) -> String {
        let keyring = |names: &[&str]| -> Keyring {
            let made_up = || Secret::new("sk-ant-made-up".to_owned());
            names.iter().map(|name| ((*name).to_owned(), made_up())).collect()
        };
        let (own, shared) = (keyring(own), shared.map(keyring));
        let offers = offers(Keys { own: &own, shared: shared.as_ref() });
        let first = offers.iter().find(|offer| offer.id.contains("sonnet-4"));
        let providers: std::collections::BTreeSet<&str> =
            offers.iter().map(|offer| offer.provider).collect();
        format!("{} {:?} {providers:?}", offers.len(), first.map(|offer| offer.id))
    }

    #[test]
    fn the_models_of_every_provider_with_a_key_are_offered() {
        let n = MODELS.len();
        for (own, shared, expected) in [
            (&[][..], None, "0 None {}".to_owned()),
            (&["OPENAI_API_KEY"], None, "0 None {}".to_owned()),
            (
                &["ANTHROPIC_API_KEY"],
                None,
                format!("{n} Some(\"claude-sonnet-4-6\") {{\"anthropic\"}}"),
            ),
            (
                &["OPENROUTER_API_KEY", "ANTHROPIC_API_KEY"],
                None,
                format!("{} Some(\"claude-sonnet-4-6\") {{\"anthropic\", \"openrouter\"}}", 2 * n),
            ),
            (
                &[],
                Some(&["OPENROUTER_API_KEY"][..]),
                format!("{n} Some(\"anthropic/claude-sonnet-4.6\") {{\"openrouter\"}}"),
            ),
        ] {
            assert_eq!(told(own, shared), expected);
        }
    }
}
