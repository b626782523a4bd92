//! Reading along while an answer passes. What cannot be read passes all the same.

use serde_json::Value;

use super::completion::Completion;
use super::frames::Frames;

/// Largest answer in one piece that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How a stream says that it is over.
const DONE: &[u8] = b"[DONE]";

/// Reads one answer.
#[derive(Debug)]
pub struct Reading {
    form: Form,
    completion: Completion,
}

#[derive(Debug)]
enum Form {
    /// One JSON text; `None` once it is too long.
    Json(Option<Vec<u8>>),
    /// Server-sent events.
    Events(Box<Frames>),
}

impl Reading {
    /// Begins to read an answer of a content type.
    #[must_use]
    pub fn new(content_type: &str) -> Self {
        let is_stream =
            content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        let form =
            if is_stream { Form::Events(Box::default()) } else { Form::Json(Some(Vec::new())) };
        Self { form, completion: Completion::default() }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, piece: &[u8]) {
        match &mut self.form {
            Form::Json(kept) => {
                if kept.as_ref().is_some_and(|kept| kept.len() + piece.len() > MAX_ANSWER_BYTES) {
                    *kept = None;
                }
                if let Some(kept) = kept {
                    kept.extend_from_slice(piece);
                }
            }
            Form::Events(frames) => {
                let completion = &mut self.completion;
                frames.feed(piece, |data| {
                    if data == DONE {
                        completion.is_done = true;
                    } else if let Ok(chunk) = serde_json::from_slice::<Value>(data) {
                        completion.add(&chunk);
                    }
                });
            }
        }
    }

    /// Whether the stream has said that it is over. Clients go away then, and need not wait for the
    /// end of the connection.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.completion.is_done
    }

    /// What was said.
    #[must_use]
    pub fn finish(mut self) -> Completion {
        match &self.form {
            Form::Json(Some(bytes)) => {
                if let Ok(answer) = serde_json::from_slice::<Value>(bytes) {
                    self.completion.add(&answer);
                }
            }
            Form::Json(None) => self.completion.is_unread = true,
            Form::Events(_) => {}
        }
        self.completion
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::completion::{Choice, TokenCounts, ToolCall};
    use super::*;

    fn streamed(chunks: &[Value], cut: usize) -> Completion {
        let mut text = String::from(": hello\n\n");
        for chunk in chunks {
            text.push_str(&format!("data: {chunk}\n\n"));
        }
        text.push_str("data: [DONE]\n\n");
        let mut reading = Reading::new("text/event-stream; charset=utf-8");
        text.as_bytes().chunks(cut).for_each(|piece| reading.feed(piece));
        reading.finish()
    }

    fn chunk(delta: Value, finish: Value) -> Value {
        json!({"id": "c-1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn the_chunks_of_a_stream_are_one_completion_wherever_they_are_cut() {
        let call = |arguments: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
        let begun = json!({"tool_calls": [{"index": 0, "id": "t-1", "function": {"name": "look", "arguments": ""}}]});
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 6}, "cost": 0.5});
        let chunks = [
            chunk(json!({"role": "assistant", "content": ""}), json!(null)),
            chunk(json!({"content": "Grüß "}), json!(null)),
            chunk(json!({"content": "Gott"}), json!(null)),
            chunk(begun, json!(null)),
            chunk(call("{\"at\":"), json!(null)),
            chunk(call("1}"), json!("tool_calls")),
            json!({"id": "c-1", "choices": [], "usage": usage}),
        ];
        let tool = ToolCall {
            id: Some("t-1".to_owned()),
            name: "look".to_owned(),
            arguments: "{\"at\":1}".to_owned(),
        };
        let choice = Choice {
            text: "Grüß Gott".to_owned(),
            tool_calls: BTreeMap::from([(0, tool)]),
            finish_reason: Some("tool_calls".to_owned()),
            ..Choice::default()
        };
        let counts =
            TokenCounts { prompt: 10, completion: 4, total: 14, cached: 6, cost_usd: Some(0.5) };
        for cut in [1, 2, 3, 7, 64, 100_000] {
            let said = streamed(&chunks, cut);
            assert_eq!(said.choices, BTreeMap::from([(0, choice.clone())]), "{cut}");
            assert_eq!((said.id.as_deref(), said.model.as_deref()), (Some("c-1"), Some("m-1")));
            assert_eq!((said.usage, said.is_done, said.error.clone()), (Some(counts), true, None));
        }
    }

    #[test]
    fn an_answer_in_one_piece_is_read_at_its_end() {
        let answer = json!({"id": "c-1", "model": "m-1", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": [{"type": "text", "text": "b"}]}, "finish_reason": "length"},
        ], "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
        let mut reading = Reading::new("application/json");
        answer.to_string().as_bytes().chunks(5).for_each(|piece| reading.feed(piece));
        let said = reading.finish();
        let texts: Vec<&str> = said.choices.values().map(|choice| choice.text.as_str()).collect();
        assert_eq!((texts, said.usage.map(|u| u.total)), (vec!["a", "b"], Some(3)));
        assert!(said.is_whole());
    }

    #[test]
    fn an_error_inside_a_stream_is_kept_and_nonsense_is_not() {
        let error = json!({"error": {"message": "overloaded", "code": 529}});
        let said = streamed(&[chunk(json!({"content": "a"}), json!(null)), error, json!([1])], 9);
        assert_eq!(said.error.as_deref(), Some("overloaded"));
        let odd = json!({"id": 1, "choices": [7, {"delta": {"content": 7, "tool_calls": 7}}], "usage": 7});
        assert_eq!(streamed(&[odd], 9).choices.values().map(|c| c.text.len()).sum::<usize>(), 0);
    }

    #[test]
    fn what_is_no_completion_is_not_whole_and_what_is_too_long_may_be() {
        for (text, is_whole) in [
            ("<html>".to_owned(), false),
            ("{}".to_owned(), false),
            ("x".repeat(MAX_ANSWER_BYTES + 1), true),
        ] {
            let mut reading = Reading::new("application/json");
            reading.feed(text.as_bytes());
            assert_eq!(reading.finish().is_whole(), is_whole);
        }
    }

    #[test]
    fn what_is_kept_has_a_limit_and_the_rest_is_counted() {
        let long = "é".repeat(400_000);
        let said = streamed(
            &[
                chunk(json!({"content": long}), json!(null)),
                chunk(json!({"content": long}), json!("stop")),
            ],
            70_000,
        );
        let kept = said.choices[&0].text.len();
        assert_eq!((kept, said.n_truncated_bytes), (1 << 20, 1_600_000 - (1 << 20)));
    }
}
