//! Every recorded stream, from its bytes to its outcome.

use std::fmt::Write as _;
use std::path::PathBuf;

use expect_test::{expect, expect_file};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

use super::{AgentEnd, OutcomeFacts, end_warnings, outcome, parse_line};
use crate::run::RunStatus;
use crate::trajectory::{AtifDocument, AtifFacts, Recorder, StepKind, Usage, UsageReport};

/// A stream that was recorded with the pinned CLI, with how its process ended.
pub(super) struct Recorded {
    pub(super) name: String,
    pub(super) stream: Vec<u8>,
    end: AgentEnd,
    stderr: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/claude-code")
}

pub(super) fn recorded_streams() -> Vec<Recorded> {
    let index = std::fs::read_to_string(folder().join("INDEX.tsv")).unwrap();
    index.lines().skip(1).map(recorded).collect()
}

fn recorded(row: &str) -> Recorded {
    let fields: Vec<&str> = row.split('\t').collect();
    let [file, code, stderr] = fields[..] else { panic!("{row:?} has not three fields") };
    let code: i32 = code.parse().unwrap();
    Recorded {
        name: file.trim_end_matches(".jsonl").to_owned(),
        stream: std::fs::read(folder().join(file)).unwrap(),
        // The recorder of the streams wrote a death by signal as a negative code.
        end: if code < 0 { AgentEnd::Signaled(-code) } else { AgentEnd::Exited(code) },
        stderr: stderr.to_owned(),
    }
}

/// Records a stream whose lines arrive a second apart.
pub(super) fn record(stream: &[u8]) -> Recorder {
    let mut recorder = Recorder::new();
    let mut at = Timestamp::UNIX_EPOCH;
    for (line, bytes) in (1..).zip(stream.split_inclusive(|&byte| byte == b'\n')) {
        at += SignedDuration::from_secs(1);
        recorder.record(line, at, parse_line(bytes));
    }
    recorder
}

fn facts<'a>(recorded: &'a Recorded, recorder: &'a Recorder) -> OutcomeFacts<'a> {
    OutcomeFacts {
        summary: recorder.summary(),
        end: recorded.end,
        stopped: None,
        stderr_tail: &recorded.stderr,
        provider: "anthropic",
        credential: "ANTHROPIC_API_KEY",
        max_turns: None,
    }
}

fn counts(usage: &Usage) -> String {
    let Usage { input, output, cache_read, requests_seen, .. } = usage;
    let cost = usage.cost_usd.map_or("unknown".to_owned(), |cost| format!("${cost:.6}"));
    let written = usage.cache_write();
    format!(
        "{input} in, {output} out, {cache_read} read, {written} written, {requests_seen} seen, {cost}"
    )
}

fn usage_lines(report: &UsageReport, out: &mut String) {
    for (model, usage) in report.by_model.iter() {
        writeln!(out, "    {:?} {model}: {}", report.source, counts(usage)).unwrap();
    }
}

#[test]
fn every_recorded_stream_has_its_outcome() {
    let mut table = String::new();
    for recorded in recorded_streams() {
        let recorder = record(&recorded.stream);
        let facts = facts(&recorded, &recorder);
        let name = &recorded.name;
        match outcome(&facts) {
            RunStatus::Failed(failure) => {
                writeln!(table, "{name}: failed {}\n    {failure}", failure.code()).unwrap();
            }
            status @ (RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled) => {
                writeln!(table, "{name}: {}", status.as_str()).unwrap();
            }
        }
        usage_lines(&recorder.usage(), &mut table);
        for warning in recorder.warnings().into_iter().chain(end_warnings(&facts)) {
            writeln!(table, "    ! {warning}").unwrap();
        }
    }
    expect_file!["../../../tests/golden/claude-code/outcomes.txt"].assert_eq(&table);
}

fn atif(name: &str, recorder: &Recorder) -> AtifDocument {
    AtifDocument::new(&AtifFacts {
        trajectory_id: name,
        instruction: "Do what the runbook says.",
        agent: "claude-code",
        model: "claude-sonnet-4-6",
        recorder,
        usage: &recorder.usage(),
    })
}

