//! What a sandbox's processes have done, by the word of `/proc`: no control group is needed for it.

use super::super::host_folder::HostFolder;
use super::super::process;
use super::cell::{init_pid, is_engine_of};
use crate::run::Pulse;

/// Reads the pulse of one sandbox.
#[derive(Debug, Clone)]
pub(in super::super) struct CellPulse {
    folder: HostFolder,
}

impl CellPulse {
    pub(super) fn new(folder: HostFolder) -> Self {
        Self { folder }
    }

    /// One sample. Blocks, for as long as it takes to read three files of each process.
    pub(in super::super) fn read(&self) -> Option<Pulse> {
        let init = init_pid(&self.folder)?;
        let root = self.folder.root();
        process::has_command(init, |command| is_engine_of(root, command))
            .then(|| process::pulse_below(init))
    }
}
