//! `runbookd logs`: what happened in a run, in words, as events, or as the agent CLI wrote it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::super::exit::ExitCode;
use super::super::progress;
use super::args::LogsArguments;
use super::tell::Trouble;
use super::{connect, end, news, say, text};
use crate::client::Client;
use crate::config::Settings;
use crate::run::RunName;

/// How much of a time is shown: down to the second.
const SHOWN_OF_TIME: usize = "2026-01-02T03:04:05".len();

/// The agent CLI whose log is shown of a run that does not name one.
const DEFAULT_AGENT: &str = "claude-code";

/// Shows what happened.
pub(in crate::cli) async fn logs(arguments: &LogsArguments, settings: &Settings) -> ExitCode {
    end(obey(arguments, settings).await)
}

async fn obey(arguments: &LogsArguments, settings: &Settings) -> Result<ExitCode, Trouble> {
    let client = connect(arguments.server.server.as_ref(), settings)?;
    let run = client.find(&arguments.run).await?;
    if arguments.raw {
        return raw(&client, &run).await;
    }
    let json = arguments.server.json;
    if arguments.follow {
        let mut follow = client.follow(&run, 0);
        while let Some(event) = follow.next().await? {
            put(json, &event.json, &Words::default());
        }
        return Ok(ExitCode::Success);
    }
    let answer = client.logs(&run).await?;
    let known = client.run(&run).await?.unwrap_or_default();
    let mut whole = whole_words(&known);
    for event in answer["events"].as_array().into_iter().flatten() {
        if event["kind"] == "step_begins" {
            whole.step = text(&event["name"]);
        }
        put(json, event, &whole);
    }
    Ok(ExitCode::Success)
}

/// What the agent CLI wrote.
async fn raw(client: &Client, run: &RunName) -> Result<ExitCode, Trouble> {
    let known = client.run(run).await?.unwrap_or_default();
    for path in raw_logs(&known) {
        client.read_file(run, &path, &mut std::io::stdout().lock()).await?;
    }
    Ok(ExitCode::Success)
}

/// Where the agents' logs lie in the run's folder: one for each step whose agent was started.
fn raw_logs(known: &Value) -> Vec<String> {
    let log = |agent: Option<&str>| format!("logs/agent/{}.txt", agent.unwrap_or(DEFAULT_AGENT));
    let steps = known["steps"].as_object().into_iter().flatten();
    if known["total_steps"].as_array().is_none_or(|all| all.len() < 2) {
        let agent = steps.filter_map(|(_, step)| step["outputs"]["agent"].as_str()).next_back();
        return vec![log(agent)];
    }
    let begun = steps.filter(|(_, step)| step["created"].is_string());
    begun
        .map(|(name, step)| format!("steps/{name}/{}", log(step["outputs"]["agent"].as_str())))
        .collect()
}

/// What the model said, whole, where events have its first line.
#[derive(Debug, Default)]
struct Words {
    /// By the step of the run, where it has several, and the number of the agent's step.
    whole: HashMap<(String, u64), String>,
    /// The step that the events are at.
    step: String,
}

/// Shows one event.
fn put(json: bool, event: &Value, whole: &Words) {
    if json {
        say(&event.to_string());
    } else if let Some(line) = line(event, whole) {
        say(&line);
    }
}

fn line(event: &Value, words: &Words) -> Option<String> {
    let said = (event["kind"] == "said").then(|| event["step"].as_u64()).flatten();
    let whole = said.and_then(|number| words.whole.get(&(words.step.clone(), number)));
    let words = match whole {
        Some(words) => format!("* {words}"),
        None if event["kind"] == "finished" => finished(event),
        None if event["kind"] == "opened" => "the run begins".to_owned(),
        None => progress::line(&news::update(event, "")?)?,
    };
    let at: String = text(&event["at"]).chars().take(SHOWN_OF_TIME).collect();
    let gap = format!("\n{:width$}  ", "", width = SHOWN_OF_TIME);
    Some(format!("{at:SHOWN_OF_TIME$}  {}", words.replace('\n', &gap)))
}

fn finished(event: &Value) -> String {
    let took = event["duration_ms"].as_u64().map(Duration::from_millis);
    let took = took.map(|took| format!(" in {}", progress::seconds(took))).unwrap_or_default();
    let failure = &event["failure"];
    let why = match (failure["message"].as_str(), failure["mend"].as_str()) {
        (Some(message), Some(mend)) => format!("\n{message}\n{mend}"),
        (Some(message), None) => format!("\n{message}"),
        (None, _) => String::new(),
    };
    format!("{}{took}{why}", text(&event["status"]))
}

/// What the model said in each step, whole.
fn whole_words(run: &Value) -> Words {
    let steps = run["agent_steps"].as_array().into_iter().flatten();
    let messages = steps.filter(|step| step["kind"] == "message");
    let whole = messages
        .filter_map(|step| {
            let words = step["text"]["text"].as_str().filter(|words| !words.is_empty())?;
            Some(((text(&step["step"]), step["number"].as_u64()?), words.to_owned()))
        })
        .collect();
    Words { whole, step: String::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_logs_of_every_step_are_shown_in_their_order() {
        let run = json!({"total_steps": ["run"], "steps": {"run": {}}});
        assert_eq!(raw_logs(&run), ["logs/agent/claude-code.txt"]);
        let begun = json!({"created": "2026-01-02T03:04:05Z"});
        let run = json!({
            "total_steps": ["z", "a", "b"],
            "steps": {"z": begun, "a": begun, "b": {"created": null}},
        });
        let expected = ["steps/z/logs/agent/claude-code.txt", "steps/a/logs/agent/claude-code.txt"];
        assert_eq!(raw_logs(&run), expected);
    }

    #[test]
    fn events_are_told_with_their_time_and_what_was_said_is_whole() {
        let run = json!({"agent_steps": [
            {"step": "draft", "number": 2, "kind": "message", "text": {"text": "Other."}},
            {"step": "review", "number": 2, "kind": "message", "text": {"text": "One.\nTwo."}},
        ]});
        let whole = Words { step: "review".to_owned(), ..whole_words(&run) };
        let at = "2026-01-02T03:04:05.678Z";
        for (event, expected) in [
            (
                json!({"at": at, "kind": "said", "step": 2, "text": "One."}),
                Some("2026-01-02T03:04:05  * One.\n                     Two."),
            ),
            (
                json!({"at": at, "kind": "tool_started", "step": 3, "title": "Bash: ls"}),
                Some("2026-01-02T03:04:05  > Bash: ls"),
            ),
            (
                json!({"at": at, "kind": "finished", "status": "completed", "duration_ms": 1500}),
                Some("2026-01-02T03:04:05  completed in 1.5 s"),
            ),
            (
                json!({"kind": "finished", "status": "cancelled"}),
                Some("                     cancelled"),
            ),
            (
                json!({"at": at, "kind": "opened", "collection": "c", "task": "t"}),
                Some("2026-01-02T03:04:05  the run begins"),
            ),
            (json!({"at": at, "kind": "status", "status": "running"}), None),
            (
                json!({"at": at, "kind": "step_begins", "name": "review", "number": 2, "of": 3}),
                Some("2026-01-02T03:04:05  ! Step 2 of 3 begins: review."),
            ),
        ] {
            assert_eq!(line(&event, &whole).as_deref(), expected, "{event}");
        }
    }
}