/// What Harbor's validator checks beyond the shape: numbers in order, fields of the agent's steps on
/// no others, results of calls of the same step, no model's fields without a model.
fn broken_atif_rules(atif: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, step) in (1_u64..).zip(atif["steps"].as_array().unwrap()) {
        let mut check = |rule: &str, holds: bool| {
            if !holds {
                broken.push(format!("step {number}: {rule}"));
            }
        };
        check("is numbered in order", step["step_id"] == number);
        check("has a text", step["message"].is_string());
        let has = |field: &&str| step.get(field).is_some();
        let of_agents = ["model_name", "reasoning_content", "tool_calls", "metrics"];
        check("is the agent's", step["source"] == "agent" || !of_agents.iter().any(has));
        let of_models = ["metrics", "reasoning_content"];
        check("asked a model", step["llm_call_count"] != 0 || !of_models.iter().any(has));
        let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let calls = items(&step["tool_calls"]);
        check("has objects as arguments", calls.iter().all(|call| call["arguments"].is_object()));
        for result in items(&step["observation"]["results"]) {
            let asked = calls.iter().any(|call| call["tool_call_id"] == result["source_call_id"]);
            check("has a call for each result", asked);
        }
    }
    broken
}

#[test]
fn every_recorded_stream_makes_a_valid_atif_document() {
    for recorded in recorded_streams() {
        let atif = atif(&recorded.name, &record(&recorded.stream));
        let atif = serde_json::to_value(&atif).unwrap();
        assert_eq!(broken_atif_rules(&atif), [""; 0], "{}", recorded.name);
    }
}

