//! Runs by the clock: each slot of a routine makes one run, however many servers watch and however
//! often they stop in between.

mod scheduler;

pub use scheduler::{Fired, Scheduler, wish_of};
