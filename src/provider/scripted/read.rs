//! Reads a script from YAML, and says where it is wrong and what to write instead.

use serde::de::{Deserialize, Deserializer};

use super::checked::checked;
use super::script::{AfterEnd, Answer, Script, Subagent, Turn};
use super::text::MAX_REPEATED_BYTES;
use super::turn::{WireTurn, WireTurnFields};

/// Longest script, in bytes. Large texts are written with `text_repeat`.
const MAX_SCRIPT_BYTES: usize = 4 * 1024 * 1024;

/// A script that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The text is longer than a script may be.
    #[error(
        "the script has {n_bytes} bytes, at most {MAX_SCRIPT_BYTES} are read; write long texts as `text_repeat: {{ text: \"x\", times: 1000000 }}`"
    )]
    TooLong {
        /// The length of the text that was given.
        n_bytes: usize,
    },
    /// It is not YAML, or not a script; the source says where and what to write.
    #[error("could not read the script")]
    Read(#[from] serde_yaml::Error),
    /// There is nothing to say.
    #[error("the script has no turns; write at least one, such as `turns: [{{ text: Done. }}]`")]
    NoTurns,
    /// All `text_repeat` together make more text than a script may.
    #[error(
        "the script's texts have {n_bytes} bytes when repeated, at most {MAX_REPEATED_BYTES} are allowed; lower `times`"
    )]
    TooMuchText {
        /// The length of all texts together.
        n_bytes: usize,
    },
}

impl Script {
    /// Reads a script. The format is in `docs/scripted-provider.md`.
    ///
    /// # Errors
    /// [`ScriptError`] when the text is too long, is not YAML or not a script (the source names
    /// line, column and field), has no turns, or repeats too much text.
    pub fn parse(yaml: &str) -> Result<Self, ScriptError> {
        if yaml.len() > MAX_SCRIPT_BYTES {
            return Err(ScriptError::TooLong { n_bytes: yaml.len() });
        }
        let wire: WireScript = serde_yaml::from_str(yaml)?;
        if wire.turns.is_empty() {
            return Err(ScriptError::NoTurns);
        }
        let script = Self {
            model: wire.model,
            main: turns(wire.turns),
            subagents: wire
                .subagents
                .into_iter()
                .map(|subagent| Subagent { when: subagent.when.0, turns: turns(subagent.turns) })
                .collect(),
            side: wire.side.map_or_else(|| Answer::said("A scripted answer"), |side| side.0),
            compaction: wire
                .compaction
                .map_or_else(|| Answer::said("The work so far, in short."), |answer| answer.0),
            after_end: wire.after_end.unwrap_or(AfterEnd::Done),
        };
        let n_bytes = script.n_text_bytes();
        if n_bytes > MAX_REPEATED_BYTES {
            return Err(ScriptError::TooMuchText { n_bytes });
        }
        Ok(script)
    }

    fn n_text_bytes(&self) -> usize {
        let subagents = self.subagents.iter().flat_map(|subagent| &subagent.turns);
        let turns = self.main.iter().chain(subagents).filter_map(|turn| turn.answer.as_ref());
        turns.chain([&self.side, &self.compaction]).map(Answer::n_bytes).sum()
    }
}

