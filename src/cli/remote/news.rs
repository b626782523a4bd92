//! The events of a run on a server, as the news that a run here has.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;

use crate::run::{ActivityNow, RunId, RunName, Slug};
use crate::trajectory::{Live, StepUpdate, Usage, UsageByModel, UsageReport, UsageSource};
use crate::worker::{Phase, RunUpdate};

/// What stands for the models where only their sum is told.
const ALL_MODELS: &str = "all";

/// The news of an event. An event that this version does not know is none. `place` is where the
/// run can be found.
pub(super) fn update(event: &Value, place: &str) -> Option<RunUpdate> {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let step = || event["step"].as_u64().unwrap_or_default();
    let in_sub_agent = event["in_sub_agent"] == true;
    Some(match event["kind"].as_str()? {
        "opened" => RunUpdate::Opened {
            name: RunName {
                collection: Slug::new(&text("collection")).ok()?,
                task: Slug::new(&text("task")).ok()?,
                id: RunId::new(&text("trajectory_id")).ok()?,
            },
            folder: PathBuf::from(place),
        },
        "phase" => RunUpdate::Phase(phase(&text("phase"))?),
        "step_begins" => {
            let (number, of) = (&event["number"], &event["of"]);
            RunUpdate::Note(format!("Step {number} of {of} begins: {}.", text("name")))
        }
        "note" => RunUpdate::Note(text("text")),
        "waiting" => RunUpdate::Note(text("reason")),
        "said" => RunUpdate::Step(StepUpdate::Said {
            number: step(),
            text: text("text"),
            content: text("content"),
            n_truncated_bytes: event["n_truncated_bytes"].as_u64().unwrap_or_default(),
            in_sub_agent,
        }),
        "tool_started" => RunUpdate::Step(StepUpdate::Started {
            number: step(),
            title: text("title"),
            in_sub_agent,
        }),
        "tool_finished" => RunUpdate::Step(StepUpdate::Finished {
            number: step(),
            title: text("title"),
            took: Duration::from_millis(event["duration_ms"].as_u64().unwrap_or_default()),
            is_error: event["is_error"] == true,
            in_sub_agent,
        }),
        "usage" => RunUpdate::Live(live(event)?),
        "activity" => RunUpdate::Activity(ActivityNow::deserialize(event).ok()?),
        _ => return None,
    })
}

fn phase(word: &str) -> Option<Phase> {
    Some(match word {
        "fetching_agent" => Phase::FetchingAgent { done: 0, total: None },
        "waiting_for_download" => Phase::WaitingForDownload,
        "provisioning" => Phase::Provisioning,
        "setup" => Phase::Setup,
        "running" => Phase::Running,
        "collecting" => Phase::Collecting,
        _ => return None,
    })
}

fn live(event: &Value) -> Option<Live> {
    let mut by_model = UsageByModel::default();
    by_model.add(ALL_MODELS, &Usage::deserialize(&event["total"]).ok()?);
    let source = UsageSource::deserialize(&event["source"]).ok()?;
    Some(Live {
        n_steps: event["n_steps"].as_u64().unwrap_or_default(),
        n_tool_calls: event["n_tool_calls"].as_u64().unwrap_or_default(),
        usage: UsageReport { source, by_model },
        activity: event["activity"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::trajectory::RunEvent;

    #[test]
    fn what_the_agent_did_reads_back_as_it_was_told() {
        for told in [
            StepUpdate::Said {
                number: 3,
                text: "Hello.".to_owned(),
                content: "Hello.\nThere.".to_owned(),
                n_truncated_bytes: 0,
                in_sub_agent: true,
            },
            StepUpdate::Started { number: 4, title: "Bash: ls".to_owned(), in_sub_agent: false },
            StepUpdate::Finished {
                number: 4,
                title: "Bash: ls".to_owned(),
                took: Duration::from_millis(1200),
                is_error: true,
                in_sub_agent: false,
            },
            StepUpdate::Note("Odd.".to_owned()),
        ] {
            let event = serde_json::to_value(RunEvent::from(&told)).unwrap();
            match (update(&event, "there").unwrap(), told) {
                (RunUpdate::Note(read), StepUpdate::Note(told)) => assert_eq!(read, told),
                (RunUpdate::Step(read), told) => assert_eq!(read, told),
                (other, told) => panic!("{told:?} became {other:?}"),
            }
        }
    }

    #[test]
    fn the_usage_reads_back_and_what_is_unknown_is_no_news() {
        let mut by_model = UsageByModel::default();
        by_model.add(ALL_MODELS, &Usage { input: 7, output: 3, ..Usage::default() });
        let told = Live {
            n_steps: 5,
            n_tool_calls: 2,
            usage: UsageReport { source: UsageSource::Live, by_model },
            activity: Some("Bash: ls".to_owned()),
        };
        let event = serde_json::to_value(RunEvent::from(&told)).unwrap();
        let Some(RunUpdate::Live(read)) = update(&event, "there") else { panic!("{event}") };
        assert_eq!((read.usage, read.activity), (told.usage, told.activity));
        for event in [json!({"kind": "later"}), json!({"kind": "phase", "phase": "x"}), json!({})] {
            assert!(update(&event, "there").is_none(), "{event}");
        }
    }
}
