//! Puts the events of a stream into bytes: as server-sent events, or as the frames of AWS.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// What both kinds of frames say about their payload.
const JSON: &str = "application/json";

/// How a stream's events are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `text/event-stream`.
    Sse,
    /// `application/vnd.amazon.eventstream`.
    Aws,
}

impl Framing {
    /// The content type of a stream.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream; charset=utf-8",
            Self::Aws => "application/vnd.amazon.eventstream",
        }
    }

    /// An event of Anthropic's stream, which names itself in `type`.
    pub(super) fn event(self, event: &Value) -> Bytes {
        match self {
            Self::Sse => {
                let name = event["type"].as_str().unwrap_or_default();
                format!("event: {name}\ndata: {event}\n\n").into()
            }
            Self::Aws => {
                let chunk = json!({ "bytes": STANDARD.encode(event.to_string()) });
                aws_frame([(":event-type", "chunk"), (":message-type", "event")], &chunk)
            }
        }
    }
}

/// A frame that ends a stream of AWS with an error. `exception` is its name on the wire, such as
/// `throttlingException`.
pub(super) fn aws_exception(exception: &str, error: &Value) -> Bytes {
    aws_frame([(":exception-type", exception), (":message-type", "exception")], error)
}

fn aws_frame([kind, message_type]: [(&'static str, &str); 2], payload: &Value) -> Bytes {
    let header = |(name, value): (&'static str, &str)| {
        Header::new(name, HeaderValue::String(value.to_owned().into()))
    };
    let headers = [kind, (":content-type", JSON), message_type].map(header);
    let message = Message::new_from_parts(headers.into(), payload.to_string());
    let mut frame = Vec::new();
    write_message_to(&message, &mut frame).expect("a delta and a name are far below the limits");
    frame.into()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// 16 bytes a line, as numbers and as text.
    fn dump(bytes: &[u8]) -> String {
        let mut dump = String::new();
        for line in bytes.chunks(16) {
            let digits: String = line.iter().map(|byte| format!("{byte:02x} ")).collect();
            let is_shown = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
            let shown = |byte: &u8| if is_shown(byte) { char::from(*byte) } else { '.' };
            let text: String = line.iter().map(shown).collect();
            writeln!(dump, "{digits:<48}|{text}|").unwrap();
        }
        dump
    }

    fn check(frame: &Bytes, expected: Expect) {
        expected.assert_eq(&dump(frame));
    }

    #[test]
    fn an_event_is_one_frame() {
        check(
            &Framing::Sse.event(&json!({ "type": "ping" })),
            expect![[r#"
            65 76 65 6e 74 3a 20 70 69 6e 67 0a 64 61 74 61 |event: ping.data|
            3a 20 7b 22 74 79 70 65 22 3a 22 70 69 6e 67 22 |: {"type":"ping"|
            7d 0a 0a                                        |}..|
        "#]],
        );
        check(
            &Framing::Aws.event(&json!({ "type": "ping" })),
            expect![[r#"
            00 00 00 7b 00 00 00 4b 0a 2e 96 af 0b 3a 65 76 |...{...K.....:ev|
            65 6e 74 2d 74 79 70 65 07 00 05 63 68 75 6e 6b |ent-type...chunk|
            0d 3a 63 6f 6e 74 65 6e 74 2d 74 79 70 65 07 00 |.:content-type..|
            10 61 70 70 6c 69 63 61 74 69 6f 6e 2f 6a 73 6f |.application/jso|
            6e 0d 3a 6d 65 73 73 61 67 65 2d 74 79 70 65 07 |n.:message-type.|
            00 05 65 76 65 6e 74 7b 22 62 79 74 65 73 22 3a |..event{"bytes":|
            22 65 79 4a 30 65 58 42 6c 49 6a 6f 69 63 47 6c |"eyJ0eXBlIjoicGl|
            75 5a 79 4a 39 22 7d a0 1f 56 c4                |uZyJ9"}..V.|
        "#]],
        );
    }

    #[test]
    fn an_exception_is_one_frame() {
        let error = json!({ "message": "slow down" });
        check(
            &aws_exception("throttlingException", &error),
            expect![[r#"
            00 00 00 88 00 00 00 61 de 01 75 f4 0f 3a 65 78 |.......a..u..:ex|
            63 65 70 74 69 6f 6e 2d 74 79 70 65 07 00 13 74 |ception-type...t|
            68 72 6f 74 74 6c 69 6e 67 45 78 63 65 70 74 69 |hrottlingExcepti|
            6f 6e 0d 3a 63 6f 6e 74 65 6e 74 2d 74 79 70 65 |on.:content-type|
            07 00 10 61 70 70 6c 69 63 61 74 69 6f 6e 2f 6a |...application/j|
            73 6f 6e 0d 3a 6d 65 73 73 61 67 65 2d 74 79 70 |son.:message-typ|
            65 07 00 09 65 78 63 65 70 74 69 6f 6e 7b 22 6d |e...exception{"m|
            65 73 73 61 67 65 22 3a 22 73 6c 6f 77 20 64 6f |essage":"slow do|
            77 6e 22 7d 83 2e e0 72                         |wn"}...r|
        "#]],
        );
    }

    /// The checksum of zlib, gzip and PNG, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 }
            })
        })
    }

    fn number(frame: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_checksum_of_these_tests_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    /// What an SDK reads from bytes that come in pieces.
    fn read(bytes: &[u8], n_piece_bytes: usize) -> Vec<Message> {
        let mut decoder = MessageFrameDecoder::new();
        let mut pending = bytes::BytesMut::new();
        let mut messages = Vec::new();
        for piece in bytes.chunks(n_piece_bytes) {
            pending.extend_from_slice(piece);
            while let DecodedFrame::Complete(message) = decoder.decode_frame(&mut pending).unwrap()
            {
                messages.push(message);
            }
        }
        assert!(pending.is_empty());
        messages
    }

    proptest! {
        #[test]
        fn lengths_and_checksums_are_right(text in "\\PC{0,300}") {
            let frame = Framing::Aws.event(&json!({ "type": "text", "text": text }));
            prop_assert_eq!(number(&frame, 0) as usize, frame.len());
            prop_assert_eq!(number(&frame, 8), crc32(&frame[..8]));
            let end = frame.len() - 4;
            prop_assert_eq!(number(&frame, end), crc32(&frame[..end]));
        }

        #[test]
        fn an_sdk_reads_what_was_said(
            texts in proptest::collection::vec("\\PC{0,80}", 1..6),
            n_piece_bytes in 1_usize..200,
        ) {
            let events: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
            let frames: Vec<Bytes> = events.iter().map(|e| Framing::Aws.event(e)).collect();
            let said = read(&frames.concat(), n_piece_bytes).into_iter().map(|message| {
                let chunk: Value = serde_json::from_slice(message.payload()).unwrap();
                let event = STANDARD.decode(chunk["bytes"].as_str().unwrap()).unwrap();
                serde_json::from_slice(&event).unwrap()
            });
            prop_assert_eq!(said.collect::<Vec<Value>>(), events);
        }
    }

    #[test]
    fn a_frame_with_a_flipped_bit_is_refused() {
        let frame = Framing::Aws.event(&json!({ "type": "ping" }));
        for at in [3, 9, 20, frame.len() - 6, frame.len() - 1] {
            let mut broken = frame.to_vec();
            broken[at] ^= 1;
            let read = aws_smithy_eventstream::frame::read_message_from(&broken[..]);
            assert!(read.is_err(), "the bit at {at} is not seen");
        }
    }
}
