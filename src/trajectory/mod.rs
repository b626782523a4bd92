//! The durable record of a run: events, steps, usage.
