//! Which providers could be reached with what is in the environment. Variables are named; no value
//! is looked at beyond what a run's own checks do, and none is shown.

use super::access::{access, credentials};
use super::selection::choose_provider;
use crate::run::{Check, Finding, ProviderName, RuntimeName};
use crate::secret::Keyring;

/// Names the file with a service account's key. Its text is a credential of its own.
const KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// The check over all providers.
const ALL: &str = "providers";

/// A check over all providers, and one for each.
#[must_use]
pub fn examine(keyring: &Keyring) -> Vec<Check> {
    let can_run = |provider: &ProviderName| {
        *provider != ProviderName::Scripted
            && access(*provider, RuntimeName::ClaudeCode, keyring).is_ok()
    };
    let ready: Vec<ProviderName> = ProviderName::ALL.into_iter().filter(can_run).collect();
    let mut checks = vec![all(&ready, keyring)];
    checks.extend(ProviderName::ALL.map(|provider| one(provider, keyring)));
    checks
}

fn all(ready: &[ProviderName], keyring: &Keyring) -> Check {
    let names: Vec<&str> = ready.iter().map(|provider| provider.as_str()).collect();
    if names.is_empty() {
        return Check::warning(
            ALL,
            "only the scripted model can run: no other provider has what it needs",
            "export ANTHROPIC_API_KEY=…, or with a subscription CLAUDE_CODE_OAUTH_TOKEN=… from `claude setup-token`; docs/providers.md has the others. Without any: `runbookd demo`.",
        );
    }
    let names = names.join(", ");
    match choose_provider(None, RuntimeName::ClaudeCode, keyring) {
        Ok(default) if ready.contains(&default) => {
            let default = default.as_str();
            Check::ok(
                ALL,
                format!("{names} can run; a runbook that names none is run with {default}"),
            )
        }
        Ok(default) => {
            let default = default.as_str();
            Check::warning(
                ALL,
                format!("{names} can run, but a runbook that names none is run with {default}"),
                "Name one: `model_provider:` in the runbook, or `--model-provider`.",
            )
        }
        // Nothing is named, so there is nothing that could be unknown.
        Err(finding) => Check::warning(ALL, finding.sentence(), "Name one in the runbook."),
    }
}

fn one(provider: ProviderName, keyring: &Keyring) -> Check {
    let name = check_name(provider);
    let set: Vec<&str> =
        credentials(provider).iter().copied().filter(|v| keyring.get(v).is_some()).collect();
    match access(provider, RuntimeName::ClaudeCode, keyring) {
        Ok(_) if provider == ProviderName::Scripted => {
            Check::ok(name, "needs no credential; `--script FILE` gives its answers")
        }
        Ok(access) => Check::ok(name, format!("set: {}", set.join(", ")))
            .noting(access.findings.iter().map(Finding::sentence).collect()),
        Err(_) if set.is_empty() && !is_begun(provider, keyring) => Check {
            mend: Some(format!("Set {} to use it.", credentials(provider).join(" or "))),
            ..Check::skipped(name, "no credential is set")
        },
        Err(_) if set.is_empty() && provider == ProviderName::Vertex => Check::warning(
            name,
            format!("{KEY_FILE} names a file that cannot be read"),
            format!("Check its path and rights: ls -l \"${KEY_FILE}\""),
        ),
        Err(findings) => {
            let said = findings.iter().map(|finding| parted(&finding.message));
            let (found, mend): (Vec<&str>, Vec<&str>) = said.unzip();
            Check::warning(name, found.join("; "), mend.join("; "))
        }
    }
}

/// Whether somebody began to set a provider up with a variable that is none of the credentials:
/// half of a pair, or the name of a file whose text did not become one.
fn is_begun(provider: ProviderName, keyring: &Keyring) -> bool {
    match provider {
        ProviderName::Bedrock => keyring.get("AWS_SECRET_ACCESS_KEY").is_some(),
        ProviderName::Vertex => keyring.get(KEY_FILE).is_some(),
        ProviderName::Anthropic | ProviderName::OpenRouter | ProviderName::Scripted => false,
    }
}

/// What is wrong and what to do, which a finding's message holds in this order.
fn parted(message: &str) -> (&str, &str) {
    message.rsplit_once(": ").unwrap_or((message, "docs/providers.md says what it needs"))
}

