//! The events of a run as the chunks of a chat completion: what the agent says is the content.
//!
//! A pure fold over the run's events from the first on: who takes a stream up again after an event
//! gets the same chunks that he would have got. So a chunk's id is its event's number.

use serde_json::{Map, Value, json};

use super::ending::{Ending, NO_TEXT, identity};
use crate::api::follow::Telling;
use crate::queue::Job;
use crate::run::RunName;
use crate::store::StoredEvent;

/// What stands between two things that the agent says.
const PARAGRAPH: &str = "\n\n";

/// How the stream says that it is over.
const DONE: &str = "data: [DONE]\n\n";

/// A comment. OpenAI's client for Python takes an empty line after one for an event without data as
/// soon as any event had an id, and fails; so none follows.
const SIGN_OF_LIFE: &str = ": keep-alive\n";

/// The end of what was said is kept, in bytes, to see whether the answer was said already: more than
/// one reply has.
const MAX_TAIL_BYTES: usize = 1 << 20;

/// What a client wants of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StreamWish {
    /// The last event that it has seen.
    pub(super) after: u64,
    /// Whether the usage is to come at the end.
    pub(super) include_usage: bool,
    /// Whether the run's events are to come too.
    pub(super) stream_events: bool,
    /// Whether its going away stops the run.
    pub(super) cancel_on_disconnect: bool,
}

/// The chunks of one run.
#[derive(Debug)]
pub(super) struct Frames {
    run: RunName,
    model: String,
    created: i64,
    notes: Vec<String>,
    wish: StreamWish,
    /// The end of what the agent has said so far.
    said: String,
    /// The number of the last event.
    seq: u64,
}

impl Frames {
    pub(super) fn new(
        run: RunName,
        (model, created): (String, i64),
        notes: Vec<String>,
        wish: StreamWish,
    ) -> Self {
        Self { run, model, created, notes, wish, said: String::new(), seq: 0 }
    }

    /// A chunk with these keys beside what every chunk has.
    fn chunk(&self, choices: &Value, more: Map<String, Value>) -> Value {
        let mut chunk = Map::new();
        chunk.insert("id".to_owned(), format!("chatcmpl-{}", self.run.id).into());
        chunk.insert("object".to_owned(), "chat.completion.chunk".into());
        chunk.insert("created".to_owned(), self.created.into());
        chunk.insert("model".to_owned(), self.model.clone().into());
        chunk.insert("choices".to_owned(), choices.clone());
        chunk.extend(more);
        Value::Object(chunk)
    }

    /// A chunk with something of the message.
    fn delta(&self, delta: &Value, finish_reason: Option<&str>, more: Map<String, Value>) -> Value {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason });
        self.chunk(&json!([choice]), more)
    }

    /// What the client gets of something that was said.
    fn say(&mut self, words: &str) -> String {
        let told =
            if self.said.is_empty() { words.to_owned() } else { format!("{PARAGRAPH}{words}") };
        self.said.push_str(&told);
        let surplus = self.said.len().saturating_sub(MAX_TAIL_BYTES);
        self.said.drain(..self.said.ceil_char_boundary(surplus));
        told
    }

    /// The event itself, for clients that want it.
    fn with_event(&self, event: &Value) -> Map<String, Value> {
        let mut more = Map::new();
        if self.wish.stream_events {
            more.insert("jetty_event".to_owned(), event.clone());
        }
        more
    }

    /// The last chunks. `event` is the run's last, where there is one.
    fn close(&mut self, ending: &Ending, event: Option<(u64, &Value)>) -> String {
        let mut more = event.map(|(_, event)| self.with_event(event)).unwrap_or_default();
        let number = event.map(|(number, _)| number);
        if let Some(failed) = ending.failed(&self.run, &self.notes) {
            let mut body = failed.body();
            if let Some(body) = body.as_object_mut() {
                body.extend(more);
            }
            return frame(number, &body) + DONE;
        }
        let is_new = number.is_none_or(|number| number > self.wish.after);
        let answer = ending.answer.as_deref().unwrap_or_default().trim();
        let rest = match (answer, self.said.is_empty()) {
            ("", true) => self.say(NO_TEXT),
            (answer, _) if self.said.trim_end().ends_with(answer) => String::new(),
            (answer, _) => self.say(answer),
        };
        let delta = if rest.is_empty() || !is_new { json!({}) } else { json!({ "content": rest }) };
        more.insert("jetty_metadata".to_owned(), ending.metadata(&self.run, &self.notes));
        let mut frames = frame(number, &self.delta(&delta, Some("stop"), more));
        if self.wish.include_usage {
            let usage = Map::from_iter([("usage".to_owned(), ending.usage())]);
            frames += &frame(None, &self.chunk(&json!([]), usage));
        }
        frames + DONE
    }
}

