//! The relay of a sandbox whose way out is a proxy: this very program, brought in with its loader
//! and its libraries, so that it runs in any image.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, linkat};

/// Where the relay listens inside. The port is that of a common proxy.
pub const PROXY_ADDRESS: &str = "127.0.0.1:3128";

/// The relay's user and group inside, so that the agent can neither stop nor trace it.
pub(super) const RELAY_UID: u32 = 59_998;

/// Where the relay is seen inside.
pub(super) const RELAY_ROOT: &str = "/run/runbookd/relay";

/// Processes of the sandbox that are the relay's.
pub(super) const RELAY_PIDS: u32 = 1;

/// The folder below the engine's state with one folder for each build of this program.
const RELAYS: &str = "relay";

/// This program in the relay's folder.
const PROGRAM: &str = "runbookd";
/// Its loader, unless it needs none.
const LOADER: &str = "ld.so";

/// Longest path of a loader, in bytes: what the kernel takes.
const MAX_INTERPRETER_BYTES: u64 = 4096;

/// How the relay is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// By the kernel: it needs no library.
    Plain,
    /// By its own loader, whatever the image has.
    ByLoader,
}

impl Call {
    /// The words of a shell that start it, up to its arguments.
    pub(super) fn command(self) -> String {
        match self {
            Self::Plain => format!("{RELAY_ROOT}/{PROGRAM}"),
            Self::ByLoader => {
                format!("{RELAY_ROOT}/{LOADER} --library-path {RELAY_ROOT} {RELAY_ROOT}/{PROGRAM}")
            }
        }
    }
}

/// What is brought into a sandbox.
#[derive(Debug, Clone)]
pub(super) struct Relay {
    /// Where it lies on the host.
    pub(super) folder: PathBuf,
    pub(super) call: Call,
}

/// Finds the relay of this build, or makes its folder. Blocks.
pub(super) fn prepare(state_dir: &Path, program: &Path) -> io::Result<Relay> {
    let relays = state_dir.join(RELAYS);
    let folder = relays.join(build_of(program)?);
    if !folder.is_dir() {
        fs::create_dir_all(&relays)?;
        let unfinished = tempfile::Builder::new().prefix("new-").tempdir_in(&relays)?;
        fill(unfinished.path(), program)?;
        fs::set_permissions(unfinished.path(), Permissions::from_mode(0o755))?;
        match fs::rename(unfinished.path(), &folder) {
            // It has its name; nothing is left to remove.
            Ok(()) => drop(unfinished.keep()),
            // Another sandbox was first.
            Err(_) if folder.is_dir() => {}
            Err(e) => return Err(e),
        }
    }
    let call = if folder.join(LOADER).is_file() { Call::ByLoader } else { Call::Plain };
    Ok(Relay { folder, call })
}

/// The folders of other builds, by name, and those that somebody did not finish.
pub(super) fn other_builds(state_dir: &Path, program: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(state_dir.join(RELAYS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let own = build_of(program)?;
    let mut others = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != own {
            others.push((name, entry.path()));
        }
    }
    Ok(others)
}

/// The name of a build: another file is another one.
fn build_of(program: &Path) -> io::Result<String> {
    let facts = fs::metadata(program)?;
    let version = env!("CARGO_PKG_VERSION");
    let (file, size) = (facts.ino(), facts.len());
    Ok(format!("{version}-{file:x}-{size:x}-{:x}-{:x}", facts.mtime(), facts.mtime_nsec()))
}

fn fill(folder: &Path, program: &Path) -> io::Result<()> {
    let brought = folder.join(PROGRAM);
    bring_program(program, &brought)?;
    let Some(loader) = interpreter(&mut File::open(&brought)?)? else { return Ok(()) };
    bring(&loader, &folder.join(LOADER), 0o555)?;
    let listed = Command::new(&loader)
        .arg("--list")
        .arg(&brought)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    for (name, path) in libraries(&String::from_utf8_lossy(&listed.stdout)) {
        bring(Path::new(path), &folder.join(name), 0o444)?;
    }
    Ok(())
}

/// A second name for the file where that is enough, for it is large; else a copy.
fn bring_program(program: &Path, to: &Path) -> io::Result<()> {
    let is_for_all = fs::metadata(program)?.permissions().mode() & 0o555 == 0o555;
    let linked = is_for_all && linkat(CWD, program, CWD, to, AtFlags::SYMLINK_FOLLOW).is_ok();
    if linked { Ok(()) } else { bring(program, to, 0o555) }
}

fn bring(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(mode))
}

