//! Opening an archive: its directory is believed to be small before it is read.
//!
//! The reader of archives (zip) keeps every entry of the directory, and makes room for as many as
//! the archive says it has. So what it says is looked at first, and what is read of it is counted.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use zip::ZipArchive;

use super::check::{ArchiveFault, UnpackLimits};

/// Largest directory, in bytes: as many members as are unpacked, with the longest names.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// What may be read to find the directory and to read it, in bytes.
const MAX_READ_BYTES: u64 = 2 * MAX_DIRECTORY_BYTES;

/// The end of the directory is at most so far from the end of the archive: its own length, and the
/// longest comment.
const MAX_TAIL_BYTES: u64 = END_BYTES as u64 + (1 << 16);

/// The fixed part of the directory's end.
const END_BYTES: usize = 22;

/// What the end of a directory begins with.
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";

/// The archive, its directory read.
pub(super) fn open<R: Read + Seek>(
    mut archive: R,
    limits: &UnpackLimits,
) -> Result<ZipArchive<Metered<R>>, ArchiveFault> {
    check_ends(&tail(&mut archive)?, limits)?;
    let left = Rc::new(Cell::new(Some(MAX_READ_BYTES)));
    let metered = Metered { inner: archive, left: Rc::clone(&left) };
    let opened = ZipArchive::new(metered);
    match left.replace(None) {
        Some(0) => Err(too_large()),
        Some(_) | None => opened.map_err(|e| unreadable(&e)),
    }
}

/// The last bytes of the archive.
fn tail(archive: &mut (impl Read + Seek)) -> Result<Vec<u8>, ArchiveFault> {
    let length = archive.seek(SeekFrom::End(0)).map_err(|e| unreadable(&e))?;
    let n_bytes = length.min(MAX_TAIL_BYTES);
    archive.seek(SeekFrom::Start(length - n_bytes)).map_err(|e| unreadable(&e))?;
    let mut tail = Vec::new();
    archive.take(n_bytes).read_to_end(&mut tail).map_err(|e| unreadable(&e))?;
    Ok(tail)
}

/// Looks at whatever could be the directory's end: which one is taken is the reader's to say.
fn check_ends(tail: &[u8], limits: &UnpackLimits) -> Result<(), ArchiveFault> {
    for end in tail.windows(END_BYTES).filter(|bytes| bytes.starts_with(&END_MAGIC)) {
        let short = |at: usize| u16::from_le_bytes([end[at], end[at + 1]]);
        let long = |at: usize| u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
        let (n_members, n_bytes, begins_at) = (short(10), long(12), long(16));
        if n_members == u16::MAX || n_bytes == u32::MAX || begins_at == u32::MAX {
            let reason = "it has the zip64 form of its directory, which only archives of 65535 \
                          members or 4 GiB need: they are too large";
            return Err(ArchiveFault::Unreadable { reason: reason.to_owned() });
        }
        if usize::from(n_members) > limits.n_members {
            return Err(ArchiveFault::TooMany {
                n: usize::from(n_members),
                limit: limits.n_members,
            });
        }
        if u64::from(n_bytes) > MAX_DIRECTORY_BYTES {
            return Err(too_large());
        }
    }
    Ok(())
}

fn too_large() -> ArchiveFault {
    ArchiveFault::Directory { limit_bytes: MAX_DIRECTORY_BYTES }
}

pub(super) fn unreadable(error: &dyn std::error::Error) -> ArchiveFault {
    ArchiveFault::Unreadable { reason: error.to_string() }
}

/// An archive of which, for a while, only so much may be read.
#[derive(Debug)]
pub(super) struct Metered<R> {
    inner: R,
    /// `None` when there is no limit any more.
    left: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.left.get() else { return self.inner.read(buffer) };
        if left == 0 {
            return Err(io::Error::other("the directory is too large"));
        }
        let n_bytes = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n_read = self.inner.read(&mut buffer[..n_bytes])?;
        self.left.set(Some(left - n_read as u64));
        Ok(n_read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn end(n_members: u16, n_bytes: u32, begins_at: u32) -> Vec<u8> {
        let mut end = END_MAGIC.to_vec();
        end.extend([0; 4]);
        end.extend(n_members.to_le_bytes());
        end.extend(n_members.to_le_bytes());
        end.extend(n_bytes.to_le_bytes());
        end.extend(begins_at.to_le_bytes());
        end.extend([0; 2]);
        end
    }

    #[test]
    fn a_directory_is_refused_by_what_it_says_before_it_is_read() {
        let limits = UnpackLimits { n_members: 20, total_bytes: 8, ratio: 200 };
        let many = ArchiveFault::TooMany { n: 21, limit: 20 };
        for (archive, expected) in [
            (end(21, 9, 0), many.clone()),
            // Another one, of which the reader could take either.
            ([end(21, 9, 0), end(1, 9, 0)].concat(), many),
            (end(1, 1 << 30, 0), too_large()),
        ] {
            assert_eq!(open(Cursor::new(archive), &limits).unwrap_err(), expected);
        }
        for archive in [end(u16::MAX, 9, 0), end(1, u32::MAX, 0), end(1, 9, u32::MAX)] {
            let fault = open(Cursor::new(archive), &limits).unwrap_err().to_string();
            assert!(fault.contains("zip64"), "{fault}");
        }
    }

    #[test]
    fn a_directory_that_is_longer_than_it_says_is_not_read_to_its_end() {
        // Every entry has a name and a comment of 60 KiB, and the directory says that it is short.
        let entry = |n: u16| {
            let mut entry = b"PK\x01\x02".to_vec();
            entry.extend([0; 24]);
            entry.extend(60_000_u16.to_le_bytes());
            entry.extend([0; 2]);
            entry.extend(60_000_u16.to_le_bytes());
            entry.extend([0; 12]);
            entry.extend(n.to_le_bytes());
            entry.extend(std::iter::repeat_n(b'n', 120_000 - 2));
            entry
        };
        let mut archive: Vec<u8> = b"some".to_vec();
        (0..400).for_each(|n| archive.extend(entry(n)));
        archive.extend(end(400, 100, 4));
        let mut read = Counted { inner: Cursor::new(archive), n_bytes: 0 };
        let fault = open(&mut read, &UnpackLimits::INPUTS).unwrap_err();
        assert_eq!(fault, too_large());
        assert!(
            read.n_bytes <= MAX_READ_BYTES + MAX_TAIL_BYTES,
            "{} bytes were read",
            read.n_bytes
        );
    }

    #[derive(Debug)]
    struct Counted {
        inner: Cursor<Vec<u8>>,
        n_bytes: u64,
    }

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n_read = self.inner.read(buffer)?;
            self.n_bytes += n_read as u64;
            Ok(n_read)
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.inner.seek(to)
        }
    }
}
