//! Reads the model and the usage out of an answer while its bytes pass, and holds nothing back.
//!
//! The readers of server-sent events at hand take their source whole and bound nothing; here the
//! bytes belong to somebody else, and a hostile service may never end a line.

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BytesMut};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};

use crate::trajectory::Usage;

/// Longest line or frame that is read, in bytes. Those with usage have a few hundred.
const MAX_PIECE_BYTES: usize = 1 << 20;

/// Longest answer in one piece that is read, in bytes: far beyond the longest reply of a model.
const MAX_WHOLE_BYTES: usize = 8 << 20;

/// What an answer told of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metered {
    /// The model that answered.
    pub(super) model: Option<String>,
    /// What it used, as far as it was told.
    pub(super) usage: Option<Usage>,
    /// Whether the message came to its end.
    pub(super) is_complete: bool,
}

/// Reads along.
#[derive(Debug)]
pub(super) struct Meter {
    form: Form,
    found: Metered,
}

/// How an answer tells its parts apart.
#[derive(Debug)]
enum Form {
    /// Server-sent events; what there is of the line so far, or nothing where it is too long.
    Lines(Option<Vec<u8>>),
    /// AWS's frames; nothing once they could not be read.
    Frames(Option<(MessageFrameDecoder, BytesMut)>),
    /// One JSON text; nothing where it is too long.
    Whole(Option<Vec<u8>>),
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    message: Option<Reply>,
    usage: Option<Counts>,
}

/// A message, whole or at its start.
#[derive(Deserialize)]
struct Reply {
    model: Option<String>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(rename = "type")]
    kind: Option<String>,
    model: Option<String>,
    usage: Option<Counts>,
}

/// The provider's usage object. A later one replaces what it names.
#[derive(Debug, Default, Deserialize)]
struct Counts {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    #[serde(default, deserialize_with = "lenient")]
    server_tool_use: ServerTools,
    /// What the service did in turn to give one answer. Some of it (a conversation that it made shorter)
    /// is billed, and in no other count.
    #[serde(default, deserialize_with = "lenient")]
    iterations: Vec<Counts>,
}

#[derive(Debug, Default, Deserialize)]
struct ServerTools {
    web_search_requests: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

/// A frame of AWS around an event.
#[derive(Deserialize)]
struct Chunk {
    bytes: String,
}

impl Meter {
    /// A meter for an answer of this content type.
    pub(super) fn new(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let form = match kind {
            "text/event-stream" => Form::Lines(Some(Vec::new())),
            "application/vnd.amazon.eventstream" => {
                Form::Frames(Some((MessageFrameDecoder::new(), BytesMut::new())))
            }
            _ => Form::Whole(Some(Vec::new())),
        };
        Self { form, found: Metered::default() }
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Lines(line) => feed_lines(line, bytes, &mut self.found),
            Form::Frames(frames) => feed_frames(frames, bytes, &mut self.found),
            Form::Whole(whole) => keep(whole, bytes, MAX_WHOLE_BYTES),
        }
    }

    /// What was found. `is_whole` is whether the bytes came to their end.
    pub(super) fn finish(mut self, is_whole: bool) -> Metered {
        if let Form::Whole(Some(text)) = &self.form
            && let Ok(whole) = serde_json::from_slice::<Whole>(text)
        {
            self.found.is_complete = is_whole && whole.kind.as_deref() == Some("message");
            self.found.learn(Reply { model: whole.model, usage: whole.usage });
        }
        self.found.is_complete &= is_whole;
        self.found
    }
}

fn feed_lines(line: &mut Option<Vec<u8>>, mut bytes: &[u8], found: &mut Metered) {
    while let Some(end) = memchr::memchr(b'\n', bytes) {
        keep(line, &bytes[..end], MAX_PIECE_BYTES);
        if let Some(data) = line.as_deref().and_then(|line| line.strip_prefix(b"data:")) {
            found.hear(data);
        }
        *line = Some(Vec::new());
        bytes = &bytes[end + 1..];
    }
    keep(line, bytes, MAX_PIECE_BYTES);
}

fn feed_frames(
    frames: &mut Option<(MessageFrameDecoder, BytesMut)>,
    bytes: &[u8],
    found: &mut Metered,
) {
    let Some((decoder, buffer)) = frames else { return };
    buffer.extend_from_slice(bytes);
    loop {
        match decoder.decode_frame(&mut *buffer) {
            Ok(DecodedFrame::Complete(message)) => {
                let chunk = serde_json::from_slice::<Chunk>(message.payload());
                let event = chunk.ok().and_then(|chunk| STANDARD.decode(chunk.bytes).ok());
                event.iter().for_each(|event| found.hear(event));
            }
            Ok(DecodedFrame::Incomplete) if buffer.remaining() <= MAX_PIECE_BYTES => return,
            Ok(DecodedFrame::Incomplete) | Err(_) => {
                *frames = None;
                return;
            }
        }
    }
}