proptest! {
    #[test]
    fn lines_lost_repeated_or_out_of_order_still_make_a_valid_atif_document(
        stream in any::<prop::sample::Index>(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let streams = recorded_streams();
        let recorded = stream.get(&streams);
        let lines: Vec<&[u8]> =
            recorded.stream.split_inclusive(|&byte| byte == b'\n').collect();
        if !lines.is_empty() {
            let shuffled: Vec<&[u8]> = order.iter().map(|index| *index.get(&lines)).collect();
            let recorder = record(&shuffled.concat());
            let atif = serde_json::to_value(atif(&recorded.name, &recorder)).unwrap();
            prop_assert_eq!(broken_atif_rules(&atif), [""; 0]);
            let calls = recorder.steps().filter(|step| matches!(step.kind, StepKind::ToolCall(_)));
            prop_assert_eq!(calls.count() as u64, recorder.summary().n_tool_calls);
        }
    }
}

#[test]
fn a_sub_agent_is_written_as_atif() {
    let stream = std::fs::read(folder().join("subagent.jsonl")).unwrap();
    let atif = serde_json::to_string_pretty(&atif("subagent", &record(&stream))).unwrap();
    expect_file!["../../../tests/golden/claude-code/subagent.atif.json"].assert_eq(&(atif + "\n"));
}

#[test]
fn recording_is_deterministic() {
    for recorded in recorded_streams() {
        let [one, other] = [record(&recorded.stream), record(&recorded.stream)];
        assert!(one.steps().eq(other.steps()), "{}", recorded.name);
        assert_eq!(one.summary(), other.summary(), "{}", recorded.name);
        assert_eq!(one.usage(), other.usage(), "{}", recorded.name);
        assert_eq!(one.warnings(), other.warnings(), "{}", recorded.name);
    }
}

fn updates(name: &str) -> String {
    let stream = std::fs::read(folder().join(name)).unwrap();
    let mut recorder = Recorder::new();
    let mut shown = String::new();
    let mut at = Timestamp::UNIX_EPOCH;
    for (line, bytes) in (1..).zip(stream.split_inclusive(|&byte| byte == b'\n')) {
        at += SignedDuration::from_secs(1);
        for update in recorder.record(line, at, parse_line(bytes)) {
            writeln!(shown, "{line} {update:?}").unwrap();
        }
        let live = recorder.live();
        let usage = live.usage.by_model.total();
        let (steps, calls) = (live.n_steps, live.n_tool_calls);
        let (tokens, activity) = (usage.total(), live.activity);
        writeln!(shown, "{line} = {steps} steps, {calls} calls, {tokens} tokens, {activity:?}")
            .unwrap();
    }
    shown
}

#[test]
fn a_live_view_sees_calls_begin_and_end() {
    expect![[r#"
        1 = 0 steps, 0 calls, 0 tokens, None
        2 Said { number: 1, text: "Two at once.", content: "Two at once.", n_truncated_bytes: 0, in_sub_agent: false }
        2 = 1 steps, 0 calls, 138 tokens, None
        3 Started { number: 2, title: "Bash: echo one", in_sub_agent: false }
        3 = 2 steps, 1 calls, 138 tokens, Some("Bash: echo one")
        4 Started { number: 3, title: "Bash: echo two >&2; exit 3", in_sub_agent: false }
        4 = 3 steps, 2 calls, 138 tokens, Some("Bash: echo two >&2; exit 3")
        5 Finished { number: 2, title: "Bash: echo one", took: 2s, is_error: false, in_sub_agent: false }
        5 = 3 steps, 2 calls, 138 tokens, Some("Bash: echo two >&2; exit 3")
        6 Finished { number: 3, title: "Bash: echo two >&2; exit 3", took: 2s, is_error: true, in_sub_agent: false }
        6 = 3 steps, 2 calls, 138 tokens, None
        7 Said { number: 4, text: "Both ran.", content: "Both ran.", n_truncated_bytes: 0, in_sub_agent: false }
        7 = 4 steps, 2 calls, 276 tokens, None
        8 = 5 steps, 2 calls, 322 tokens, None
    "#]].assert_eq(&updates("tool_use_parallel.jsonl"));
}

#[test]
fn a_live_view_sees_a_sub_agent_and_retries() {
    expect![[r#"
        1 = 0 steps, 0 calls, 0 tokens, None
        2 Started { number: 2, title: "Agent: Do sub", in_sub_agent: false }
        2 = 2 steps, 1 calls, 138 tokens, Some("Agent: Do sub")
        3 = 2 steps, 1 calls, 138 tokens, Some("Agent: Do sub")
        4 = 3 steps, 1 calls, 138 tokens, Some("Agent: Do sub")
        5 = 3 steps, 1 calls, 138 tokens, Some("Agent: Do sub")
        6 Started { number: 5, title: "Bash: echo from-sub", in_sub_agent: true }
        6 = 5 steps, 2 calls, 1139 tokens, Some("Bash: echo from-sub")
        7 Finished { number: 5, title: "Bash: echo from-sub", took: 1s, is_error: false, in_sub_agent: true }
        7 = 5 steps, 2 calls, 1139 tokens, Some("Agent: Do sub")
        8 = 5 steps, 2 calls, 1139 tokens, Some("Agent: Do sub")
        9 Finished { number: 2, title: "Agent: Do sub", took: 7s, is_error: false, in_sub_agent: false }
        9 = 5 steps, 2 calls, 1139 tokens, None
        10 Said { number: 6, text: "Main end.", content: "Main end.", n_truncated_bytes: 0, in_sub_agent: false }
        10 = 6 steps, 2 calls, 1277 tokens, None
        11 = 7 steps, 2 calls, 2822 tokens, None
    "#]].assert_eq(&updates("subagent.jsonl"));
    expect![[r#"
        1 = 0 steps, 0 calls, 0 tokens, None
        2 Note("The provider failed (HTTP 429, rate_limit); retry 1 of 10 in 573 ms.")
        2 = 1 steps, 0 calls, 0 tokens, Some("waiting to ask the provider again")
        3 Note("The provider failed (HTTP 429, rate_limit); retry 2 of 10 in 2000 ms.")
        3 = 2 steps, 0 calls, 0 tokens, Some("waiting to ask the provider again")
        4 Said { number: 3, text: "Recovered.", content: "Recovered.", n_truncated_bytes: 0, in_sub_agent: false }
        4 = 3 steps, 0 calls, 138 tokens, None
        5 = 4 steps, 0 calls, 168 tokens, None
    "#]]
    .assert_eq(&updates("err_429_retry_then_ok.jsonl"));
}
