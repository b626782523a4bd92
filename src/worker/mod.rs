//! One run, in order.
