//! Unpacking an archive from somebody else: every member is looked at before the first is written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

use super::check::{ArchiveFault, RATIO_COUNTS_FROM_BYTES, UnpackLimits};
use super::directory::{self, unreadable};
use super::member;

/// How much is unpacked at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// After so many bytes the disk is measured again.
const MEASURE_EVERY_BYTES: u64 = 64 << 20;

/// The bits of a Unix mode that say what kind of file it is.
const KIND_BITS: u32 = 0o170_000;

/// A regular file's kind.
const REGULAR: u32 = 0o100_000;

/// A folder's kind.
const FOLDER: u32 = 0o040_000;

/// An archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive is refused.
    #[error(transparent)]
    Refused(#[from] ArchiveFault),
    /// The disk is nearly full.
    #[error("the disk has no room for what the archive holds")]
    NoRoom,
    /// What it holds could not be written.
    #[error("could not write `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A file that an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path inside the archive.
    pub path: String,
    /// Its size as the archive says it.
    pub n_bytes: u64,
}

/// Looks an archive through without unpacking it, and lists its files.
///
/// # Errors
/// [`ArchiveFault`] naming the first member that is refused.
pub fn check(
    archive: impl Read + Seek,
    limits: &UnpackLimits,
) -> Result<Vec<Member>, ArchiveFault> {
    let mut archive = directory::open(archive, limits)?;
    look_through(&mut archive, limits)
}

/// Unpacks an archive below `to`, which must be an empty folder of ours. Links, special files and
/// members that would leave the folder are refused before anything is written; sizes are counted as
/// they come, because an archive may lie about them. Folders with nothing in them are not made.
/// `has_room` is asked now and then whether the disk takes more.
///
/// # Errors
/// [`ArchiveError::Refused`] when the archive is at fault; [`ArchiveError::Write`] when the disk is.
pub fn extract(
    archive: impl Read + Seek,
    to: &Path,
    limits: &UnpackLimits,
    has_room: &dyn Fn() -> bool,
) -> Result<Vec<Member>, ArchiveError> {
    let mut archive = directory::open(archive, limits)?;
    look_through(&mut archive, limits)?;
    let mut gauge = Gauge { left: limits.total_bytes, unmeasured: MEASURE_EVERY_BYTES, has_room };
    let mut files = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| unreadable(&e))?;
        let name = name_of(&entry)?;
        let path = to.join(name.trim_end_matches('/'));
        if entry.is_dir() {
            continue;
        }
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let n_bytes = write_member(&mut entry, &name, &path, &mut gauge)?;
        files.push(Member { path: name, n_bytes });
    }
    Ok(files)
}

/// What unpacking may still write.
struct Gauge<'a> {
    left: u64,
    unmeasured: u64,
    has_room: &'a dyn Fn() -> bool,
}

impl Gauge<'_> {
    /// So much is about to be written; whether the limits allow it.
    fn allows(&mut self, n_bytes: u64) -> Result<bool, ArchiveError> {
        self.unmeasured += n_bytes;
        if self.unmeasured >= MEASURE_EVERY_BYTES {
            self.unmeasured = 0;
            if !(self.has_room)() {
                return Err(ArchiveError::NoRoom);
            }
        }
        let left = self.left.checked_sub(n_bytes);
        self.left = left.unwrap_or(0);
        Ok(left.is_some())
    }
}

fn look_through<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    limits: &UnpackLimits,
) -> Result<Vec<Member>, ArchiveFault> {
    if archive.len() > limits.n_members {
        return Err(ArchiveFault::TooMany { n: archive.len(), limit: limits.n_members });
    }
    if archive.has_duplicate_names() {
        return Err(ArchiveFault::Duplicate);
    }
    let (mut files, mut folders, mut total) = (Vec::new(), Vec::new(), 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|e| unreadable(&e))?;
        let name = name_of(&entry)?;
        if let Some(fault) = entry_fault(&entry, limits) {
            return Err(ArchiveFault::member(&name, fault));
        }
        total = total.saturating_add(entry.size());
        if entry.is_dir() {
            folders.push(name);
        } else {
            files.push(Member { path: name, n_bytes: entry.size() });
        }
    }
    if total > limits.total_bytes {
        return Err(too_large(limits));
    }
    check_tree(&files, &folders)?;
    if archive.has_overlapping_entries().map_err(|e| unreadable(&e))? {
        return Err(ArchiveFault::Overlap);
    }
    Ok(files)
}

/// The member's name, when it is harmless.
fn name_of<R: Read>(entry: &ZipFile<'_, R>) -> Result<String, ArchiveFault> {
    let name = entry.name().map_err(|e| unreadable(&e))?.into_owned();
    match member::fault(&name) {
        Some(fault) => Err(ArchiveFault::member(&name, fault)),
        None => Ok(name),
    }
}

