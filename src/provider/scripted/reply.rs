//! Decides what goes back for a request: status, headers, bytes, and where they stop.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::choice::{Choice, Outcome};
use super::ledger::{Place, SentUsage};
use super::message::Message;
use super::script::{CutPoint, Failure, Fault};
use super::sse::{self, Frame};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// What is done with a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    /// Something is sent.
    Reply(Reply),
    /// The connection is closed without a byte.
    CloseUnanswered,
    /// Nothing happens until the client leaves.
    NeverAnswer,
}

/// Whom a reply goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addressee<'r> {
    pub(super) place: &'r Place,
    /// Whether a stream of events is wanted.
    pub(super) stream: bool,
    pub(super) request_id: &'r str,
}

/// How a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order.
    Whole,
    /// In order, but the stream's last event says that it failed.
    ErrorEvent,
    /// The connection is cut.
    Cut,
}

/// A reply, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    /// The `content-length`, where the body is no stream of events. A cut body is shorter.
    pub(super) length: Option<usize>,
    pub(super) retry_after: Option<u32>,
    /// Before the first byte.
    pub(super) delay: Duration,
    pub(super) frames: Vec<Frame>,
    pub(super) ending: Ending,
    /// What the frames say about usage, where they say something.
    pub(super) usage: Option<SentUsage>,
}

impl Reply {
    /// A whole body.
    pub(super) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            status,
            content_type: content_type.to_owned(),
            length: Some(body.len()),
            retry_after: None,
            delay: Duration::ZERO,
            frames: vec![Frame::at_once(body)],
            ending: Ending::Whole,
            usage: None,
        }
    }

    /// A whole JSON body.
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, JSON, body.to_string())
    }

    /// An error in Anthropic's shape.
    pub(super) fn error(failure: &Failure, request_id: &str) -> Self {
        let body = error_body(failure, request_id);
        Self { retry_after: failure.retry_after, ..Self::json(failure.status, &body) }
    }
}

/// What is done for a choice of the script. `message` is its answer with the names of this reply.
pub(super) fn act(choice: &Choice<'_>, message: &Message, to: &Addressee<'_>) -> Act {
    let pace = Pace { delay: choice.answer.delay, gap: choice.answer.chunk_delay };
    let fault = match choice.outcome {
        Outcome::Answer => return Act::Reply(answered(message, pace, to)),
        Outcome::Refuse => return Act::Reply(Reply::error(&used_up(to.place), to.request_id)),
        Outcome::Fault(fault) => fault,
    };
    match fault {
        Fault::Hang => Act::NeverAnswer,
        Fault::Drop(CutPoint::Before) => Act::CloseUnanswered,
        Fault::Drop(point) => Act::Reply(cut(message, pace, to, *point)),
        Fault::Raw(raw) => {
            Act::Reply(Reply::whole(raw.status, &raw.content_type, raw.body.clone()))
        }
        Fault::Fail { failure, inside: Some(point) } if to.stream => {
            let mut reply = cut(message, pace, to, *point);
            reply.frames.push(sse::error_event(&error_body(failure, to.request_id)));
            // The service ends such a stream in order, it only says no inside it.
            Act::Reply(Reply { ending: Ending::ErrorEvent, ..reply })
        }
        Fault::Fail { failure, inside: Some(_) | None } => {
            Act::Reply(Reply::error(failure, to.request_id))
        }
    }
}

/// How slowly an answer is said.
#[derive(Clone, Copy)]
struct Pace {
    delay: Duration,
    gap: Duration,
}

fn answered(message: &Message, pace: Pace, to: &Addressee<'_>) -> Reply {
    let reply = if to.stream {
        events(sse::stream(message, pace.gap))
    } else {
        Reply::json(200, &message.whole())
    };
    Reply { delay: pace.delay, usage: Some(message.usage), ..reply }
}

/// The answer as far as `point`. What is not streamed is cut in the middle of its bytes.
fn cut(message: &Message, pace: Pace, to: &Addressee<'_>, point: CutPoint) -> Reply {
    let reply = if to.stream {
        let frames = sse::stream_until(message, pace.gap, point);
        let usage = (!frames.is_empty()).then(|| message.usage_at_start());
        Reply { usage, ..events(frames) }
    } else {
        let body = Bytes::from(message.whole().to_string());
        let sent = if point == CutPoint::AfterHeaders { 0 } else { body.len() / 2 };
        let frames = vec![Frame::at_once(body.slice(..sent))];
        Reply { frames, ..Reply::whole(200, JSON, body) }
    };
    Reply { delay: pace.delay, ending: Ending::Cut, ..reply }
}

/// A stream of events.
fn events(frames: Vec<Frame>) -> Reply {
    Reply { length: None, frames, ..Reply::whole(200, EVENT_STREAM, Bytes::new()) }
}

/// The refusal of a script that has no more turns.
fn used_up(place: &Place) -> Failure {
    let complaint =
        format!("the script has no answer for {place}: add a turn to it, or change `after_end`");
    Failure::new(400, None, Some(complaint))
}

fn error_body(failure: &Failure, request_id: &str) -> Value {
    json!({
        "type": "error",
        "error": { "type": failure.kind, "message": failure.message },
        "request_id": request_id,
    })
}
