//! A sandbox that is there: start it, watch it, end it.

use std::path::Path;

use tracing::error;

use super::bubblewrap::Cell;
use super::collect::AgentFolder;
use super::disk::DiskReader;
use super::docker::Container;
use super::engine::blocking;
use super::error::SandboxError;
use super::host_folder::{Folder, HostFolder};
use super::pulse::{Processes, PulseReader};
use super::spec::{AgentSignal, Exit, SandboxId};

/// A sandbox that is there. Got only from [`super::Engine::provision`] and
/// [`super::Engine::adopt`], ended only by [`Sandbox::destroy`].
#[derive(Debug)]
pub struct Sandbox {
    id: SandboxId,
    live: Live,
    folder: HostFolder,
    /// Whether it was removed or handed on, so that `Drop` knows that nothing leaked.
    settled: bool,
}

/// The engine's side of it.
#[derive(Debug)]
pub(super) enum Live {
    Docker(Container),
    Bubblewrap(Cell),
}

/// The note of a setup script's end. The script and the agent cannot write it.
#[derive(Debug, Clone)]
pub struct SetupNote {
    id: SandboxId,
    folder: HostFolder,
}

impl SetupNote {
    /// The exit code of the setup script; `None` while it runs, and where it was killed together
    /// with what would have noted its end.
    ///
    /// # Errors
    /// When the note cannot be read.
    pub fn code(&self) -> Result<Option<i32>, SandboxError> {
        self.folder
            .setup_code()
            .map_err(|source| SandboxError::Wait { id: self.id.clone(), source: source.into() })
    }
}

impl Sandbox {
    pub(super) fn new(id: SandboxId, live: Live, folder: HostFolder) -> Self {
        Self { id, live, folder, settled: false }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// The agent's standard output: a regular file of the host that grows.
    #[must_use]
    pub fn stdout(&self) -> &Path {
        self.folder.stdout()
    }

    /// The agent's standard error: a regular file of the host that grows.
    #[must_use]
    pub fn stderr(&self) -> &Path {
        self.folder.stderr()
    }

    /// What the setup script wrote: a regular file of the host that grows.
    #[must_use]
    pub fn setup_log(&self) -> &Path {
        self.folder.setup_log()
    }

    /// Where the end of the setup script is noted.
    #[must_use]
    pub fn setup_note(&self) -> SetupNote {
        SetupNote { id: self.id.clone(), folder: self.folder.clone() }
    }

    /// What reads the pulse of its processes.
    #[must_use]
    pub fn pulse_reader(&self) -> PulseReader {
        PulseReader::new(self.processes())
    }

    /// What reads how much of the disk it holds.
    #[must_use]
    pub fn disk_reader(&self) -> DiskReader {
        DiskReader::new(self.folder.root().to_owned(), self.processes())
    }

    fn processes(&self) -> Processes {
        match &self.live {
            Live::Docker(container) => Processes::Docker(container.processes()),
            Live::Bubblewrap(cell) => Processes::Bubblewrap(cell.processes()),
        }
    }

    /// Starts the agent, or its setup script where it has one.
    ///
    /// # Errors
    /// When the engine cannot start it. The sandbox must be destroyed all the same.
    pub async fn start(&mut self) -> Result<(), SandboxError> {
        match &mut self.live {
            Live::Docker(container) => container.start().await,
            Live::Bubblewrap(cell) => cell.start().await,
        }
    }

    /// Waits for the agent's end. When it returns, nothing in the sandbox runs any more. A wait
    /// that is dropped loses nothing and can be taken up again, also after the end.
    ///
    /// # Errors
    /// [`SandboxError::Launch`] when the agent never started, [`SandboxError::Gone`] when there is
    /// no exit code.
    pub async fn wait(&mut self) -> Result<Exit, SandboxError> {
        match &mut self.live {
            Live::Docker(container) => container.wait().await,
            Live::Bubblewrap(cell) => cell.wait().await,
        }
    }

    /// Sends the agent a signal. One that has ended takes any. What the agent started for itself
    /// is not reached by the gentle ones.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn signal(&self, signal: AgentSignal) -> Result<(), SandboxError> {
        match &self.live {
            Live::Docker(container) => container.signal(signal).await,
            Live::Bubblewrap(cell) => cell.signal(signal),
        }
    }

    /// Kills the agent and everything that it started, in whatever session, and returns when
    /// nothing in the sandbox runs any more. [`Sandbox::wait`] still gives the exit code.
    ///
    /// # Errors
    /// When something could not be killed.
    pub async fn kill(&mut self) -> Result<(), SandboxError> {
        match &mut self.live {
            Live::Docker(container) => container.kill().await,
            Live::Bubblewrap(cell) => cell.kill().await,
        }
    }

    /// A folder that the agent wrote, for [`super::collect()`] after the end.
    #[must_use]
    pub fn folder(&self, folder: Folder) -> AgentFolder {
        self.folder.agent_folder(folder)
    }

    /// Removes the sandbox with all that runs in it, its limits and its folder.
    ///
    /// # Errors
    /// When something stays behind. The reaper tries again.
    pub async fn destroy(mut self) -> Result<(), SandboxError> {
        match &mut self.live {
            Live::Docker(container) => container.remove().await?,
            Live::Bubblewrap(cell) => cell.remove().await?,
        }
        let folder = self.folder.clone();
        let removed = blocking(move || folder.remove()).await;
        removed.map_err(|source| SandboxError::Remove {
            id: self.id.clone(),
            source: source.into(),
        })?;
        // Only now: if a wait above is cancelled, `Drop` must still report the leak.
        self.settled = true;
        Ok(())
    }

    /// Lets go of the sandbox without ending it, at the daemon's own end: the next daemon takes it
    /// over with [`super::Engine::adopt`].
    pub fn leave(mut self) {
        self.settled = true;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.settled {
            // `Drop` cannot await. The reaper removes it at the next start, by its label.
            error!(sandbox.id = %self.id, "sandbox `{}` was not destroyed", self.id);
        }
    }
}
