//! One process per database file. The lock is the kernel's, so a process that dies holds nothing.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::DatabaseError;

/// Longest process id that is read back from a lock file, in bytes. The file is ours, but anybody
/// could have written it.
const MAX_PID_BYTES: u64 = 16;

/// Takes the lock beside the database, or says who has it. The file is never removed: whoever looks
/// at it must look at the same one.
pub(super) fn take(database: &Path) -> Result<File, DatabaseError> {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    let path = Path::new(&name);
    let failed = |source| DatabaseError::Lock { path: path.to_owned(), source };
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let holder = (&file)
                .take(MAX_PID_BYTES)
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(DatabaseError::InUse { path: database.to_owned(), holder });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
