//! What the stories share: a stage with an engine, a run on it, and the scene that it leaves.

#[macro_use]
mod stage;
mod daemon;
mod depot;
mod home;
mod names;
mod scene;
mod serving;
mod story;
mod upstream;
mod web;

pub(crate) use daemon::{Daemon, Server, run_tool};
pub(crate) use depot::{Depot, Process, job};
pub(crate) use home::{Home, Ran};
pub(crate) use names::Names;
pub(crate) use scene::{Scene, Tokens};
pub(crate) use serving::{Listening, Site, events_in, trajectory_in};
pub(crate) use stage::{
    POLL, Stage, gateway, host, image, is_required, processes_with, settings, tell, tell_within,
    until,
};
pub(crate) use story::Story;
pub(crate) use upstream::{FakeModel, WORDS, frames, step, word_chunks};
pub(crate) use web::Web;
