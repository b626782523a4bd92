//! A message as Anthropic streams it: one event after the other, and where a stream can be cut.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::framing::Framing;
use super::message::{Block, Message};
use super::script::CutPoint;

/// Shortest piece of a text in one delta, in bytes: about what the real service sends at once.
const MIN_PIECE_BYTES: usize = 24;

/// Most deltas of one block. A text of megabytes comes in larger pieces, not in more.
const MAX_DELTAS: usize = 256;

/// Some bytes of a reply and how long to wait before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) pause: Duration,
}

impl Frame {
    pub(super) fn at_once(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), pause: Duration::ZERO }
    }
}

/// One event and what it means for a cut.
struct Event {
    kind: EventKind,
    data: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EventKind {
    Opening,
    BlockStart,
    Delta,
    BlockStop,
    ToolBlockStop,
    Closing,
}

/// How a stream is said: in what form, and how long it waits before each delta.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) framing: Framing,
    pub(super) gap: Duration,
}

/// All events of a message.
pub(super) fn stream(message: &Message, manner: Manner) -> Vec<Frame> {
    frames(&events(message), manner)
}

/// The events of a message as far as `point`.
pub(super) fn stream_until(message: &Message, manner: Manner, point: CutPoint) -> Vec<Frame> {
    let events = events(message);
    let position = |kinds: &[EventKind]| events.iter().position(|e| kinds.contains(&e.kind));
    let stops = [EventKind::BlockStop, EventKind::ToolBlockStop];
    let last = match point {
        CutPoint::Before | CutPoint::AfterHeaders => return Vec::new(),
        CutPoint::MidBlock => {
            // The first half of the first block's deltas, but at least one.
            let start = position(&[EventKind::Delta]);
            let stop = position(&stops);
            start.zip(stop).map(|(start, stop)| start + (stop - start - 1) / 2)
        }
        CutPoint::AfterBlock => position(&stops),
        CutPoint::AfterToolBlock => position(&[EventKind::ToolBlockStop])
            .or_else(|| events.iter().rposition(|event| stops.contains(&event.kind))),
    };
    // A message without blocks is cut after `message_start`.
    frames(&events[..=last.unwrap_or(0)], manner)
}

fn frames(events: &[Event], manner: Manner) -> Vec<Frame> {
    let frame = |event: &Event| {
        let pause = if event.kind == EventKind::Delta { manner.gap } else { Duration::ZERO };
        Frame { bytes: manner.framing.event(&event.data), pause }
    };
    events.iter().map(frame).collect()
}

fn events(message: &Message) -> Vec<Event> {
    let opening = json!({ "type": "message_start", "message": message.opening() });
    let mut events = vec![Event { kind: EventKind::Opening, data: opening }];
    for (index, block) in message.blocks.iter().enumerate() {
        push_block(&mut events, index, block);
        if index == 0 {
            // The real service sends its ping behind the first block's start.
            let ping = Event { kind: EventKind::BlockStart, data: json!({ "type": "ping" }) };
            events.insert(2, ping);
        }
    }
    let delta = json!({
        "type": "message_delta",
        "delta": { "stop_reason": message.stop_reason, "stop_sequence": null },
        "usage": { "output_tokens": message.usage.output },
    });
    events.push(Event { kind: EventKind::Closing, data: delta });
    events.push(Event { kind: EventKind::Closing, data: json!({ "type": "message_stop" }) });
    events
}

fn push_block(events: &mut Vec<Event>, index: usize, block: &Block) {
    let start = |content_block: Value| Event {
        kind: EventKind::BlockStart,
        data: json!({
            "type": "content_block_start", "index": index, "content_block": content_block,
        }),
    };
    let delta = |delta: Value| Event {
        kind: EventKind::Delta,
        data: json!({ "type": "content_block_delta", "index": index, "delta": delta }),
    };
    let stop = |kind: EventKind| Event {
        kind,
        data: json!({ "type": "content_block_stop", "index": index }),
    };
    match block {
        Block::Thinking { text, signature } => {
            events.push(start(json!({ "type": "thinking", "thinking": "", "signature": "" })));
            let thinking = |piece| delta(json!({ "type": "thinking_delta", "thinking": piece }));
            events.extend(pieces(text).map(thinking));
            events.push(delta(json!({ "type": "signature_delta", "signature": signature })));
            events.push(stop(EventKind::BlockStop));
        }
        Block::Text(text) => {
            events.push(start(json!({ "type": "text", "text": "" })));
            let text_delta = |piece| delta(json!({ "type": "text_delta", "text": piece }));
            events.extend(pieces(text).map(text_delta));
            events.push(stop(EventKind::BlockStop));
        }
        Block::ToolUse { id, name, input } => {
            let empty = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
            events.push(start(empty));
            let json = Value::Object(input.clone()).to_string();
            let input_delta =
                |piece| delta(json!({ "type": "input_json_delta", "partial_json": piece }));
            events.push(input_delta(""));
            events.extend(pieces(&json).map(input_delta));
            events.push(stop(EventKind::ToolBlockStop));
        }
    }
}

