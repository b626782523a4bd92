//! A run that waits: what was frozen when it was submitted, and the secrets that are sealed apart.
//!
//! Planning a job again, after a restart, gives the same plan: everything that a person, a task or
//! an environment could have changed meanwhile is in the job.

mod secrets;
mod spec;

pub use secrets::{FrozenWorkflow, JobSecrets, SecretsError};
pub use spec::{JOB_VERSION, JobFile, JobSpec, LaterStep, SpecError};
