//! Every story of the whole program, against real parts.
fn main() {}
