//! Decides what goes back for a request: status, headers, bytes, and where they stop.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::choice::{Choice, Outcome};
use super::events::{self, Frame, Manner};
use super::failure;
use super::ledger::{Place, SentUsage};
use super::message::Message;
use super::route::Wire;
use super::script::{CutPoint, Failure, Fault};

const JSON: &str = "application/json";

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
    pub(super) wire: Wire,
    pub(super) place: &'r Place,
    /// Whether a stream of events is wanted.
    pub(super) stream: bool,
    pub(super) request_id: &'r str,
}

impl Addressee<'_> {
    fn refused(&self, failure: &Failure) -> Reply {
        failure::reply(failure, self.wire, self.request_id)
    }

    fn manner(&self, pace: Pace) -> Manner {
        Manner { framing: self.wire.framing(), gap: pace.gap }
    }
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
    /// The `x-amzn-errortype`, where AWS says no.
    pub(super) aws_error: Option<String>,
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
            aws_error: None,
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
}

/// What is done for a choice of the script. `message` is its answer with the names of this reply.
pub(super) fn act(choice: &Choice<'_>, message: &Message, to: &Addressee<'_>) -> Act {
    let pace = Pace { delay: choice.answer.delay, gap: choice.answer.chunk_delay };
    let fault = match choice.outcome {
        Outcome::Answer => return Act::Reply(answered(message, pace, to)),
        Outcome::Refuse => return Act::Reply(to.refused(&used_up(to.place))),
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
            let bytes = failure::inside(failure, to.wire, to.request_id);
            reply.frames.push(Frame::at_once(bytes));
            // The service ends such a stream in order, it only says no inside it.
            Act::Reply(Reply { ending: Ending::ErrorEvent, ..reply })
        }
        Fault::Fail { failure, inside: Some(_) | None } => Act::Reply(to.refused(failure)),
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
        events(to, events::stream(message, to.manner(pace)))
    } else {
        Reply::json(200, &message.whole())
    };
    Reply { delay: pace.delay, usage: Some(message.usage), ..reply }
}

/// The answer as far as `point`. What is not streamed is cut in the middle of its bytes.
fn cut(message: &Message, pace: Pace, to: &Addressee<'_>, point: CutPoint) -> Reply {
    let reply = if to.stream {
        let frames = events::stream_until(message, to.manner(pace), point);
        let usage = (!frames.is_empty()).then(|| message.usage_at_start());
        Reply { usage, ..events(to, frames) }
    } else {
        let body = Bytes::from(message.whole().to_string());
        let sent = if point == CutPoint::AfterHeaders { 0 } else { body.len() / 2 };
        let frames = vec![Frame::at_once(body.slice(..sent))];
        Reply { frames, ..Reply::whole(200, JSON, body) }
    };
    Reply { delay: pace.delay, ending: Ending::Cut, ..reply }
}

/// A stream of events.
fn events(to: &Addressee<'_>, frames: Vec<Frame>) -> Reply {
    let content_type = to.wire.framing().content_type();
    Reply { length: None, frames, ..Reply::whole(200, content_type, Bytes::new()) }
}

/// The refusal of a script that has no more turns.
fn used_up(place: &Place) -> Failure {
    let complaint =
        format!("the script has no answer for {place}: add a turn to it, or change `after_end`");
    Failure { status: 400, kind: None, message: Some(complaint), retry_after: None }
}
