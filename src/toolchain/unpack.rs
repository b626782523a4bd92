//! Takes the one executable out of a package, and nothing else.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};

use super::error::{ToolchainError, UnpackError};
use super::pins::Pin;

/// The mode of an installed executable: everyone may run it, no one may change it.
pub(super) const EXECUTABLE_MODE: u32 = 0o555;

/// What a tarball may unpack to besides the executable: licences, a readme, tar's own blocks.
const OTHER_MEMBERS_BYTES: u64 = 16 << 20;

/// How much is read and written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes the executable of `tarball`, whose integrity is known by now, to the new file
/// `destination`: complete, of the pinned content, on the disk, and with its final mode.
pub(super) fn unpack(pin: &Pin, tarball: &Path, destination: &Path) -> Result<(), ToolchainError> {
    extract(pin, tarball, destination).map_err(|failure| match failure {
        Failure::Package(source) => ToolchainError::Unpack {
            member: pin.member,
            package: format!("{}/{}", pin.scope, pin.package),
            version: pin.version,
            source,
        },
        Failure::Write(source) => ToolchainError::cache(destination, source),
    })
}

/// The SHA-256 of the file at `path`, as a pin writes it.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    hash_chunks(&mut File::open(path)?, |error| error, |_| Ok(()))
}

/// Which side of the work failed.
enum Failure {
    Package(UnpackError),
    Write(io::Error),
}

impl Failure {
    fn read(source: io::Error) -> Self {
        Self::Package(UnpackError::Read(source))
    }
}

fn extract(pin: &Pin, tarball: &Path, destination: &Path) -> Result<(), Failure> {
    let packed =
        BufReader::with_capacity(BUFFER_BYTES, File::open(tarball).map_err(Failure::read)?);
    let limit = pin.executable.n_bytes.saturating_add(OTHER_MEMBERS_BYTES);
    let mut archive = tar::Archive::new(GzDecoder::new(packed).take(limit));
    for entry in archive.entries().map_err(Failure::read)? {
        let mut entry = entry.map_err(Failure::read)?;
        if *entry.path_bytes() == *pin.member.as_bytes() {
            check_header(pin, &entry).map_err(Failure::Package)?;
            let got = copy(&mut entry, destination)?;
            return check_hash(pin, got).map_err(Failure::Package);
        }
    }
    Err(Failure::Package(UnpackError::Missing))
}

fn check_header(pin: &Pin, entry: &tar::Entry<'_, impl Read>) -> Result<(), UnpackError> {
    if !entry.header().entry_type().is_file() {
        return Err(UnpackError::NotAFile);
    }
    let expected_bytes = pin.executable.n_bytes;
    let got_bytes = entry.size();
    if got_bytes != expected_bytes {
        return Err(UnpackError::WrongSize { expected_bytes, got_bytes });
    }
    Ok(())
}

fn check_hash(pin: &Pin, got: String) -> Result<(), UnpackError> {
    if got != pin.executable.hash {
        return Err(UnpackError::WrongHash { expected: pin.executable.hash.clone(), got });
    }
    Ok(())
}

/// Copies `member` to the new file `destination` and returns its SHA-256.
fn copy(member: &mut impl Read, destination: &Path) -> Result<String, Failure> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(destination)
        .map_err(Failure::Write)?;
    let hash =
        hash_chunks(member, Failure::read, |chunk| file.write_all(chunk).map_err(Failure::Write))?;
    file.set_permissions(Permissions::from_mode(EXECUTABLE_MODE))
        .and_then(|()| file.sync_all())
        .map_err(Failure::Write)?;
    Ok(hash)
}

/// Hands all of `reader` to `keep`, chunk by chunk, and returns its SHA-256.
fn hash_chunks<E>(
    reader: &mut impl Read,
    read_failed: fn(io::Error) -> E,
    mut keep: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<String, E> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = reader.read(&mut buffer).map_err(read_failed)?;
        if n == 0 {
            let digits = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(digits);
        }
        hasher.update(&buffer[..n]);
        keep(&buffer[..n])?;
    }
}
