//! Looks through a prompt, and says what becomes of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::personal::personal;
use super::texts::{Form, Literal, Unreadable, arguments, said, texts};
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

/// What was found so far.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<(&'static str, GuardAction), u64>,
    /// How many keys were masked. From the second on they are numbered: two members of an object that
    /// have one name are one.
    n_keys: u64,
}

impl Guard {
    /// A guard that also knows the values that `redactor` knows. `None` where nothing is looked for.
    #[must_use]
    pub fn new(rails: Guardrails, redactor: Redactor) -> Option<Self> {
        (!rails.is_off()).then_some(Self { rails, redactor })
    }

    /// Looks through the prompt of a request: messages, system, what tools were called with and what
    /// they gave. What is signed, the tools' definitions and everything else stays as it is, byte for
    /// byte.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not JSON, or nested too deep.
    pub fn judge(&self, body: &[u8]) -> Result<Judged, Unreadable> {
        let mut tally = Tally::default();
        let masked = self.masked(body, texts(body)?, &mut tally);
        let Tally { counts, .. } = tally;
        let verdict = match masked {
            _ if counts.keys().any(|(_, action)| *action == GuardAction::Block) => {
                Verdict::Blocked(sentence(&counts))
            }
            Some(masked) => Verdict::Masked(masked),
            None => Verdict::Passes,
        };
        let findings = counts.into_iter().map(|((kind, action), count)| GuardFinding {
            kind: kind.to_owned(),
            count,
            action,
        });
        Ok(Judged { findings: findings.collect(), verdict })
    }

    /// The JSON with masks for what is found in its literals; `None` where nothing is.
    fn masked(&self, json: &[u8], literals: Vec<Literal>, tally: &mut Tally) -> Option<Vec<u8>> {
        let mut masked = Vec::new();
        let mut done = 0;
        for Literal { form, range } in literals {
            if let Some(instead) = self.instead(&json[range.clone()], form, tally) {
                masked.extend_from_slice(&json[done..range.start]);
                masked.extend_from_slice(instead.as_bytes());
                done = range.end;
            }
        }
        if done == 0 {
            return None;
        }
        masked.extend_from_slice(&json[done..]);
        Some(masked)
    }

    /// What goes on in the place of a literal; `None` where nothing is found in it.
    fn instead(&self, literal: &[u8], form: Form, tally: &mut Tally) -> Option<String> {
        let text = match form {
            Form::Text | Form::Json | Form::Key => said(literal),
            Form::Number => String::from_utf8_lossy(literal).into_owned(),
        };
        if let (Form::Json, Ok(literals)) = (form, arguments(text.as_bytes())) {
            let masked = self.masked(text.as_bytes(), literals, tally)?;
            return Some(quoted(&String::from_utf8_lossy(&masked)));
        }
        let hits = self.hits(&text);
        if hits.is_empty() {
            return None;
        }
        for hit in &hits {
            *tally.counts.entry((hit.kind, hit.action)).or_default() += 1;
        }
        let mut masked = mask(&text, &hits);
        if form == Form::Key {
            tally.n_keys += 1;
            if tally.n_keys > 1 {
                masked.push_str(&format!(" {}", tally.n_keys));
            }
        }
        Some(quoted(&masked))
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

/// A JSON string. A number becomes one, too: a mask is no number.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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
    use serde_json::json;

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

    /// What goes on where personal data is masked, as JSON.
    fn with_masks(body: &str) -> serde_json::Value {
        let judged = guard(GuardAction::Off, GuardAction::Mask).judge(body.as_bytes()).unwrap();
        let Verdict::Masked(masked) = judged.verdict else { panic!("{body}: {judged:?}") };
        serde_json::from_slice(&masked).unwrap()
    }

    #[test]
    fn half_of_a_character_hides_nothing_and_breaks_nothing() {
        for (text, expected) in [
            (r"\ud83d\n4111 1111 1111 1111", "\u{fffd}\u{fffd}\u{fffd}\n[redacted:payment_card]"),
            (r"\nada@firm.de \ude00", "\n[redacted:email] \u{fffd}\u{fffd}\u{fffd}"),
            (r"\ud83d \u0034111111111111111", "\u{fffd}\u{fffd}\u{fffd} [redacted:payment_card]"),
        ] {
            let masked = with_masks(&format!(r#"{{"messages":["{text}"]}}"#));
            assert_eq!(masked["messages"], json!([expected]));
        }
    }

    #[test]
    fn keys_and_numbers_of_what_tools_are_called_with_are_looked_at() {
        let called = |input: &str| {
            let block = format!(r#"{{"type":"tool_use","id":"1","name":"T","input":{input}}}"#);
            with_masks(&format!(r#"{{"messages":[{{"content":[{block}]}}]}}"#))
        };
        let input = r#"{"card":4111111111111111,"n":[-1.5,3],"ada@firm.de":{"bob@firm.de":1}}"#;
        assert_eq!(
            called(input)["messages"][0]["content"][0]["input"],
            json!({
                "card": "[redacted:payment_card]",
                "n": [-1.5, 3],
                "[redacted:email]": { "[redacted:email] 2": 1 },
            })
        );
        let body = r#"{"messages":[{"content":[{"input":{"ada@firm.de":1}}]}]}"#;
        let judged = guard(GuardAction::Off, GuardAction::Block).judge(body.as_bytes()).unwrap();
        assert!(matches!(judged.verdict, Verdict::Blocked(_)), "{judged:?}");
    }

    #[test]
    fn what_a_function_is_called_with_stays_json() {
        let called = |arguments: &str| {
            let call = json!({ "function": { "name": "f", "arguments": arguments } });
            let masked = with_masks(&json!({ "messages": [{ "tool_calls": [call] }] }).to_string());
            let function = &masked["messages"][0]["tool_calls"][0]["function"];
            function["arguments"].as_str().unwrap().to_owned()
        };
        let arguments = r#"{ "card": 4111111111111111, "to": "\n4111111111111111", "n": 1.50 }"#;
        let mask = r#""[redacted:payment_card]""#;
        assert_eq!(
            called(arguments),
            format!(r#"{{ "card": {mask}, "to": "\n[redacted:payment_card]", "n": 1.50 }}"#)
        );
        assert_eq!(called("ada@firm.de"), "[redacted:email]", "no JSON is a text");
    }
}