/// Keeps what there is, or lets go of all of it where it is too much.
fn keep(kept: &mut Option<Vec<u8>>, bytes: &[u8], limit: usize) {
    if let Some(text) = kept {
        if text.len() + bytes.len() > limit {
            *kept = None;
        } else {
            text.extend_from_slice(bytes);
        }
    }
}

impl Metered {
    /// An event of Anthropic's stream.
    fn hear(&mut self, event: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event>(event) else { return };
        match event.kind.as_deref() {
            Some("message_start") => event.message.into_iter().for_each(|reply| self.learn(reply)),
            Some("message_delta") => event.usage.iter().for_each(|counts| self.count(counts)),
            Some("message_stop") => self.is_complete = true,
            Some("error") => self.is_complete = false,
            Some(_) | None => {}
        }
    }

    fn learn(&mut self, reply: Reply) {
        // It goes into a log: no service may fill it by a name.
        let clipped = |model: String| model.chars().take(200).collect();
        self.model = reply.model.map(clipped).or(self.model.take());
        reply.usage.iter().for_each(|counts| self.count(counts));
    }

    fn count(&mut self, counts: &Counts) {
        counts.tell(self.usage.get_or_insert_default());
    }
}

impl Counts {
    fn tell(&self, usage: &mut Usage) {
        let set = |to: &mut u64, count: Option<u64>| *to = count.unwrap_or(*to);
        set(&mut usage.input, self.input_tokens);
        set(&mut usage.output, self.output_tokens);
        set(&mut usage.cache_read, self.cache_read_input_tokens);
        set(&mut usage.web_searches, self.server_tool_use.web_search_requests);
        self.tell_written(usage);
        let mut all = Usage::default();
        for iteration in &self.iterations {
            let mut one = Usage::default();
            iteration.tell(&mut one);
            all = all.plus(&one);
        }
        usage.input = usage.input.max(all.input);
        usage.output = usage.output.max(all.output);
        usage.cache_read = usage.cache_read.max(all.cache_read);
        usage.web_searches = usage.web_searches.max(all.web_searches);
        if all.cache_write() > usage.cache_write() {
            usage.cache_write_5m = all.cache_write_5m;
            usage.cache_write_1h = all.cache_write_1h;
            usage.cache_write_unsplit = all.cache_write_unsplit;
        }
    }

    /// What was written to the cache, and for how long. A sum that is told alone, as at the end of a
    /// stream, takes nothing back of how it was split before.
    fn tell_written(&self, usage: &mut Usage) {
        let split = self.cache_creation.as_ref().and_then(CacheCreation::split);
        let sum = split.map(|(short, long)| short.saturating_add(long));
        let Some(written) = self.cache_creation_input_tokens.or(sum) else { return };
        // The dearer part first, where they do not fit together.
        let (short, long) = split.unwrap_or((usage.cache_write_5m, usage.cache_write_1h));
        usage.cache_write_1h = long.min(written);
        usage.cache_write_5m = short.min(written - usage.cache_write_1h);
        usage.cache_write_unsplit = written - usage.cache_write_1h - usage.cache_write_5m;
    }
}

impl CacheCreation {
    /// Tokens for five minutes and for an hour, where any of them is told.
    fn split(&self) -> Option<(u64, u64)> {
        let Self { ephemeral_5m_input_tokens: short, ephemeral_1h_input_tokens: long } = self;
        short.or(*long)?;
        Some((short.unwrap_or(0), long.unwrap_or(0)))
    }
}