/// Puts each run of disturbances before the answer that follows it.
fn turns(entries: Vec<WireTurn>) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut disturbances = Vec::new();
    for entry in entries {
        match entry {
            WireTurn::Answer(answer) => turns.push(Turn {
                disturbances: std::mem::take(&mut disturbances),
                answer: Some(answer),
            }),
            WireTurn::Disturbance(disturbance) => disturbances.push(disturbance),
        }
    }
    if !disturbances.is_empty() {
        turns.push(Turn { disturbances, answer: None });
    }
    turns
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireScript {
    model: Option<String>,
    turns: Vec<WireTurn>,
    #[serde(default)]
    subagents: Vec<WireSubagent>,
    side: Option<WireSaid>,
    compaction: Option<WireSaid>,
    after_end: Option<AfterEnd>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSubagent {
    when: When,
    turns: Vec<WireTurn>,
}

#[derive(serde::Deserialize)]
#[serde(try_from = "String")]
struct When(String);

impl TryFrom<String> for When {
    type Error = &'static str;

    fn try_from(when: String) -> Result<Self, Self::Error> {
        if when.trim().is_empty() {
            return Err("`when` is empty and would match every sub-agent: \
                 write some words of the prompt that the sub-agent is started with");
        }
        Ok(Self(when))
    }
}

/// An answer that calls no tools.
struct WireSaid(Answer);

impl TryFrom<WireTurnFields> for WireSaid {
    type Error = String;

    fn try_from(fields: WireTurnFields) -> Result<Self, Self::Error> {
        match WireTurn::try_from(fields)? {
            WireTurn::Answer(answer) if answer.tools.is_empty() => Ok(Self(answer)),
            WireTurn::Answer(_) | WireTurn::Disturbance(_) => {
                Err("this answer has no tools and no faults: \
                     write `text`, `usage` and the delays only"
                    .to_owned())
            }
        }
    }
}

impl<'de> Deserialize<'de> for WireSaid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        checked::<WireTurnFields, Self, D>(deserializer, "an answer, such as `{ text: A title }`")
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::time::Duration;

    use expect_test::{Expect, expect, expect_file};
    use serde_json::json;

    use super::super::ledger::SentUsage;
    use super::super::script::{StopReason, Times, ToolCall};
    use super::*;

    /// The error with its sources, as a person sees it.
    fn complaint(yaml: &str) -> String {
        let error = Script::parse(yaml).expect_err(yaml);
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    fn check(yaml: &str, expected: &Expect) {
        expected.assert_eq(&complaint(yaml));
    }

    #[test]
    fn an_answer_fills_in_what_is_not_written() {
        let script = Script::parse("turns: [{ text: four byte words }]").unwrap();
        let expected = Answer { usage: usage(100, 3), ..Answer::said("four byte words") };
        assert_eq!(script.main, [Turn { disturbances: vec![], answer: Some(expected) }]);
        assert_eq!(script.after_end, AfterEnd::Done);
    }

    fn usage(input: u64, output: u64) -> SentUsage {
        SentUsage { input, output, ..SentUsage::default() }
    }

    const EVERY_KEY: &str = "
model: some-model
turns:
  - thinking: Hm.
    text_repeat: { text: ab, times: 3 }
    tools:
      - Bash: { command: ls }
      - name: Write
        input: { file_path: a, content: { text_repeat: { text: x, times: 4 } } }
      - TodoRead:
    stop: max_tokens
    usage: { input: 1, output: 2, cache_read: 3, cache_write_5m: 4, cache_write_1h: 5 }
    delay_ms: 6
    chunk_delay_ms: 7
subagents:
  - when: count
    turns: [{ text: two }]
side: { text: A title, usage: { input: 11, output: 3 } }
compaction: { text: In short. }
after_end: refuse
";

    #[test]
    fn every_key_of_an_answer_is_read() {
        let script = Script::parse(EVERY_KEY).unwrap();
        let tool = |name: &str, input: serde_json::Value| ToolCall {
            name: name.to_owned(),
            input: input.as_object().unwrap().clone(),
        };
        let said = |text, usage| Answer { usage, ..Answer::said(text) };
        let answer = Answer {
            thinking: Some("Hm.".to_owned()),
            text: "ababab".to_owned(),
            tools: vec![
                tool("Bash", json!({ "command": "ls" })),
                tool("Write", json!({ "file_path": "a", "content": "xxxx" })),
                tool("TodoRead", json!({})),
            ],
            stop: StopReason::MaxTokens,
            usage: SentUsage {
                input: 1,
                output: 2,
                cache_read: 3,
                cache_write_5m: 4,
                cache_write_1h: 5,
            },
            delay: Duration::from_millis(6),
            chunk_delay: Duration::from_millis(7),
        };
        let turn = |answer| vec![Turn { disturbances: vec![], answer: Some(answer) }];
        let expected = Script {
            model: Some("some-model".to_owned()),
            main: turn(answer),
            subagents: vec![Subagent {
                when: "count".to_owned(),
                turns: turn(said("two", usage(100, 1))),
            }],
            side: said("A title", usage(11, 3)),
            compaction: said("In short.", usage(100, 2)),
            after_end: AfterEnd::Refuse,
        };
        assert_eq!(script, expected);
    }

    #[test]
    fn disturbances_belong_to_the_answer_below_them() {
        let script = Script::parse(
            "
turns:
  - fail: { status: 429, retry_after: 1, times: 2 }
  - drop: mid_block
    times: forever
  - text: one
  - text: two
  - hang: true
  - raw: { body: '<html>', content_type: text/html }
    times: 3
",
        )
        .unwrap();
        let shape: Vec<(Vec<Times>, bool)> = script
            .main
            .iter()
            .map(|turn| {
                let times = turn.disturbances.iter().map(|disturbance| disturbance.times);
                (times.collect(), turn.answer.is_some())
            })
            .collect();
        assert_eq!(
            shape,
            [
                (vec![Times::Exactly(2), Times::Forever], true),
                (vec![], true),
                (vec![Times::Exactly(1), Times::Exactly(3)], false),
            ]
        );
    }

    const WRONG: [&str; 31] = [
        "",
        "turns: []",
        "turns: [{ text: a }]\nturn: 1",
        "turns:\n  - text: a\n  - txet: b",
        "turns:\n  - {}",
        "turns:\n  - usage: { input: 1 }",
        "turns:\n  - text: a\n  - text: a\n    fail: { status: 500 }",
        "turns:\n  - drop: before\n    hang: true",
        "turns:\n  - drop: later",
        "turns:\n  - hang: false",
        "turns:\n  - fail: { status: 200 }",
        "turns:\n  - fail: { status: 500, type: \"api\\nerror\" }",
        "turns:\n  - fail: { status: 500, times: 0 }",
        "turns:\n  - fail: { status: 500, times: often }",
        "turns:\n  - fail: { status: 500, times: 1 }\n    times: 2",
        "turns:\n  - text: a\n    times: 2",
        "turns:\n  - text: a\n    text_repeat: { text: a, times: 2 }",
        "turns:\n  - text_repeat: { text: abc, times: 99999999 }",
        "turns:\n  - text: a\n    delay_ms: 3600000",
        "turns:\n  - text: a\n    stop: tired",
        "turns:\n  - text: a\n    usage: { input: -1 }",
        "turns:\n  - raw: { status: 100 }",
        "turns:\n  - raw: { content_type: \"a\\nb\" }",
        "turns:\n  - tools: [ Bash ]",
        "turns:\n  - tools: [ {} ]",
        "turns:\n  - tools: [ { Bash: ls } ]",
        "turns:\n  - tools: [ { Bash: {}, Read: {} } ]",
        "turns:\n  - tools:\n    - Write: { a: { text_repeat: 3 } }",
        "turns: [{ text: a }]\nsubagents: [{ when: ' ', turns: [] }]",
        "turns: [{ text: a }]\nside: { hang: true }",
        "turns: [{ text: a }]\nafter_end: stop",
    ];

    #[test]
    fn a_wrong_script_is_told_where_and_what_to_write() {
        let complaints: Vec<String> =
            WRONG.iter().map(|yaml| format!("{yaml}\n=> {}\n", complaint(yaml))).collect();
        expect_file!["golden/wrong_scripts.txt"].assert_eq(&complaints.join("\n"));
    }

    #[test]
    fn every_script_of_the_guide_can_be_used() {
        let guide = include_str!("../../../docs/scripted-provider.md");
        let scripts: Vec<&str> =
            guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(scripts.len(), 3);
        for script in scripts {
            assert!(Script::parse(script).is_ok(), "{script}");
        }
    }

    #[test]
    fn a_script_has_limits() {
        check(
            &" ".repeat(MAX_SCRIPT_BYTES + 1),
            &expect![[
                r#"the script has 4194305 bytes, at most 4194304 are read; write long texts as `text_repeat: { text: "x", times: 1000000 }`"#
            ]],
        );
        let half = "{ text_repeat: { text: x, times: 40000000 } }";
        check(
            &format!("turns: [{half}, {half}]"),
            &expect![
                "the script's texts have 80000043 bytes when repeated, at most 67108864 are allowed; lower `times`"
            ],
        );
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nturns: [*c]";
        assert!(Script::parse(bomb).is_err());
    }
}
