//! What is spent: one small file in the state folder that every process of this machine writes, so
//! that runs of a collection share its day and its month.
//!
//! A request reserves its worst case before it goes ([`Purse::admit`]), and the reservation is
//! replaced by what it really took when that is known ([`Held::settle`]). Both are one transaction
//! over the run, the day and the month. A reservation is removed by whoever finds it first, and only
//! that one may give anything back: so nothing is freed twice, and what a process left that died
//! stays spent.

mod count;
mod error;
mod open;
mod purse;
mod reserve;
mod row;
mod settle;
#[cfg(test)]
mod tests;
mod tidy;
mod usage;

pub use error::SpendError;
pub use open::Spend;
pub use purse::{Asked, Held, NotAdmitted, Purse, Wait};
pub use reserve::{Answer, Wish};
pub use settle::{Charge, Took};
pub use usage::{DayUsage, Spent};