impl Telling for Frames {
    /// Everything is read, for what was said before decides what is said next.
    fn after(&self) -> u64 {
        0
    }

    fn opening(&mut self) -> String {
        let mut metadata = identity(&self.run);
        metadata.insert("status".to_owned(), "running".into());
        if !self.notes.is_empty() {
            metadata.insert("notes".to_owned(), self.notes.clone().into());
        }
        let more = Map::from_iter([("jetty_metadata".to_owned(), Value::Object(metadata))]);
        let delta = json!({ "role": "assistant", "content": "" });
        frame(None, &self.delta(&delta, None, more))
    }

    fn sign_of_life(&self) -> &'static str {
        SIGN_OF_LIFE
    }

    fn event(&mut self, event: &StoredEvent) -> String {
        let number = event.seq;
        self.seq = number;
        let Ok(event) = serde_json::from_str::<Value>(&event.json) else { return String::new() };
        let is_new = number > self.wish.after;
        let delta = match event.get("kind").and_then(Value::as_str) {
            Some("finished") => {
                return self.close(&Ending::of_event(&event), Some((number, &event)));
            }
            // What sub-agents say is said to the agent.
            Some("said") if event.get("in_sub_agent") != Some(&Value::Bool(true)) => {
                json!({ "content": self.say(&words(&event)) })
            }
            Some(_) | None if self.wish.stream_events => json!({}),
            Some(_) | None => return String::new(),
        };
        if !is_new {
            return String::new();
        }
        frame(Some(number), &self.delta(&delta, None, self.with_event(&event)))
    }

    fn ended(&mut self, job: &Job) -> String {
        self.close(&Ending::of_job(job), None)
    }

    fn cut(&mut self) -> String {
        let (id, after) = (&self.run.id, self.seq.max(self.wish.after));
        let message = format!(
            "The stream was cut, and the run goes on: take it up again with GET \
             /v1/chat/completions/chatcmpl-{id}/events?after={after}"
        );
        let error = json!({ "message": message, "type": "server_error", "param": null, "code": "stream_cut" });
        let mut metadata = identity(&self.run);
        metadata.insert("status".to_owned(), "running".into());
        frame(None, &json!({ "error": error, "jetty_metadata": metadata })) + DONE
    }

    fn stops_the_run(&self) -> bool {
        self.wish.cancel_on_disconnect
    }
}

/// All that an event says, with what its limit cut off counted.
fn words(event: &Value) -> String {
    let part = |key: &str| event.get(key).and_then(Value::as_str);
    // Events of older versions have the first line alone.
    let content = part("content").or(part("text")).unwrap_or_default().trim();
    match event.get("n_truncated_bytes").and_then(Value::as_u64) {
        Some(n_bytes) => format!("{content}\n[{n_bytes} bytes left out]"),
        None => content.to_owned(),
    }
}

