//! What the agent CLI says of its own run: whether it went as scripted, and how long it took.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::Outcome;

/// Turns of the script.
const N_TURNS: u64 = 3;

/// The CLI's own account of its time, from the last line of its output: from the prompt to the
/// result, without its start and its end. An error where it did not do all of its work.
pub(crate) fn own_time(output: &Path) -> Outcome<Duration> {
    let text = fs::read_to_string(output).map_err(|e| format!("{}: {e}", output.display()))?;
    let last = text.lines().last().unwrap_or("nothing");
    let result: Value = serde_json::from_str(last).unwrap_or_default();
    let is_whole = result["subtype"] == "success"
        && result["is_error"] == false
        && result["num_turns"].as_u64() == Some(N_TURNS);
    match result["duration_ms"].as_u64() {
        Some(ms) if is_whole => Ok(Duration::from_millis(ms)),
        Some(_) | None => {
            Err(format!("the agent did not say its {N_TURNS} turns, it ended with: {last}").into())
        }
    }
}