/// Cuts a text at character borders into pieces of the same size.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let size = MIN_PIECE_BYTES.max(text.len().div_ceil(MAX_DELTAS));
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, behind) = rest.split_at(rest.ceil_char_boundary(size));
        rest = behind;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::ledger::Place;
    use super::super::script::Script;
    use super::*;

    fn message(yaml: &str) -> Message {
        let script = Script::parse(yaml).unwrap();
        let answer = script.main[0].answer.as_ref().unwrap();
        Message::new(answer, "claude-made-up", &Place::Main { turn: 1 }, 0)
    }

    fn text(frames: &[Frame]) -> String {
        frames.iter().map(|frame| String::from_utf8(frame.bytes.to_vec()).unwrap()).collect()
    }

    const SSE: Manner = Manner { framing: Framing::Sse, gap: Duration::ZERO };

    const FULL: &str = "
turns:
  - thinking: Hm.
    text: I will write the file now, and then I am done.
    tools: [ { Bash: { command: echo hi } } ]
    usage: { input: 1200, output: 80, cache_read: 900, cache_write_5m: 100, cache_write_1h: 7 }
";

    #[test]
    fn a_message_is_streamed_as_anthropic_does() {
        expect![[r#"
            event: message_start
            data: {"type":"message_start","message":{"id":"msg_main_1","type":"message","role":"assistant","model":"claude-made-up","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1200,"cache_creation_input_tokens":107,"cache_read_input_tokens":900,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":7},"output_tokens":1,"service_tier":"standard"}}}

            event: content_block_start
            data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

            event: ping
            data: {"type":"ping"}

            event: content_block_delta
            data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}

            event: content_block_delta
            data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2NyaXB0ZWQ="}}

            event: content_block_stop
            data: {"type":"content_block_stop","index":0}

            event: content_block_start
            data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

            event: content_block_delta
            data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"I will write the file no"}}

            event: content_block_delta
            data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"w, and then I am done."}}

            event: content_block_stop
            data: {"type":"content_block_stop","index":1}

            event: content_block_start
            data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_main_1_1","name":"Bash","input":{}}}

            event: content_block_delta
            data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

            event: content_block_delta
            data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"command\":\"echo hi\"}"}}

            event: content_block_stop
            data: {"type":"content_block_stop","index":2}

            event: message_delta
            data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":80}}

            event: message_stop
            data: {"type":"message_stop"}

        "#]].assert_eq(&text(&stream(&message(FULL), SSE)));
    }

    #[test]
    fn a_stream_is_cut_at_its_point() {
        let last_event = |yaml: &str, point| {
            let frames = stream_until(&message(yaml), SSE, point);
            let last = frames.last().map(|frame| String::from_utf8(frame.bytes.to_vec()).unwrap());
            format!("{}: {}", frames.len(), last.unwrap_or_default())
        };
        expect!["0: "].assert_eq(&last_event(FULL, CutPoint::Before));
        expect!["0: "].assert_eq(&last_event(FULL, CutPoint::AfterHeaders));
        expect![[r#"
            4: event: content_block_delta
            data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}

        "#]].assert_eq(&last_event(FULL, CutPoint::MidBlock));
        expect![[r#"
            6: event: content_block_stop
            data: {"type":"content_block_stop","index":0}

        "#]]
        .assert_eq(&last_event(FULL, CutPoint::AfterBlock));
        expect![[r#"
            14: event: content_block_stop
            data: {"type":"content_block_stop","index":2}

        "#]]
        .assert_eq(&last_event(FULL, CutPoint::AfterToolBlock));
        let no_tool = "turns: [{ thinking: a, text: b }]";
        expect![[r#"
            9: event: content_block_stop
            data: {"type":"content_block_stop","index":1}

        "#]]
        .assert_eq(&last_event(no_tool, CutPoint::AfterToolBlock));
        let nothing = "turns: [{ text: '' }]";
        expect![[r#"
            1: event: message_start
            data: {"type":"message_start","message":{"id":"msg_main_1","type":"message","role":"assistant","model":"claude-made-up","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard"}}}

        "#]].assert_eq(&last_event(nothing, CutPoint::MidBlock));
    }

    #[test]
    fn only_deltas_are_slow() {
        let gap = Duration::from_millis(7);
        for frame in stream(&message(FULL), Manner { gap, ..SSE }) {
            let is_delta = frame.bytes.starts_with(b"event: content_block_delta");
            assert_eq!(frame.pause, if is_delta { gap } else { Duration::ZERO }, "{frame:?}");
        }
    }

    #[test]
    fn a_large_text_comes_in_few_pieces() {
        let large = "x".repeat(10 * 1024 * 1024);
        assert_eq!(pieces(&large).count(), MAX_DELTAS);
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_text_are_the_text(text in "\\PC{0,400}") {
            let pieces: Vec<&str> = pieces(&text).collect();
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(pieces.concat(), text);
        }
    }
}
