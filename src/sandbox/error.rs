//! Every way in which an engine can fail to do its part.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::spec::{InvalidSpec, SandboxId};

/// What an engine's own world said. The source of a [`SandboxError`].
#[derive(Debug, thiserror::Error)]
pub enum EngineFault {
    /// The Docker daemon answered with an error, or could not be spoken to.
    #[error(transparent)]
    Docker(#[from] super::docker::DockerFault),
    /// The host's kernel or file system refused.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// Something took longer than it may.
    #[error("no answer within {} s", limit.as_secs())]
    Slow {
        /// How long was waited.
        limit: Duration,
    },
}

impl From<rustix::io::Errno> for EngineFault {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Host(errno.into())
    }
}

/// A sandbox could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Neither engine is there, or not the one that was asked for.
    #[error(
        "no sandbox engine is ready: {}",
        reasons.join("; ")
    )]
    NoEngine {
        /// One fragment for each engine that was looked for, with what to do.
        reasons: Vec<String>,
    },
    /// The settings of the engine cannot be used.
    #[error("the sandbox setting `{setting}` cannot be used: {problem}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The folder for sandboxes cannot be made.
    #[error("could not prepare the sandbox folder {}", path.display())]
    StateFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The specification contradicts itself or this engine.
    #[error("the sandbox cannot be made as specified")]
    Spec(#[from] InvalidSpec),
    /// A sandbox of this id is there already.
    #[error("a sandbox `{id}` is there already: destroy or reap it first")]
    Exists {
        /// The id.
        id: SandboxId,
    },
    /// No image was named.
    #[error(
        "no container image is named: name one in the runbook, or set the default image of this daemon"
    )]
    NoImage,
    /// The image is not on this machine and could not be fetched.
    #[error(
        "the image `{image}` is not on this machine and could not be pulled: check its name and that its registry can be reached, load it with `docker load`, or set another default image"
    )]
    Image {
        /// The image.
        image: String,
        /// What the pull said.
        source: EngineFault,
    },
    /// An image could not be built.
    #[error("could not build `{image}`; the last of it:\n{tail}\n")]
    Build {
        /// The image.
        image: String,
        /// The last lines of the build.
        tail: String,
        /// What ended it.
        source: EngineFault,
    },
    /// An image could not be looked into.
    #[error("could not look into the image `{image}`")]
    LookInto {
        /// The image.
        image: String,
        /// Why.
        source: EngineFault,
    },
    /// Images could not be removed, or are being removed.
    #[error("images could not be pruned: a run may be building one; try again when it has ended")]
    Prune(#[source] EngineFault),
    /// The relay to the proxy could not be brought together.
    #[error("could not bring together the relay of the sandbox in its state folder")]
    Relay {
        /// Why.
        source: io::Error,
    },
    /// The host folder could not be filled.
    #[error("could not stage {}", path.display())]
    Stage {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sandbox could not be created.
    #[error("could not create the sandbox `{id}`")]
    Create {
        /// Its id.
        id: SandboxId,
        /// Why.
        source: EngineFault,
    },
    /// The sandbox could not be started.
    #[error("could not start the sandbox `{id}`")]
    Start {
        /// Its id.
        id: SandboxId,
        /// Why.
        source: EngineFault,
    },
    /// The sandbox started, and ended before the agent did: the launcher inside it failed.
    #[error("the sandbox `{id}` ended before its agent started: {detail}")]
    Launch {
        /// Its id.
        id: SandboxId,
        /// The launcher's own words.
        detail: String,
    },
    /// The end of the agent could not be watched.
    #[error("could not wait for the sandbox `{id}`")]
    Wait {
        /// Its id.
        id: SandboxId,
        /// Why.
        source: EngineFault,
    },
    /// The sandbox ended without leaving an exit code, or somebody removed it.
    #[error("the sandbox `{id}` is gone and left no exit code")]
    Gone {
        /// Its id.
        id: SandboxId,
    },
    /// The agent could not be signalled or killed.
    #[error("could not stop what runs in the sandbox `{id}`")]
    Stop {
        /// Its id.
        id: SandboxId,
        /// Why.
        source: EngineFault,
    },
    /// The sandbox could not be removed; the reaper tries again at the next start.
    #[error("could not remove the sandbox `{id}`")]
    Remove {
        /// Its id.
        id: SandboxId,
        /// Why.
        source: EngineFault,
    },
    /// What carries our label could not be listed.
    #[error("could not list the sandboxes that are there")]
    List(#[source] EngineFault),
    /// Another version wrote the record of a sandbox.
    #[error("the record {} is not one that this version reads", path.display())]
    Record {
        /// The file.
        path: PathBuf,
    },
}
