//! The durable record of a run: events, steps, usage.

mod atif;
mod clip;
mod document;
mod egress_account;
mod event;
mod model_name;
mod read_back;
mod recorder;
mod run_event;
mod step;
mod step_log;
mod summary;
mod usage;
mod warnings;
mod whole;
mod wire_account;

pub use atif::{AtifDocument, AtifFacts};
pub use clip::{Arguments, Clipped, STEP_TEXT_BYTES, one_line};
pub use document::{
    DocumentFacts, ResultFile, RunTimes, SCHEMA_VERSION, StartedFrom, TrajectoryDocument,
    content_type,
};
pub use egress_account::{DeniedHost, EgressAccount, MAX_NAMED_HOSTS};
pub use event::{
    AgentEvent, AgentResult, Block, Compacted, Hook, Init, McpServer, Message, RateLimit, Retry,
    Task, TaskStage, TaskUsage, ToolResult, ToolResults, UserText,
};
pub use read_back::{
    DocumentError, TrajectoryAgent, TrajectoryHead, TrajectorySession, read_head, read_session,
    read_started_from,
};
pub use recorder::{Live, Recorder};
pub use run_event::{FailureEvent, FinalUsage, FinishedEvent, RunEvent};
pub use step::{MessageStep, Step, StepKind, StepUpdate, TaskReport, ToolCallStep, ToolOutcome};
pub use step_log::{MAX_FIRST_STEPS, MAX_LAST_STEPS};
pub use summary::Summary;
pub use usage::{CostBasis, ReplyLedger, Usage, UsageByModel, UsageReport, UsageSource};
pub use whole::{SoFar, StepDocument, WholeRun, in_step, unbegun_step};
pub use wire_account::{Reconciled, Reconciliation, WireAccount};
