//! All settings, read from the environment and checked once.
