//! A task's workflow: which runbook steps it has, and what a request and earlier steps make of their
//! parameters.
//! The only place that knows the workflow's JSON.

mod definition;
mod error;
mod init_params;
mod parameter;
mod path;
mod reader;
mod request;
mod resolve;
mod step;
#[cfg(test)]
mod tests;

pub use definition::{RUNBOOK_ACTIVITY, Workflow};
pub use error::{InitParamsError, WorkflowError, WorkflowProblem};
pub use init_params::{merge, parse_init_params, refuse_double_wrapping};
pub use parameter::{PARAMETERS, StepParameter};
pub use path::StepOutputs;
pub use resolve::{Resolved, ResolvedStep};
pub use step::RunbookStep;
