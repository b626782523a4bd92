//! Runs as clients see them: what the queue knows of one, laid over what its folder tells.
//!
//! The queue knows first and last where a run stands; the folder knows everything else. A run that
//! was accepted is here at once, even before it has a folder.

mod document;
mod find;
mod view;

pub use document::written_bytes;
pub use find::{RecordError, Records, Seen};
pub use view::{status_from_word, wire_status};
