//! Sandboxes: provision, stage, run, collect, destroy. Two engines, one behaviour.
//!
//! A sandbox has a user of its own without any capability, a read-only system, four folders that
//! it may write, limits on memory, processors and processes, and an output that grows in a regular
//! file of the host which nothing inside can open. It lives on when the daemon ends, and is found
//! again by its label.

mod bubblewrap;
mod cgroup;
mod collect;
mod disk;
mod docker;
mod engine;
mod error;
mod examine;
mod handover;
mod host_folder;
mod images;
mod launcher;
mod live;
mod lock;
mod process;
mod pulse;
mod relay;
mod relay_builds;
mod remove;
mod settings;
mod spec;
mod still;

pub use bubblewrap::Bubblewrap;
pub use collect::{
    AgentFolder, CollectError, CollectLimits, Collected, CollectedFile, Skip, Skipped, collect,
};
pub use disk::{DiskFinding, DiskReader, DiskRoom, FileRoom, Look};
pub use docker::{Docker, DockerFault};
pub use engine::{Engine, EngineReport};
pub use error::{EngineFault, SandboxError};
pub use examine::examine;
pub use host_folder::{EngineKind, Folder};
pub use images::{ImageFacts, ImagesHold, LibC, OnBuild, PrunedImage, SetPriv};
pub use live::{Sandbox, SetupNote};
pub use pulse::PulseReader;
pub use relay::PROXY_ADDRESS;
pub use settings::{DEFAULT_CGROUP_ROOT, EngineChoice, EngineSettings, UnknownEngine};
pub use spec::{
    AGENT_HOME, Access, AgentSignal, EGRESS_SOCKET, Exit, InvalidSpec, Mount, STAGED_ROOT,
    SandboxId, SandboxLimits, SandboxSpec, Setup, Source, StagedFile,
};
