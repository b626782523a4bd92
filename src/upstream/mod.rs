//! The model services that speak OpenAI's Chat Completions: which one a request is for, the call, and
//! what the bytes that pass tell.

mod body;
mod call;
mod choose;
mod completion;
mod frames;
mod models;
mod reading;
mod service;
mod shorten;

pub use body::{BadBody, RawBody};
pub use call::{Answer, CallError, Upstream};
pub use choose::{Endpoint, Keys, choose};
pub use completion::{Charge, Choice, Completion, TokenCounts, ToolCall};
pub use models::{Offer, offers};
pub use reading::Reading;
pub use service::Service;
pub use shorten::{HIDDEN, shorten};
