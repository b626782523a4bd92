//! Finds what the script says to a request: the answer, or what disturbs it.

use std::borrow::Cow;

use super::ledger::Place;
use super::request::{Asked, Voice, turns_done_note};
use super::script::{AfterEnd, Answer, Disturbance, Fault, Script, Times, Turn};

/// What a place of the script says to one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice<'s> {
    pub(super) outcome: Outcome<'s>,
    /// The answer of the place, which a fault may cut.
    pub(super) answer: Cow<'s, Answer>,
    /// Whether the script did not foresee this.
    pub(super) unexpected: bool,
}

/// What becomes of the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome<'s> {
    Answer,
    Fault(&'s Fault),
    /// The turns are used up and the script wants no more.
    Refuse,
}

/// Where in the script a request belongs.
pub(super) fn place(asked: &Asked) -> Place {
    let turn = asked.n_done + 1;
    match asked.voice {
        Voice::Main => Place::Main { turn },
        Voice::Subagent(index) => Place::Subagent { entry: index + 1, turn },
        Voice::UnknownSubagent => Place::UnknownSubagent { turn },
        Voice::Side { .. } => Place::Side,
        Voice::Compaction => Place::Compaction,
    }
}

/// What the script says to the request number `attempt` (from 0) for its place.
pub(super) fn choose<'s>(script: &'s Script, asked: &Asked, attempt: u32) -> Choice<'s> {
    match asked.voice {
        Voice::Main => turn(&script.main, script.after_end, asked.n_done, attempt),
        Voice::Subagent(index) => {
            let turns = script.subagents.get(index).map_or(&[][..], |subagent| &subagent.turns);
            turn(turns, script.after_end, asked.n_done, attempt)
        }
        Voice::UnknownSubagent => after_end(&[], script.after_end),
        Voice::Side { titled: false } => Choice::expected(Cow::Borrowed(&script.side)),
        Voice::Side { titled: true } => {
            let mut title = script.side.clone();
            title.text = serde_json::json!({ "title": title.text }).to_string();
            Choice::expected(Cow::Owned(title))
        }
        Voice::Compaction => {
            let mut summary = script.compaction.clone();
            summary.text = format!("{}\n{}", summary.text, turns_done_note(asked.n_done));
            Choice::expected(Cow::Owned(summary))
        }
    }
}

impl<'s> Choice<'s> {
    fn expected(answer: Cow<'s, Answer>) -> Self {
        Self { outcome: Outcome::Answer, answer, unexpected: false }
    }
}

fn turn(turns: &[Turn], end: AfterEnd, n_done: usize, attempt: u32) -> Choice<'_> {
    let Some(turn) = turns.get(n_done) else { return after_end(turns, end) };
    let choice = match &turn.answer {
        Some(answer) => Choice::expected(Cow::Borrowed(answer)),
        None => after_end(turns, end),
    };
    match disturbance(&turn.disturbances, attempt) {
        // A fault was foreseen even where nothing stands below it.
        Some(fault) => Choice { outcome: Outcome::Fault(fault), unexpected: false, ..choice },
        None => choice,
    }
}

/// The fault that the request number `attempt` meets, if it meets one.
fn disturbance(disturbances: &[Disturbance], attempt: u32) -> Option<&Fault> {
    let mut left = attempt;
    for disturbance in disturbances {
        match disturbance.times {
            Times::Exactly(times) if left >= times => left -= times,
            Times::Exactly(_) | Times::Forever => return Some(&disturbance.fault),
        }
    }
    None
}

fn after_end(turns: &[Turn], end: AfterEnd) -> Choice<'_> {
    let done = Cow::Owned(Answer::said("Done."));
    let last = turns.iter().rev().find_map(|turn| turn.answer.as_ref());
    match (end, last) {
        (AfterEnd::RepeatLast, Some(last)) => Choice::expected(Cow::Borrowed(last)),
        (AfterEnd::Done, _) | (AfterEnd::RepeatLast, None) => {
            Choice { outcome: Outcome::Answer, answer: done, unexpected: true }
        }
        (AfterEnd::Refuse, _) => {
            Choice { outcome: Outcome::Refuse, answer: done, unexpected: true }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(after_end: &str) -> Script {
        Script::parse(&format!(
            "
turns:
  - fail: {{ status: 429, times: 2 }}
  - hang: true
  - text: one
  - text: two
  - drop: before
subagents: [{{ when: count, turns: [{{ text: counted }}] }}]
side: {{ text: A title }}
compaction: {{ text: In short. }}
after_end: {after_end}
"
        ))
        .unwrap()
    }

    fn asked(voice: Voice, n_done: usize) -> Asked {
        Asked { model: "m".to_owned(), stream: true, n_messages: 1, voice, n_done }
    }

    /// What is said, in short: the fault or the text, `!` before it where it was not foreseen.
    fn said(after_end: &str, voice: Voice, n_done: usize, attempt: u32) -> String {
        let script = script(after_end);
        let choice = choose(&script, &asked(voice, n_done), attempt);
        let what = match choice.outcome {
            Outcome::Answer => choice.answer.text.clone(),
            Outcome::Refuse => "refused".to_owned(),
            Outcome::Fault(Fault::Fail { failure, .. }) => format!("fails {}", failure.status),
            Outcome::Fault(Fault::Hang) => "hangs".to_owned(),
            Outcome::Fault(Fault::Drop(point)) => format!("cut {point:?}"),
            Outcome::Fault(Fault::Raw(raw)) => format!("raw {}", raw.status),
        };
        format!("{}{what}", if choice.unexpected { "!" } else { "" })
    }

    #[test]
    fn the_requests_for_a_turn_meet_its_faults_in_order() {
        let first: Vec<String> =
            (0..5).map(|attempt| said("done", Voice::Main, 0, attempt)).collect();
        assert_eq!(first, ["fails 429", "fails 429", "hangs", "one", "one"]);
        assert_eq!(said("done", Voice::Main, 1, 0), "two");
    }

    #[test]
    fn the_end_of_the_script_is_answered_as_it_says() {
        for (after_end, below_the_last_fault) in
            [("done", "!Done."), ("repeat_last", "two"), ("refuse", "!refused")]
        {
            assert_eq!(said(after_end, Voice::Main, 2, 0), "cut Before");
            assert_eq!(said(after_end, Voice::Main, 2, 1), below_the_last_fault);
            assert_eq!(said(after_end, Voice::Main, 9, 0), below_the_last_fault);
        }
        assert_eq!(said("repeat_last", Voice::Subagent(0), 1, 0), "counted");
        assert_eq!(said("repeat_last", Voice::UnknownSubagent, 0, 0), "!Done.");
        assert_eq!(said("refuse", Voice::UnknownSubagent, 0, 0), "!refused");
    }

    #[test]
    fn side_calls_and_summaries_have_their_form() {
        assert_eq!(said("done", Voice::Side { titled: false }, 0, 0), "A title");
        assert_eq!(said("done", Voice::Side { titled: true }, 0, 0), r#"{"title":"A title"}"#);
        assert_eq!(said("done", Voice::Compaction, 7, 3), "In short.\n[scripted turns so far: 7]");
    }
}