/// Reads what may have another shape one day: then it is nothing, and the other counts are read.
fn lenient<'de, T: DeserializeOwned + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn events() -> [Value; 4] {
        [
            json!({"type": "message_start", "message": {"model": "m-1", "usage": {
                "input_tokens": 100, "output_tokens": 1, "cache_read_input_tokens": 7,
                "cache_creation_input_tokens": 30, "cache_creation": {
                    "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 4}}}}),
            json!({"type": "content_block_delta", "delta": {"text": "data: {\"type\":\"error\"}\n"}}),
            json!({"type": "message_delta", "usage": {"output_tokens": 17}}),
            json!({"type": "message_stop"}),
        ]
    }

    fn sse(events: &[Value]) -> Vec<u8> {
        let frame = |event: &Value| format!("event: {}\r\ndata: {event}\r\n\r\n", event["type"]);
        events.iter().map(frame).collect::<String>().into_bytes()
    }

    fn aws(events: &[Value]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in events {
            let name = HeaderValue::String("chunk".into());
            let payload = json!({ "bytes": STANDARD.encode(event.to_string()) }).to_string();
            let message = Message::new_from_parts(vec![Header::new(":event-type", name)], payload);
            write_message_to(&message, &mut bytes).unwrap();
        }
        bytes
    }

    fn metered(content_type: &str, bytes: &[u8], step: usize, is_whole: bool) -> Metered {
        let mut meter = Meter::new(content_type);
        bytes.chunks(step).for_each(|chunk| meter.feed(chunk));
        meter.finish(is_whole)
    }

    fn all() -> Metered {
        let usage = Usage {
            input: 100,
            output: 17,
            cache_read: 7,
            cache_write_5m: 20,
            cache_write_1h: 4,
            cache_write_unsplit: 6,
            ..Usage::default()
        };
        Metered { model: Some("m-1".to_owned()), usage: Some(usage), is_complete: true }
    }

    const SSE: &str = "text/event-stream; charset=utf-8";
    const AWS: &str = "application/vnd.amazon.eventstream";

    proptest! {
        #[test]
        fn usage_does_not_depend_on_how_the_bytes_are_cut(step in 1_usize..400) {
            prop_assert_eq!(metered(SSE, &sse(&events()), step, true), all());
            prop_assert_eq!(metered(AWS, &aws(&events()), step, true), all());
        }

        #[test]
        fn no_bytes_bring_a_meter_down(bytes: Vec<u8>, step in 1_usize..50) {
            for content_type in [SSE, AWS, "application/json"] {
                let _ = metered(content_type, &bytes, step, true);
            }
        }
    }

    #[test]
    fn an_answer_in_one_piece_is_metered_too() {
        let mut reply = events()[0]["message"].clone();
        reply["type"] = json!("message");
        reply["usage"]["output_tokens"] = json!(17);
        let bytes = reply.to_string();
        assert_eq!(metered("application/json", bytes.as_bytes(), 10, true), all());
        let error = json!({"type": "error", "error": {}}).to_string();
        assert_eq!(metered("application/json", error.as_bytes(), 10, true), Metered::default());
    }

    fn usage_of(deltas: &[Value]) -> Usage {
        let mut all = events().to_vec();
        all.splice(
            2..3,
            deltas.iter().map(|usage| json!({"type": "message_delta", "usage": usage})),
        );
        metered(SSE, &sse(&all), 50, true).usage.unwrap()
    }

    #[test]
    fn a_sum_that_is_told_alone_takes_nothing_back_of_how_it_was_split() {
        for (written, short, long, unsplit) in
            [(30, 20, 4, 6), (50, 20, 4, 26), (22, 18, 4, 0), (3, 0, 3, 0)]
        {
            let usage = usage_of(&[json!({"cache_creation_input_tokens": written})]);
            let found = [usage.cache_write_5m, usage.cache_write_1h, usage.cache_write_unsplit];
            assert_eq!(found, [short, long, unsplit], "{written}");
        }
        let split = json!({"ephemeral_1h_input_tokens": 9});
        let usage = usage_of(&[json!({"cache_creation_input_tokens": 9, "cache_creation": split})]);
        assert_eq!((usage.cache_write_1h, usage.cache_write()), (9, 9));
    }

    #[test]
    fn what_a_service_did_besides_answering_is_counted() {
        let delta = json!({
            "input_tokens": 23_000, "output_tokens": 1_000,
            "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
            "iterations": [
                {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500,
                 "cache_creation_input_tokens": 50, "cache_creation": {"ephemeral_1h_input_tokens": 50}},
                {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
            ],
        });
        let usage = usage_of(&[delta]);
        assert_eq!((usage.input, usage.output, usage.web_searches), (203_000, 4_500, 3));
        assert_eq!((usage.cache_write_1h, usage.cache_write()), (50, 50));
        // Iterations that the other counts hold already are not counted twice.
        let whole = json!({"input_tokens": 5, "output_tokens": 7, "iterations": [
            {"type": "message", "input_tokens": 5, "output_tokens": 7}]});
        let usage = usage_of(&[whole]);
        assert_eq!((usage.input, usage.output), (5, 7));
        let odd =
            json!({"input_tokens": 5, "output_tokens": 7, "iterations": 1, "server_tool_use": []});
        let usage = usage_of(&[odd]);
        assert_eq!((usage.input, usage.output), (5, 7));
    }

    #[test]
    fn a_stream_that_breaks_off_tells_what_it_had_told() {
        let cut = &events()[..2];
        for (content_type, bytes) in [(SSE, sse(cut)), (AWS, aws(cut))] {
            let found = metered(content_type, &bytes, 7, false);
            let usage = found.usage.unwrap();
            assert_eq!((usage.input, usage.output, found.is_complete), (100, 1, false));
        }
        assert!(!metered(SSE, &sse(&events()), 7, false).is_complete);
    }

    #[test]
    fn an_endless_line_is_not_kept_and_what_follows_it_is_read() {
        let mut bytes = vec![b'x'; 3 * MAX_PIECE_BYTES];
        bytes.push(b'\n');
        bytes.extend(sse(&events()));
        let mut meter = Meter::new(SSE);
        for chunk in bytes.chunks(64 << 10) {
            meter.feed(chunk);
            if let Form::Lines(Some(line)) = &meter.form {
                assert!(line.len() <= MAX_PIECE_BYTES);
            }
        }
        assert_eq!(meter.finish(true), all());
    }
}
