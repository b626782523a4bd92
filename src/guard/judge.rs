//! Looks through a prompt, and says what becomes of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::personal::personal;
use super::texts::{Unreadable, texts};
use super::{GuardAction, GuardFinding, Guardrails};
use crate::secret::{FoundSecret, Redactor};

/// Looks through prompts.
#[derive(Debug, Clone)]
pub struct Guard {
    rails: Guardrails,
    redactor: Redactor,
}

/// What was found in a prompt, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What was found, by kind.
    pub findings: Vec<GuardFinding>,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Passes,
    /// This goes on in its place.
    Masked(Vec<u8>),
    /// It does not go on. The sentence says what was found, and not its value.
    Blocked(String),
}

/// One thing that was found in a text.
struct Hit {
    kind: &'static str,
    range: Range<usize>,
    action: GuardAction,
}

impl Guard {
    /// A guard that also knows the values that `redactor` knows. `None` where nothing is looked for.
    #[must_use]
    pub fn new(rails: Guardrails, redactor: Redactor) -> Option<Self> {
        (!rails.is_off()).then_some(Self { rails, redactor })
    }

    /// Looks through the prompt of a request: messages, system and the results of tools. What is
    /// signed, the tools' definitions and everything else stays as it is, byte for byte.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not JSON, or nested too deep.
    pub fn judge(&self, body: &[u8]) -> Result<Judged, Unreadable> {
        let mut counts: BTreeMap<(&'static str, GuardAction), u64> = BTreeMap::new();
        let mut masked: Option<Vec<u8>> = None;
        let mut done = 0;
        for literal in texts(body)? {
            let (text, is_decoded) = decoded(&body[literal.clone()]);
            let hits = self.hits(&text);
            if hits.is_empty() {
                continue;
            }
            for hit in &hits {
                *counts.entry((hit.kind, hit.action)).or_default() += 1;
            }
            let masked = masked.get_or_insert_with(|| Vec::with_capacity(body.len()));
            masked.extend_from_slice(&body[done..literal.start]);
            masked.extend_from_slice(&encoded(&mask(&text, &hits), is_decoded));
            done = literal.end;
        }
        let verdict = match masked {
            _ if counts.keys().any(|(_, action)| *action == GuardAction::Block) => {
                Verdict::Blocked(sentence(&counts))
            }
            Some(mut masked) => {
                masked.extend_from_slice(&body[done..]);
                Verdict::Masked(masked)
            }
            None => Verdict::Passes,
        };
        let findings = counts.into_iter().map(|((kind, action), count)| GuardFinding {
            kind: kind.to_owned(),
            count,
            action,
        });
        Ok(Judged { findings: findings.collect(), verdict })
    }

    /// What is found in a text, in order; none overlaps another.
    fn hits(&self, text: &str) -> Vec<Hit> {
        let mut hits = Vec::new();
        if self.rails.secrets != GuardAction::Off {
            let found = self.redactor.find(text.as_bytes()).into_iter();
            hits.extend(found.map(|FoundSecret { kind, range }| Hit {
                kind,
                range: on_characters(text, range),
                action: self.rails.secrets,
            }));
        }
        if self.rails.pii != GuardAction::Off {
            let found = personal(text).into_iter();
            hits.extend(found.map(|p| Hit {
                kind: p.kind,
                range: p.range,
                action: self.rails.pii,
            }));
        }
        hits.sort_by_key(|hit| hit.range.start);
        hits.dedup_by(|later, earlier| {
            let overlaps = later.range.start < earlier.range.end;
            if overlaps {
                earlier.range.end = earlier.range.end.max(later.range.end);
                earlier.action = earlier.action.max(later.action);
            }
            overlaps
        });
        hits
    }
}

/// A mask can begin in the middle of a character only where a secret's bytes do.
fn on_characters(text: &str, range: Range<usize>) -> Range<usize> {
    let start = (0..=range.start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let end = (range.end..=text.len()).find(|at| text.is_char_boundary(*at));
    start..end.unwrap_or(text.len())
}

fn mask(text: &str, hits: &[Hit]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for hit in hits {
        masked.push_str(&text[done..hit.range.start]);
        masked.push_str("[redacted:");
        masked.push_str(hit.kind);
        masked.push(']');
        done = hit.range.end;
    }
    masked.push_str(&text[done..]);
    masked
}

/// The text of a literal, and whether that is what it means: a half of a character that needs two
/// means nothing, and is left as it is written.
fn decoded(literal: &[u8]) -> (String, bool) {
    match serde_json::from_slice(literal) {
        Ok(text) => (text, true),
        Err(_) => {
            let inner = &literal[1..literal.len() - 1];
            (String::from_utf8_lossy(inner).into_owned(), false)
        }
    }
}

fn encoded(text: &str, is_decoded: bool) -> Vec<u8> {
    if is_decoded {
        serde_json::Value::from(text).to_string().into_bytes()
    } else {
        format!("\"{text}\"").into_bytes()
    }
}

fn sentence(counts: &BTreeMap<(&'static str, GuardAction), u64>) -> String {
    let blocked = counts.iter().filter(|((_, action), _)| *action == GuardAction::Block);
    let kinds: Vec<String> =
        blocked.map(|((kind, _), n)| format!("{} ({n})", kind.replace('_', " "))).collect();
    format!(
        "the prompt holds what must not leave: {}; a guardrail of this collection or its server \
         stops it",
        kinds.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn guard(secrets: GuardAction, pii: GuardAction) -> Guard {
        let known = Secret::new("made-up-\"value".to_owned());
        Guard::new(Guardrails { secrets, pii }, Redactor::new(&[known])).unwrap()
    }

    const BODY: &str = r#"{ "model":"m", "messages": [ {"role":"user","content":
        "pay 4111 1111 1111 1111 \u00e4 made-up-\"value"}], "tools":[{"description":"4111111111111111"}],
        "metadata": {"user_id":"4111111111111111"} , "max_tokens": 1.50e2 }"#;

    #[test]
    fn what_is_masked_is_all_that_changes() {
        let judged = guard(GuardAction::Mask, GuardAction::Mask).judge(BODY.as_bytes()).unwrap();
        let Verdict::Masked(body) = judged.verdict else { panic!("{judged:?}") };
        let expected = BODY.replace(
            r#"4111 1111 1111 1111 \u00e4 made-up-\"value"#,
            "[redacted:payment_card] ä [redacted:known_secret]",
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        let finding = |kind: &str| GuardFinding {
            kind: kind.to_owned(),
            count: 1,
            action: GuardAction::Mask,
        };
        assert_eq!(judged.findings, [finding("known_secret"), finding("payment_card")]);
    }

    #[test]
    fn what_is_blocked_is_named_and_not_shown() {
        let judged = guard(GuardAction::Mask, GuardAction::Block).judge(BODY.as_bytes()).unwrap();
        let Verdict::Blocked(sentence) = &judged.verdict else { panic!("{judged:?}") };
        assert!(sentence.contains("payment card (1)") && !sentence.contains("4111"), "{sentence}");
        assert_eq!(judged.findings.len(), 2);
    }

    #[test]
    fn each_setting_looks_for_its_own() {
        for (secrets, pii, expected) in [
            (GuardAction::Mask, GuardAction::Off, vec!["known_secret"]),
            (GuardAction::Off, GuardAction::Mask, vec!["payment_card"]),
        ] {
            let judged = guard(secrets, pii).judge(BODY.as_bytes()).unwrap();
            let kinds: Vec<&str> = judged.findings.iter().map(|f| f.kind.as_str()).collect();
            assert_eq!(kinds, expected);
        }
        assert!(Guard::new(Guardrails::default(), Redactor::shapes()).is_none());
        let harmless = br#"{"messages":[{"content":"hello"}]}"#;
        let judged = guard(GuardAction::Block, GuardAction::Block).judge(harmless).unwrap();
        assert_eq!(judged, Judged { findings: vec![], verdict: Verdict::Passes });
    }

    #[test]
    fn what_is_no_text_is_looked_through_as_it_is_written() {
        let body = br#"{"messages":["\ud83d 4111111111111111"]}"#;
        let judged = guard(GuardAction::Off, GuardAction::Mask).judge(body).unwrap();
        let expected = br#"{"messages":["\ud83d [redacted:payment_card]"]}"#.to_vec();
        assert_eq!(judged.verdict, Verdict::Masked(expected));
    }
}
