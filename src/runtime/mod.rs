//! The agent dialects: argv, files to stage, and how each line of output reads.

pub mod claude_code;
