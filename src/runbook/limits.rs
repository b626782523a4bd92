//! How much of a front matter is read, and why not more.

/// Longest front matter, in bytes. The longest public one has three thousand; the limit bounds
/// what a hostile one can cost.
pub(super) const MAX_FRONT_MATTER_BYTES: usize = 64 * 1024;

/// Deepest nesting of values. An MCP server's settings need about four; they must still be
/// readable as JSON inside other JSON, whose readers stop at 128.
pub(super) const MAX_DEPTH: usize = 32;

/// Brackets that may be open at once, wherever they stand: in texts and comments they are not
/// nesting. The YAML scanner's time grows with their square, so it must not see more of them.
pub(super) const MAX_OPEN_BRACKETS: usize = 1_000;

/// How large the values may be once every alias is written out: one byte for each value and its
/// text. Without aliases no front matter of a legal length reaches it, so it only ends those whose
/// aliases multiply.
pub(super) const MAX_EXPANDED_BYTES: usize = 2 * MAX_FRONT_MATTER_BYTES;

/// Longest name of an MCP server. It becomes a part of tool names, which model services limit.
pub(super) const MAX_SERVER_NAME_BYTES: usize = 64;
