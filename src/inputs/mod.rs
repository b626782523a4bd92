//! The files that a run is given: from what names them to files in the folder of the run's step, so
//! that nobody can change or remove them before its agent begins.

mod error;
mod find;
mod stage;

pub use error::FilesError;
pub use find::{Input, Named, find};
pub use stage::{StepInputs, as_stored, stage, stage_step};
