//! Guardrails: what must not leave in a prompt, found before it leaves.

mod finding;
mod guardrails;
mod judge;
mod personal;
mod texts;

pub use finding::{GuardFinding, GuardSummary, summed};
pub use guardrails::{GUARD_PII, GUARD_SECRETS, GuardAction, Guardrails, NotAnAction};
pub use judge::{Guard, Judged, Verdict};
pub use texts::Unreadable;