fn check_name(provider: ProviderName) -> &'static str {
    match provider {
        ProviderName::Anthropic => "provider-anthropic",
        ProviderName::Bedrock => "provider-bedrock",
        ProviderName::OpenRouter => "provider-openrouter",
        ProviderName::Vertex => "provider-vertex",
        ProviderName::Scripted => "provider-scripted",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    fn told(vars: &[(&str, &str)]) -> String {
        let keyring: Keyring =
            vars.iter().map(|&(n, v)| (n.to_owned(), Secret::new(v.to_owned()))).collect();
        let line = |check: Check| {
            let Check { name, status, found, mend, notes } = check;
            format!("{name} {status:?}: {found} | {} {notes:?}\n", mend.unwrap_or_default())
        };
        examine(&keyring).into_iter().map(line).collect()
    }

    #[test]
    fn each_provider_says_what_it_has_and_what_it_wants() {
        expect![[r#"
            providers Warning: only the scripted model can run: no other provider has what it needs | export ANTHROPIC_API_KEY=…, or with a subscription CLAUDE_CODE_OAUTH_TOKEN=… from `claude setup-token`; docs/providers.md has the others. Without any: `runbookd demo`. []
            provider-anthropic Skipped: no credential is set | Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN or ANTHROPIC_AUTH_TOKEN to use it. []
            provider-bedrock Skipped: no credential is set | Set AWS_BEARER_TOKEN_BEDROCK or AWS_ACCESS_KEY_ID to use it. []
            provider-openrouter Skipped: no credential is set | Set OPENROUTER_API_KEY to use it. []
            provider-vertex Skipped: no credential is set | Set GOOGLE_APPLICATION_CREDENTIALS_JSON or CLAUDE_CODE_SKIP_VERTEX_AUTH to use it. []
            provider-scripted Ok: needs no credential; `--script FILE` gives its answers |  []
        "#]].assert_eq(&told(&[]));
        let mixed = [
            ("ANTHROPIC_API_KEY", "sk-ant-made-up-key"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-made-up"),
            ("AWS_SECRET_ACCESS_KEY", "made-up-secret"),
            ("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1"),
        ];
        expect![[r#"
            providers Ok: anthropic can run; a runbook that names none is run with anthropic |  []
            provider-anthropic Ok: set: ANTHROPIC_API_KEY, CLAUDE_CODE_OAUTH_TOKEN |  ["ANTHROPIC_API_KEY and CLAUDE_CODE_OAUTH_TOKEN are both set; the key is used."]
            provider-bedrock Warning: AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID | set both []
            provider-openrouter Skipped: no credential is set | Set OPENROUTER_API_KEY to use it. []
            provider-vertex Warning: there is no project for vertex; CLAUDE_CODE_SKIP_VERTEX_AUTH is for a gateway that signs | set ANTHROPIC_VERTEX_PROJECT_ID or GOOGLE_CLOUD_PROJECT; set ANTHROPIC_VERTEX_BASE_URL to its address []
            provider-scripted Ok: needs no credential; `--script FILE` gives its answers |  []
        "#]].assert_eq(&told(&mixed));
    }

    #[test]
    fn a_default_without_credentials_is_told_from_what_can_run() {
        let vars = [
            ("OPENROUTER_API_KEY", "sk-or-made-up"),
            ("OPENROUTER_BASE_URL", "nowhere"),
            ("ANTHROPIC_API_KEY", "sk-ant-made-up-key"),
        ];
        expect!["providers Warning: anthropic can run, but a runbook that names none is run with openrouter | Name one: `model_provider:` in the runbook, or `--model-provider`. []"].assert_eq(told(&vars).lines().next().unwrap());
    }

    #[test]
    fn a_key_file_that_cannot_be_read_is_told_from_none() {
        let text = told(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/made-up.json")]);
        let line = text.lines().find(|line| line.starts_with("provider-vertex")).unwrap();
        expect![[r#"provider-vertex Warning: GOOGLE_APPLICATION_CREDENTIALS names a file that cannot be read | Check its path and rights: ls -l "$GOOGLE_APPLICATION_CREDENTIALS" []"#]].assert_eq(line);
    }

    proptest! {
        /// Every variable of a provider holds something that no sentence of ours holds.
        #[test]
        fn no_value_is_shown(values in proptest::collection::vec("[QZXJ]{6,12}", 16)) {
            let names = [
                "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN",
                "ANTHROPIC_BASE_URL", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION",
                "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "CLAUDE_CODE_SKIP_VERTEX_AUTH",
                "GOOGLE_APPLICATION_CREDENTIALS_JSON", "ANTHROPIC_VERTEX_PROJECT_ID",
                "ANTHROPIC_VERTEX_BASE_URL", "CLOUD_ML_REGION",
            ];
            let vars: Vec<(&str, &str)> =
                names.into_iter().zip(values.iter().map(String::as_str)).collect();
            // All at once, and each alone: different branches speak.
            let mut texts = vec![told(&vars)];
            texts.extend(vars.iter().map(|&var| told(&[var])));
            for (text, value) in texts.iter().flat_map(|t| values.iter().map(move |v| (t, v))) {
                for part in value.as_bytes().windows(3) {
                    let part = std::str::from_utf8(part).unwrap();
                    prop_assert!(!text.contains(part), "{part}: {text}");
                }
            }
        }
    }
}
