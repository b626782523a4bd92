//! `runbookd relay`: the sandbox's end of the way out. runbookd calls it itself, in sandboxes.

use super::args::RelayArguments;
use super::complain;
use super::exit::ExitCode;
use crate::egress;
use crate::run::error_chain;

/// Relays until the sandbox ends.
pub(super) async fn relay(arguments: &RelayArguments) -> ExitCode {
    match egress::relay(arguments.listen, &arguments.socket).await {
        Ok(()) => ExitCode::Success,
        Err(e) => {
            complain(&error_chain(&e));
            ExitCode::Unavailable
        }
    }
}
