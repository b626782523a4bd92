//! Every story of the whole program, against real parts.

mod sandbox;