fn frame(number: Option<u64>, data: &Value) -> String {
    match number {
        Some(number) => format!("id: {number}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::{RunId, Slug};

    fn frames(wish: StreamWish) -> Frames {
        let slug = |name| Slug::new(name).unwrap();
        let run =
            RunName { collection: slug("c"), task: slug("t"), id: RunId::new("1a2b3c4d").unwrap() };
        Frames::new(run, ("m".to_owned(), 7), Vec::new(), wish)
    }

    fn events(events: &[Value]) -> Vec<StoredEvent> {
        let stored = |(seq, event): (u64, &Value)| StoredEvent {
            seq,
            last: event["kind"] == "finished",
            json: event.to_string(),
        };
        (1..).zip(events).map(stored).collect()
    }

    /// The frames after the opening, as numbers and data.
    fn told(wish: StreamWish, all: &[Value]) -> Vec<(Option<u64>, Value)> {
        let mut frames = frames(wish);
        let text: String = events(all).iter().map(|event| frames.event(event)).collect();
        let frames = text.split_terminator("\n\n").map(|frame| {
            let (number, data) = match frame.strip_prefix("id: ") {
                Some(rest) => rest.split_once('\n').map(|(n, d)| (n.parse().ok(), d)).unwrap(),
                None => (None, frame),
            };
            let data = data.strip_prefix("data: ").unwrap();
            (number, serde_json::from_str(data).unwrap_or_else(|_| data.into()))
        });
        frames.collect()
    }

    fn content(frames: &[(Option<u64>, Value)]) -> String {
        let parts = frames.iter();
        parts.filter_map(|(_, data)| data.pointer("/choices/0/delta/content")?.as_str()).collect()
    }

    fn said(text: &str) -> Value {
        json!({"kind": "said", "text": "first line", "content": text, "in_sub_agent": false})
    }

    fn completed(answer: &str) -> Value {
        json!({"kind": "finished", "status": "completed", "answer": answer, "failure": null})
    }

    #[test]
    fn what_the_agent_says_is_the_content_and_the_answer_is_not_said_twice() {
        let sub = json!({"kind": "said", "content": "inside", "in_sub_agent": true});
        for (all, expected) in [
            (vec![said("One.\nTwo."), said("Done."), completed("Done.")], "One.\nTwo.\n\nDone."),
            (vec![said("One."), sub, completed("Two.")], "One.\n\nTwo."),
            (vec![completed("Only.")], "Only."),
            (vec![said("One."), completed("")], "One."),
            (vec![completed("")], NO_TEXT),
        ] {
            assert_eq!(content(&told(StreamWish::default(), &all)), expected);
        }
    }

    #[test]
    fn a_stream_ends_with_the_run_its_usage_and_done() {
        let wish = StreamWish { include_usage: true, ..StreamWish::default() };
        let all = told(wish, &[json!({"kind": "phase"}), completed("Done.")]);
        let last = &all[0].1;
        assert_eq!(all[0].0, Some(2));
        assert_eq!(
            last["choices"],
            json!([{"index": 0, "delta": {"content": "Done."}, "finish_reason": "stop"}])
        );
        assert_eq!(last["jetty_metadata"]["status"], "completed");
        assert_eq!(last["jetty_metadata"]["storage_path"], "c/t/1a2b3c4d");
        assert_eq!((&all[1].1["choices"], all[1].1["usage"].is_object()), (&json!([]), true));
        assert_eq!((all.len(), &all[2].1), (3, &json!("[DONE]")));
        let failure = json!({"code": "timeout", "message": "timeout", "mend": "Wait."});
        let failed = json!({"kind": "finished", "status": "failed", "failure": failure});
        let all = told(wish, &[said("Half."), failed]);
        assert_eq!(all[1].1["error"]["code"], "timeout");
        assert_eq!(all[1].1["jetty_metadata"]["trajectory_id"], "1a2b3c4d");
        assert_eq!(all[2].1, json!("[DONE]"));
    }

    #[test]
    fn events_come_along_where_they_are_asked_for() {
        let wish = StreamWish { stream_events: true, ..StreamWish::default() };
        let all = told(wish, &[json!({"kind": "phase", "phase": "running"}), said("Hi.")]);
        assert_eq!(all[0].1["choices"][0]["delta"], json!({}));
        assert_eq!(all[0].1["jetty_event"]["phase"], "running");
        assert_eq!(all[1].1["jetty_event"]["kind"], "said");
        assert_eq!(content(&all), "Hi.");
    }

    #[test]
    fn the_opening_names_the_run_and_a_cut_says_how_to_go_on() {
        let mut frames = frames(StreamWish::default());
        let opening = frames.opening();
        assert!(opening.contains(r#""delta":{"role":"assistant","content":""}"#), "{opening}");
        assert!(opening.contains(r#""workflow_id":"c-t--1a2b3c4d""#), "{opening}");
        for event in events(&[said("a"), said("b")]) {
            frames.event(&event);
        }
        let cut = frames.cut();
        assert!(cut.contains("chatcmpl-1a2b3c4d/events?after=2"), "{cut}");
    }

    proptest! {
        /// Whoever goes on after any event has the whole content once.
        #[test]
        fn a_stream_taken_up_anywhere_loses_nothing_and_repeats_nothing(
            texts in proptest::collection::vec("[a-c\n ]{0,6}", 0..6),
            answer in "[a-c]{0,3}",
            after in 0_u64..8,
        ) {
            let mut all: Vec<Value> = texts.iter().map(|text| said(text)).collect();
            all.push(completed(&answer));
            let whole = told(StreamWish::default(), &all);
            let seen = whole.iter().take_while(|(number, _)| number.is_some_and(|n| n <= after));
            let before: Vec<_> = seen.cloned().collect();
            let later = told(StreamWish { after, ..StreamWish::default() }, &all);
            prop_assert_eq!(content(&before) + &content(&later), content(&whole));
            prop_assert_eq!(&later.last().unwrap().1, &json!("[DONE]"));
        }
    }
}
