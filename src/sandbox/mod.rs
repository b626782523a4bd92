//! Sandboxes: provision, stage, run, collect, destroy.
