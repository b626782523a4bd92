//! `runbookd relay`: the sandbox's end of the way out. runbookd calls it itself, in sandboxes.

use tokio::runtime::Builder;

use super::args::RelayArguments;
use super::complain;
use super::exit::ExitCode;
use crate::egress;
use crate::run::error_chain;

/// Relays until the sandbox ends, on one thread: there they are counted. It reads no settings: what
/// it inherits is an image's.
pub(super) fn relay(arguments: &RelayArguments) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("the thread of this process cannot be started: {e}"));
            return ExitCode::Unavailable;
        }
    };
    match runtime.block_on(egress::relay(arguments.listen, &arguments.socket)) {
        Ok(()) => ExitCode::Success,
        Err(e) => {
            complain(&error_chain(&e));
            ExitCode::Unavailable
        }
    }
}
