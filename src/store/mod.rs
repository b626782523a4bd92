//! The results directory: every path and file name on disk.
