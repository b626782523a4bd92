//! A sandbox's processes, by the word of `/proc`: no control group is needed for it.

use super::super::host_folder::HostFolder;
use super::super::process;
use super::cell::{init_pid, is_engine_of};
use crate::run::Pulse;

/// The processes of one sandbox.
#[derive(Debug, Clone)]
pub(in super::super) struct CellProcesses {
    folder: HostFolder,
}

impl CellProcesses {
    pub(super) fn new(folder: HostFolder) -> Self {
        Self { folder }
    }

    /// One sample. Blocks, for as long as it takes to read three files of each process.
    pub(in super::super) fn pulse(&self) -> Option<Pulse> {
        self.init().map(process::pulse_below)
    }

    /// The number of its first process. Blocks, for as long as it takes to read two files.
    pub(in super::super) fn init(&self) -> Option<i32> {
        let init = init_pid(&self.folder)?;
        let root = self.folder.root();
        process::has_command(init, |command| is_engine_of(root, command)).then_some(init)
    }
}
