//! What the fold makes of events that no recorded stream has.

use super::*;
use crate::trajectory::{
    AgentResult, Block, Init, Message, Task, TaskStage, TaskUsage, ToolResult, ToolResults, Usage,
    UsageByModel,
};

fn recorded(events: impl IntoIterator<Item = AgentEvent>) -> Recorder {
    let mut recorder = Recorder::new();
    for (line, event) in (1..).zip(events) {
        recorder.record(line, Timestamp::UNIX_EPOCH, event);
    }
    recorder
}

fn init() -> AgentEvent {
    AgentEvent::Init(Init { model: "m".to_owned(), ..Init::default() })
}

fn reply(id: &str, blocks: Vec<Block>) -> AgentEvent {
    AgentEvent::Message(Message {
        message_id: id.to_owned(),
        model: "m".to_owned(),
        blocks,
        usage: Usage { input: 10, output: 1, ..Usage::default() },
        ..Message::default()
    })
}

fn call(id: &str) -> Block {
    Block::ToolCall { id: id.to_owned(), name: "Bash".to_owned(), input: "{}".to_owned() }
}

fn tool_result(call_id: &str) -> AgentEvent {
    let call_id = call_id.to_owned();
    let result = ToolResult { call_id, content: "ok".to_owned(), is_error: false };
    let results = vec![result];
    AgentEvent::ToolResults(ToolResults { parent_tool_call: None, results, timestamp: None })
}

fn result(input: u64) -> AgentEvent {
    let mut usage = UsageByModel::default();
    usage.add("m", &Usage { input, output: 5, ..Usage::default() });
    AgentEvent::Result(Box::new(AgentResult { usage, ..AgentResult::default() }))
}

fn task(stage: TaskStage, usage: Option<TaskUsage>) -> AgentEvent {
    let (task_id, description) = ("b1".to_owned(), "build".to_owned());
    AgentEvent::Task(Task { task_id, tool_call: Some("t1".to_owned()), stage, description, usage })
}

#[test]
fn the_agents_totals_hold_until_its_main_loop_goes_on() {
    let totals = [init(), reply("a", vec![]), result(100)];
    let went_on = [init(), reply("b", vec![])];
    let usage = recorded(totals.clone()).usage();
    assert_eq!((usage.source, usage.by_model.total().input), (UsageSource::AgentResult, 100));
    let recorder = recorded(totals.clone().into_iter().chain(went_on.clone()));
    let usage = recorder.usage();
    assert!(recorder.summary().went_on_after_result);
    assert_eq!((usage.source, usage.by_model.total().input), (UsageSource::Live, 100));
    let recorder = recorded(totals.into_iter().chain(went_on).chain([result(300)]));
    let usage = recorder.usage();
    assert_eq!((usage.source, usage.by_model.total().input), (UsageSource::AgentResult, 300));
}

#[test]
fn blocks_of_one_reply_make_one_step() {
    let texts = ["one", "two"].map(|text| reply("a", vec![Block::Text(text.to_owned())]));
    let recorder = recorded(texts);
    let steps: Vec<&Step> = recorder.steps().collect();
    let [Step { kind: StepKind::Message(message), .. }] = steps[..] else { panic!("{steps:?}") };
    assert_eq!(message.text.text, "one\n\ntwo");
    assert_eq!(recorder.usage().by_model.total().input, 10);
}

#[test]
fn a_task_may_be_told_to_have_ended_twice() {
    let usage = TaskUsage { total_tokens: 7, tool_uses: 1, duration_ms: 9 };
    let ended = || TaskStage::Ended { status: "completed".to_owned() };
    let started = TaskStage::Started { kind: "local_bash".to_owned() };
    let opening = [init(), reply("a", vec![call("t1")]), task(started, None)];
    assert_eq!(recorded(opening.clone()).summary().open_tasks.len(), 1);
    let ends = [tool_result("t1"), task(ended(), None), task(ended(), Some(usage))];
    let recorder = recorded(opening.into_iter().chain(ends));
    assert_eq!(recorder.summary().open_tasks.len(), 0);
    let mut reports = recorder.steps().filter_map(|step| {
        let StepKind::ToolCall(call) = &step.kind else { return None };
        call.task.clone()
    });
    let report = reports.next().unwrap();
    assert_eq!((report.status.as_str(), report.usage), ("completed", Some(usage)));
}

#[test]
fn results_without_a_call_and_results_without_a_turn_are_warned_of() {
    let recorder = recorded([init(), tool_result("t1"), result(1), result(2)]);
    assert_eq!(
        recorder.warnings(),
        [
            "A tool gave a result that no call asked for, or a second one.",
            "The agent gave more results than it began turns; the last one counts.",
        ]
    );
}

#[test]
fn lines_that_mean_nothing_are_counted_and_named() {
    let unknown = |kind: &str| AgentEvent::Unknown { kind: kind.to_owned() };
    let reason = "the line breaks off".to_owned();
    let recorder =
        recorded([unknown("new"), unknown("new"), AgentEvent::Unparsed { reason }, unknown("x")]);
    assert_eq!(
        recorder.warnings(),
        [
            "The agent wrote 3 lines or blocks of kinds that runbookd does not know; the log has \
             them: `new` (2), `x` (1).",
            "1 line of the agent's output could not be read; the log has them. The first is line \
             3: the line breaks off.",
        ]
    );
    let &Summary { n_lines, n_unknown, n_unparsed, .. } = recorder.summary();
    assert_eq!((n_lines, n_unknown, n_unparsed), (4, 3, 1));
}

#[test]
fn a_run_of_very_many_calls_stays_small() {
    let mut recorder = Recorder::new();
    for line in 1..=20_000_u64 {
        let blocks = vec![call(&format!("t{line}"))];
        recorder.record(line, Timestamp::UNIX_EPOCH, reply(&format!("m{line}"), blocks));
    }
    assert_eq!(recorder.n_steps(), 40_000);
    assert_eq!(recorder.steps().count() as u64, 40_000 - recorder.n_steps_left_out());
    assert!(recorder.steps().count() <= 5_000);
    assert!(recorder.open_calls.len() <= 5_000);
}