fn entry_fault<R: Read>(entry: &ZipFile<'_, R>, limits: &UnpackLimits) -> Option<&'static str> {
    // An archive made elsewhere than on Unix has no kind; then it is a file or a folder.
    let kind = entry.unix_mode().map_or(0, |mode| mode & KIND_BITS);
    let may_inflate_to = entry.compressed_size().saturating_mul(limits.ratio);
    let known =
        matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated);
    if entry.is_symlink() {
        Some("is a symbolic link")
    } else if !matches!(kind, 0 | REGULAR | FOLDER) {
        Some("is neither a file nor a folder")
    } else if entry.encrypted() {
        Some("is encrypted")
    } else if !known {
        Some("is packed in a way that is not supported: use deflate, as `zip` does")
    } else if entry.size() > RATIO_COUNTS_FROM_BYTES && entry.size() > may_inflate_to {
        Some("unpacks to far more than it is packed, as a bomb does")
    } else {
        None
    }
}

/// Refuses a member that is a file to one and a folder to another, or twice the same.
fn check_tree(files: &[Member], folders: &[String]) -> Result<(), ArchiveFault> {
    let names: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    if names.len() < files.len() {
        return Err(ArchiveFault::Duplicate);
    }
    let is_both = |folder: &&String| names.contains(folder.trim_end_matches('/'));
    if let Some(folder) = folders.iter().find(is_both) {
        return Err(ArchiveFault::member(folder, "is a file and a folder"));
    }
    for file in files {
        let parents = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
        for parent in parents {
            if names.contains(parent) {
                return Err(ArchiveFault::member(&file.path, "lies in a folder that is a file"));
            }
        }
    }
    Ok(())
}

fn write_member<R: Read>(
    entry: &mut ZipFile<'_, R>,
    name: &str,
    path: &Path,
    gauge: &mut Gauge<'_>,
) -> Result<u64, ArchiveError> {
    let write = |source| ArchiveError::Write { path: path.to_owned(), source };
    // Never through a link and never over a file, whatever the archive says.
    let mut out = File::create_new(path).map_err(write)?;
    let said = entry.size();
    let (mut n_bytes, mut chunk) = (0_u64, vec![0; CHUNK_BYTES]);
    loop {
        let n = entry.read(&mut chunk).map_err(|e| unreadable(&e))?;
        if n == 0 {
            return Ok(n_bytes);
        }
        n_bytes += n as u64;
        if n_bytes > said || !gauge.allows(n as u64)? {
            return Err(ArchiveFault::member(name, "is larger than the archive says").into());
        }
        io::Write::write_all(&mut out, &chunk[..n]).map_err(write)?;
    }
}

fn make_folder(path: &Path) -> Result<(), ArchiveError> {
    std::fs::create_dir_all(path)
        .map_err(|source| ArchiveError::Write { path: path.to_owned(), source })
}