/// The libraries in what a loader lists: the name that the program knows, and the path.
fn libraries(listed: &str) -> impl Iterator<Item = (&str, &str)> {
    listed.lines().filter_map(|line| {
        let (name, found) = line.trim().split_once(" => ")?;
        let path = found.split(" (").next()?.trim();
        let is_plain = !name.is_empty() && !name.contains('/') && path.starts_with('/');
        is_plain.then_some((name, path))
    })
}

/// The loader that a program names; `None` where it needs none.
fn interpreter(program: &mut File) -> io::Result<Option<PathBuf>> {
    /// A segment of this type holds the loader's path.
    const INTERPRETER: u64 = 3;
    let unfit = || io::Error::new(io::ErrorKind::InvalidData, "this program is no 64-bit ELF file");
    let mut head = [0; 64];
    program.read_exact(&mut head)?;
    // 64 bits, the small end first.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(unfit());
    }
    let number = |bytes: &[u8], at: usize, n: usize| {
        let bytes = bytes.get(at..at + n)?;
        Some(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let head_of = |at, n| number(&head, at, n).ok_or_else(unfit);
    let (table, size, count) = (head_of(32, 8)?, head_of(54, 2)?, head_of(56, 2)?);
    for place in 0..count {
        let mut segment = [0; 56];
        program.seek(SeekFrom::Start(table.saturating_add(place * size)))?;
        program.read_exact(&mut segment)?;
        let of = |at, n| number(&segment, at, n).ok_or_else(unfit);
        if of(0, 4)? != INTERPRETER {
            continue;
        }
        program.seek(SeekFrom::Start(of(8, 8)?))?;
        let mut path = String::new();
        program.take(of(32, 8)?.min(MAX_INTERPRETER_BYTES)).read_to_string(&mut path)?;
        return Ok(Some(PathBuf::from(path.trim_end_matches('\0'))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loader_lists_is_read() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
                      \tlibc.so.6 => /opt/a b/libc-2.31.so (0x00007f)\n\
                      \tlibmissing.so => not found\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(listed).collect();
        let expected = [
            ("libgcc_s.so.1", "/lib/x86_64-linux-gnu/libgcc_s.so.1"),
            ("libc.so.6", "/opt/a b/libc-2.31.so"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_program_is_brought_once_with_all_that_it_needs() {
        let state = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let first = prepare(state.path(), &own).unwrap();
        let again = prepare(state.path(), Path::new("/proc/self/exe")).unwrap();
        assert_eq!(first.folder, again.folder);
        let folders: Vec<_> = fs::read_dir(state.path().join(RELAYS)).unwrap().collect();
        assert_eq!(folders.len(), 1, "{folders:?}");
        // It runs with nothing but what is in the folder.
        let here = |name: &str| first.folder.join(name);
        let mut command = match first.call {
            Call::Plain => Command::new(here(PROGRAM)),
            Call::ByLoader => {
                let mut command = Command::new(here(LOADER));
                command.arg("--inhibit-cache").arg("--library-path").arg(&first.folder);
                command.arg(here(PROGRAM));
                command
            }
        };
        let ran = command.arg("--list").arg("a_program_is_brought").env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success() && said.contains("with_all_that_it_needs"), "{ran:?}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, format!("#!/bin/sh\n{}", " ".repeat(100))).unwrap();
        assert!(prepare(folder.path(), &script).is_err());
        assert_eq!(fs::read_dir(folder.path().join(RELAYS)).unwrap().count(), 0);
    }
}
