//! What the benchmarks share: how they are called, the machine, its noise, tables, peak memory.

mod call;
mod machine;
mod memory;
mod samples;
mod table;

pub(crate) use call::{Outcome, conclude, is_called_by_cargo_bench};
pub(crate) use machine::describe;
pub(crate) use memory::peak_bytes;
pub(crate) use samples::Samples;
pub(crate) use table::Table;
