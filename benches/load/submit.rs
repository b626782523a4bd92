//! How soon a run is accepted, and how many runs a second there can be.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinSet;

use super::agent::Agent;
use super::server::Server;
use super::tail::Tail;
use crate::common::Outcome;

/// What a floor writes: about what the row of a job takes.
const ROW_BYTES: usize = 4096;

/// What one load came to.
#[derive(Debug)]
pub(crate) struct Load {
    /// From each request to its answer, in milliseconds.
    pub(crate) submits: Tail,
    /// From the first request to the last end.
    pub(crate) runs_per_second: f64,
}

/// Submits `n_runs` runs, so many at a time, each as soon as the one before is accepted, and waits
/// until all have ended.
pub(crate) async fn load(
    server: Server,
    n_submitters: usize,
    n_runs: usize,
) -> Outcome<(Server, Load)> {
    let server = Arc::new(server);
    let left = Arc::new(AtomicUsize::new(n_runs));
    let begun = Instant::now();
    let mut submitters = JoinSet::new();
    for _ in 0..n_submitters {
        let (server, left) = (Arc::clone(&server), Arc::clone(&left));
        submitters.spawn(submitter(server, left));
    }
    let mut submits = Vec::with_capacity(n_runs);
    while let Some(done) = submitters.join_next().await {
        submits.extend(done??);
    }
    let ended = server.await_status("completed", n_runs).await?;
    let seconds = ended.duration_since(begun).as_secs_f64();
    let server = Arc::into_inner(server).ok_or("a submitter still has the server")?;
    let submits = submits.into_iter().collect();
    Ok((server, Load { submits, runs_per_second: n_runs as f64 / seconds }))
}

async fn submitter(server: Arc<Server>, left: Arc<AtomicUsize>) -> Outcome<Vec<f64>> {
    let mut took = Vec::new();
    let take = |n: usize| n.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        let since = Instant::now();
        server.submit().await?;
        took.push(ms(since.elapsed()));
    }
    Ok(took)
}

/// The floor of a submit: one append to a file on the same disk that has reached it.
pub(crate) fn appends(folder: &Path, n: usize) -> Outcome<Tail> {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join("floor"))?;
    let mut took = Vec::with_capacity(n);
    for _ in 0..n {
        let since = Instant::now();
        file.write_all(&[0; ROW_BYTES])?;
        file.sync_data()?;
        took.push(ms(since.elapsed()));
    }
    Ok(took.into_iter().collect())
}

/// The floor of a run: the same agent in a bare sandbox, so many at a time, and no record.
pub(crate) async fn bare(n_at_once: usize, n_runs: usize) -> Outcome<f64> {
    let folder = tempfile::tempdir()?;
    let agent = Agent::Noop.install(folder.path())?;
    let left = Arc::new(AtomicUsize::new(n_runs));
    let begun = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..n_at_once {
        let (left, agent) = (Arc::clone(&left), agent.clone());
        lanes.spawn(async move {
            let take = |n: usize| n.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                sandboxed(&agent).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = lanes.join_next().await {
        done??;
    }
    Ok(n_runs as f64 / begun.elapsed().as_secs_f64())
}

async fn sandboxed(agent: &Path) -> Outcome<()> {
    let mut command = Command::new("bwrap");
    command
        .args(["--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"])
        .args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"])
        .args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"])
        .arg("--ro-bind")
        .args([agent, Path::new("/agent")])
        .arg("/agent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let status = command.status().await?;
    if status.success() { Ok(()) } else { Err(format!("the bare sandbox: {status}").into()) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
