//! One sandbox of Bubblewrap: its processes, its life, its end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::super::cgroup::Cgroup;
use super::super::error::{EngineFault, SandboxError};
use super::super::handover;
use super::super::host_folder::HostFolder;
use super::super::launcher::{LAUNCHED_FD, LAUNCHED_FILE, SECCOMP_FD, SETUP_FD, STATUS_FD};
use super::super::process::{self, Process};
use super::super::spec::{AgentSignal, Exit, SandboxId};
use super::args::STATUS_FLAG;
use super::processes::CellProcesses;

/// How long `bwrap` may take to make its namespaces. It takes milliseconds.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long killed processes may take to go. Only the kernel can hold them up.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// How long `bwrap` may take to write down the end of what was killed inside.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// How often a file or a group is looked at that gives no notice.
const POLL: Duration = Duration::from_millis(2);

/// How much of the launcher's words goes into an error, in bytes.
const DETAIL_BYTES: u64 = 2_048;

/// The file into which `bwrap` writes what it started and how it ended.
const STATUS_FILE: &str = "bwrap.json";

/// The file with the filter for system calls.
pub(super) const SECCOMP_FILE: &str = "seccomp.bpf";

/// The first descriptor that is not one of the standard three.
const FIRST_UNKNOWN_FD: i32 = 3;

/// The number that the agent has in its own process namespace: the first that init starts.
const AGENT_NUMBER: i32 = 2;

/// Joins the control groups, opens the descriptors that `bwrap` expects, becomes `bwrap`. A shell
/// does it, because between fork and exec a program with threads may do next to nothing.
fn host_script() -> String {
    format!(
        "umask 022\n\
         status=$1 launched=$2 seccomp=$3 setup=$4\n\
         shift 4\n\
         while [ \"$1\" != -- ]; do echo $$ >\"$1\" || exit 125; shift; done\n\
         shift\n\
         exec \"$@\" {STATUS_FD}>\"$status\" {LAUNCHED_FD}>>\"$launched\" {SECCOMP_FD}<\"$seccomp\" \
         {SETUP_FD}>>\"$setup\"\n"
    )
}

/// A sandbox of Bubblewrap.
#[derive(Debug)]
pub(in super::super) struct Cell {
    id: SandboxId,
    folder: HostFolder,
    cgroup: Cgroup,
    command: Vec<OsString>,
    /// The outer `bwrap`, which notes how the agent ended. `None` before the start, and where it
    /// was gone when the sandbox was adopted.
    monitor: Option<Process>,
    /// The same process where this daemon started it, so that it is waited for.
    child: Option<Child>,
}

/// What `bwrap` wrote down.
#[derive(Debug, Default)]
struct Status {
    /// The init of the sandbox, by its number on the host.
    child_pid: Option<i32>,
    exit_code: Option<i32>,
}

/// One line of what `bwrap` wrote down.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StatusLine {
    child_pid: Option<i32>,
    exit_code: Option<i32>,
}

impl Cell {
    pub(super) fn new(
        id: SandboxId,
        folder: HostFolder,
        cgroup: Cgroup,
        command: Vec<OsString>,
    ) -> Self {
        Self { id, folder, cgroup, command, monitor: None, child: None }
    }

    pub(super) fn adopt(
        id: SandboxId,
        folder: HostFolder,
        cgroup: Cgroup,
    ) -> Result<Option<Self>, SandboxError> {
        let mut cell = Self::new(id, folder, cgroup, vec![]);
        let Some(init) = cell.status().child_pid else { return Ok(None) };
        let processes = cell.engine_processes();
        cell.monitor = processes
            .map_err(|source| SandboxError::Wait { id: cell.id.clone(), source: source.into() })?
            .into_iter()
            .find(|process| process.pid() != init);
        Ok(Some(cell))
    }