fn too_large(limits: &UnpackLimits) -> ArchiveFault {
    ArchiveFault::TooLarge { limit_bytes: limits.total_bytes }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    const SMALL: UnpackLimits = UnpackLimits { n_members: 20, total_bytes: 8 << 20, ratio: 200 };

    fn archive(write: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Cursor<Vec<u8>> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        write(&mut writer);
        writer.finish().unwrap()
    }

    fn with_files(files: &[(&str, &[u8])]) -> Cursor<Vec<u8>> {
        archive(|zip| {
            for (name, bytes) in files {
                zip.start_file(*name, SimpleFileOptions::default()).unwrap();
                zip.write_all(bytes).unwrap();
            }
        })
    }

    /// What an archive says with the bytes of one text exchanged for another of the same length.
    fn forged(archive: Cursor<Vec<u8>>, from: &[u8], to: &[u8]) -> Cursor<Vec<u8>> {
        let mut bytes = archive.into_inner();
        for at in 0..bytes.len().saturating_sub(from.len()) {
            if bytes[at..].starts_with(from) {
                bytes[at..at + from.len()].copy_from_slice(to);
            }
        }
        Cursor::new(bytes)
    }

    fn refusal(archive: Cursor<Vec<u8>>) -> String {
        let to = tempfile::tempdir().unwrap();
        let checked = check(archive.clone(), &SMALL).map(|_| ());
        let extracted = extract(archive, to.path(), &SMALL, &|| true);
        match (checked, extracted) {
            (Err(fault), Err(ArchiveError::Refused(same))) => {
                assert_eq!(fault, same);
                assert_eq!(
                    std::fs::read_dir(to.path()).unwrap().count(),
                    0,
                    "something was written"
                );
                fault.to_string()
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_harmless_archive_is_unpacked_with_its_folders() {
        let zip = archive(|zip| {
            zip.add_directory("skill/", SimpleFileOptions::default()).unwrap();
            zip.start_file("skill/SKILL.md", SimpleFileOptions::default()).unwrap();
            zip.write_all(b"# hello").unwrap();
            zip.start_file("top ü.txt", SimpleFileOptions::default()).unwrap();
        });
        let to = tempfile::tempdir().unwrap();
        let members = extract(zip.clone(), to.path(), &SMALL, &|| true).unwrap();
        assert_eq!(check(zip, &SMALL).unwrap(), members);
        let paths: Vec<&str> = members.iter().map(|member| member.path.as_str()).collect();
        assert_eq!(paths, ["skill/SKILL.md", "top ü.txt"]);
        assert_eq!(std::fs::read(to.path().join("skill/SKILL.md")).unwrap(), b"# hello");
    }

    #[test]
    fn a_refusal_names_the_member_and_writes_nothing() {
        let link = archive(|zip| {
            zip.add_symlink("evil", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        });
        let both = archive(|zip| {
            zip.start_file("a", SimpleFileOptions::default()).unwrap();
            zip.add_directory("a/", SimpleFileOptions::default()).unwrap();
        });
        let bomb: &[u8] = &vec![0; 4 << 20];
        let eight: &[u8] = b"12345678";
        let many: Vec<String> = (0..21).map(|n| format!("f{n}")).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), eight)).collect();
        for (zip, expected) in [
            (with_files(&[("ok", eight), ("../up", eight)]), "`../up` leads outside"),
            (with_files(&[("/abs", eight)]), "`/abs` has an absolute path"),
            (with_files(&[("a\\b", eight)]), "`a\\\\b` has a backslash"),
            (with_files(&[("C:x", eight)]), "`C:x` begins with a drive letter"),
            (with_files(&[("a\nb", eight)]), "`a\\nb` has a control character"),
            (with_files(&[("a", eight), ("a/b", eight)]), "`a/b` lies in a folder that is a file"),
            (both, "`a/` is a file and a folder"),
            (link, "`evil` is a symbolic link"),
            (with_files(&[("zeros", bomb)]), "`zeros` unpacks to far more"),
            (with_files(&many), "has 21 members: at most 20"),
            (forged(with_files(&[("one", eight), ("two", eight)]), b"two", b"one"), "same name"),
            (Cursor::new(b"not a zip".to_vec()), "cannot be read as a zip archive"),
            (Cursor::new(Vec::new()), "cannot be read as a zip archive"),
        ] {
            let said = refusal(zip);
            assert!(said.contains(expected), "{said} (expected {expected})");
        }
    }

    #[test]
    fn all_files_together_have_a_limit() {
        let noise: Vec<u8> =
            (0..3_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let zip = with_files(&[("a", &noise), ("b", &noise), ("c", &noise)]);
        assert_eq!(refusal(zip), "it unpacks to more than 8388608 bytes");
    }

    #[test]
    fn a_disk_that_fills_up_ends_the_unpacking() {
        let noise: Vec<u8> =
            (0..40_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let zip = with_files(&[("a", &noise), ("b", &noise), ("c", &noise)]);
        let to = tempfile::tempdir().unwrap();
        let n_asked = std::cell::Cell::new(0);
        let has_room = || {
            n_asked.set(n_asked.get() + 1);
            n_asked.get() < 2
        };
        let ended = extract(zip, to.path(), &UnpackLimits::INPUTS, &has_room);
        assert!(matches!(ended, Err(ArchiveError::NoRoom)), "{ended:?}");
        assert!(!to.path().join("c").exists());
    }

    #[test]
    fn an_archive_that_lies_about_a_size_is_stopped_while_it_is_unpacked() {
        let said = 4096_u32.to_le_bytes();
        let zip = forged(with_files(&[("lie", &[7; 4096])]), &said, &16_u32.to_le_bytes());
        let to = tempfile::tempdir().unwrap();
        assert!(matches!(extract(zip, to.path(), &SMALL, &|| true), Err(ArchiveError::Refused(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_an_archive_says_nothing_is_written_outside(
            names in prop::collection::vec(r"[ab./\\:]{1,8}", 1..6),
            flip in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = archive(|zip| {
                for name in &names {
                    if zip.start_file(name.as_str(), SimpleFileOptions::default()).is_ok() {
                        zip.write_all(b"content").unwrap();
                    }
                }
            }).into_inner();
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let root = tempfile::tempdir().unwrap();
            let to = root.path().join("deep/inside");
            std::fs::create_dir_all(&to).unwrap();
            // Whether it is refused does not matter here.
            drop(extract(Cursor::new(bytes), &to, &SMALL, &|| true));
            prop_assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
            prop_assert_eq!(std::fs::read_dir(root.path().join("deep")).unwrap().count(), 1);
        }
    }
}
