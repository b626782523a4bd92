//! When a routine runs.