    /// Starts the agent, and returns when the sandbox is there. A second start is none.
    pub(in super::super) async fn start(&mut self) -> Result<(), SandboxError> {
        if self.child.is_some() || self.command.is_empty() {
            return Ok(());
        }
        let id = self.id.clone();
        let failed =
            |error: io::Error| SandboxError::Start { id: id.clone(), source: error.into() };
        let child = self.spawn().map_err(failed)?;
        if let Some(pid) = child.id() {
            let pid = i32::try_from(pid).unwrap_or_default();
            self.monitor = Process::hold(pid, |_| true).map_err(failed)?;
        }
        self.child = Some(child);
        let limit = Instant::now() + START_LIMIT;
        while self.status().child_pid.is_none() {
            if self.monitor_ended().map_err(failed)? {
                return Err(SandboxError::Launch { id, detail: self.launcher_words() });
            }
            if Instant::now() > limit {
                return Err(SandboxError::Start {
                    id,
                    source: EngineFault::Slow { limit: START_LIMIT },
                });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn spawn(&self) -> io::Result<Child> {
        // What we open closes by itself; what we inherited (a shell's, a service manager's) would
        // go all the way down to the agent.
        close_fds::set_fds_cloexec_threadsafe(FIRST_UNKNOWN_FD, &[]);
        let append = |path: &Path| OpenOptions::new().append(true).open(path);
        Command::new("/bin/sh")
            .args(["-c", &host_script(), "runbookd-sandbox"])
            .arg(self.folder.out(STATUS_FILE))
            .arg(self.folder.out(LAUNCHED_FILE))
            .arg(self.folder.out(SECCOMP_FILE))
            .arg(self.folder.setup_log())
            .args(self.cgroup.doors())
            .arg("--")
            .args(&self.command)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(append(self.folder.stdout())?)
            .stderr(append(self.folder.stderr())?)
            // A signal to the daemon's terminal or group is not for the sandbox, which outlives it.
            .process_group(0)
            .spawn()
    }

    fn monitor_ended(&mut self) -> io::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Waits for the agent's end, and sees to it that nothing it left behind lives on.
    pub(in super::super) async fn wait(&mut self) -> Result<Exit, SandboxError> {
        let id = self.id.clone();
        if let Some(monitor) = &self.monitor {
            tokio::select! {
                biased;
                ended = monitor.ended() => ended
                    .map_err(|source| SandboxError::Wait { id: id.clone(), source: source.into() })?,
                () = handover::overdue(&self.folder) => {
                    self.kill().await?;
                    return Err(SandboxError::Launch { id, detail: handover::words() });
                }
            }
        }
        self.kill().await?;
        let oom_killed = self.cgroup.oom_killed();
        match self.status().exit_code {
            Some(_) | None if !self.folder.launched() && !oom_killed => {
                Err(SandboxError::Launch { id, detail: self.launcher_words() })
            }
            Some(code) => Ok(Exit { code, oom_killed }),
            None if oom_killed => Ok(Exit { code: 128 + Signal::KILL.as_raw(), oom_killed }),
            None => Err(SandboxError::Gone { id }),
        }
    }

    /// Sends the agent a signal. One that has ended takes any.
    pub(in super::super) fn signal(&self, signal: AgentSignal) -> Result<(), SandboxError> {
        self.try_signal(signal)
            .map_err(|source| SandboxError::Stop { id: self.id.clone(), source: source.into() })
    }

    fn try_signal(&self, signal: AgentSignal) -> io::Result<()> {
        let Some(init) = self.init()? else { return Ok(()) };
        let signal = match signal {
            AgentSignal::Interrupt => Signal::INT,
            AgentSignal::Terminate => Signal::TERM,
            AgentSignal::Kill => return init.signal(Signal::KILL),
        };
        let Some(pid) = process::inside(init.pid(), AGENT_NUMBER) else { return Ok(()) };
        let is_agent = |pid| process::inside(init.pid(), AGENT_NUMBER) == Some(pid);
        match Process::hold(pid, is_agent)? {
            Some(agent) => agent.signal(signal),
            None => Ok(()),
        }
    }

    /// Kills everything in the sandbox and waits until it is gone. With its init the kernel kills
    /// every process of the namespace, whatever session or parent it has made for itself.
    pub(in super::super) async fn kill(&mut self) -> Result<(), SandboxError> {
        let id = self.id.clone();
        let killed = timeout(KILL_LIMIT, self.kill_all()).await;
        match killed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(SandboxError::Stop { id, source: error.into() }),
            Err(_) => {
                let source = EngineFault::Slow { limit: KILL_LIMIT };
                return Err(SandboxError::Stop { id, source });
            }
        }
        if let Some(child) = &mut self.child {
            // It has ended: this only takes its status from the kernel.
            let waited = child.wait().await;
            waited.map_err(|source| SandboxError::Stop { id, source: source.into() })?;
        }
        Ok(())
    }

    async fn kill_all(&self) -> io::Result<()> {
        if let Some(init) = self.init()? {
            init.signal(Signal::KILL)?;
            init.ended().await?;
            if let Some(monitor) = &self.monitor {
                // It writes down the exit code. Where it does not, it is killed below.
                let _ = timeout(FAREWELL_LIMIT, monitor.ended()).await;
            }
        }
        loop {
            let rest = self.engine_processes()?;
            for process in &rest {
                process.signal(Signal::KILL)?;
            }
            for process in &rest {
                process.ended().await?;
            }
            let n_members = self.cgroup.kill();
            if rest.is_empty() && n_members == 0 {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }

    /// Kills what is left and removes the control groups. The folder is the caller's.
    pub(in super::super) async fn remove(&mut self) -> Result<(), SandboxError> {
        self.kill().await?;
        let limit = Instant::now() + KILL_LIMIT;
        loop {
            match self.cgroup.remove() {
                Ok(()) => return Ok(()),
                // A member that has ended counts until the kernel has buried it.
                Err(_) if Instant::now() < limit => sleep(POLL).await,
                Err(error) => {
                    let id = self.id.clone();
                    return Err(SandboxError::Remove { id, source: error.into() });
                }
            }
        }
    }

    /// Its processes, whoever holds it meanwhile.
    pub(in super::super) fn processes(&self) -> CellProcesses {
        CellProcesses::new(self.folder.clone())
    }

    fn status(&self) -> Status {
        status(&self.folder)
    }

    fn init(&self) -> io::Result<Option<Process>> {
        match self.status().child_pid {
            Some(pid) => Process::hold(pid, |pid| process::has_command(pid, |c| self.is_ours(c))),
            None => Ok(None),
        }
    }

    /// The `bwrap` processes of this sandbox (and the shell that becomes one).
    fn engine_processes(&self) -> io::Result<Vec<Process>> {
        let is_ours = |command: &[&OsStr]| self.is_ours(command);
        let held = process::find(is_ours)
            .into_iter()
            .map(|pid| Process::hold(pid, |pid| process::has_command(pid, is_ours)));
        held.filter_map(Result::transpose).collect()
    }

    fn is_ours(&self, command: &[&OsStr]) -> bool {
        is_engine_of(self.folder.root(), command)
    }

    /// The end of what was said before the agent started.
    fn launcher_words(&self) -> String {
        let words = tail(self.folder.stderr()).unwrap_or_default();
        if words.trim().is_empty() { "it left no message".to_owned() } else { words }
    }
}

fn status(folder: &HostFolder) -> Status {
    let text = fs::read_to_string(folder.out(STATUS_FILE)).unwrap_or_default();
    let mut status = Status::default();
    // A line that is still being written does not parse, and does the next time.
    for line in text.lines().filter_map(|line| serde_json::from_str::<StatusLine>(line).ok()) {
        status.child_pid = line.child_pid.or(status.child_pid);
        status.exit_code = line.exit_code.or(status.exit_code);
    }
    status
}

/// The number that the init of a sandbox had when it was started.
pub(super) fn init_pid(folder: &HostFolder) -> Option<i32> {
    status(folder).child_pid
}

/// Removes what an earlier daemon left of a sandbox, except for its folder.
pub(in super::super) async fn reap(
    id: SandboxId,
    folder: HostFolder,
    cgroup: Cgroup,
) -> Result<(), SandboxError> {
    Cell::new(id, folder, cgroup, vec![]).remove().await
}

/// The numbers of all `bwrap` processes with a folder below `sandboxes`.
pub(in super::super) fn processes_below(sandboxes: &Path) -> Vec<i32> {
    process::find(|command| is_engine_of(sandboxes, command))
}

/// Only an engine's command line has this flag and a path in our folder.
pub(super) fn is_engine_of(root: &Path, command: &[&OsStr]) -> bool {
    command.contains(&OsStr::new(STATUS_FLAG))
        && command.iter().any(|argument| Path::new(argument).starts_with(root))
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(DETAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(DETAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
