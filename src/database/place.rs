//! Where a database file may lie. SQLite's locks and its shared memory need a local file system.

use std::path::Path;

use super::error::DatabaseError;

/// File systems whose files other machines change too, by the number that `statfs` tells. FUSE is
/// not among them: it also hosts local disks, and does not say which.
const NETWORK: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "CephFS"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x1983_0326, "BeeGFS"),
    (0x564c, "NCP"),
];

/// Refuses a folder on a network file system.
pub(super) fn check(folder: &Path, database: &Path) -> Result<(), DatabaseError> {
    let stat = rustix::fs::statfs(folder)
        .map_err(|errno| DatabaseError::Folder { path: folder.to_owned(), source: errno.into() })?;
    // The kernel's numbers have 32 bits; where the field is signed, the upper half is the sign.
    let number = u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff;
    match network_file_system(number) {
        Some(kind) => Err(DatabaseError::NetworkFileSystem { path: database.to_owned(), kind }),
        None => Ok(()),
    }
}

fn network_file_system(number: u64) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_number_and_local_ones_pass() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xff53_4d42), Some("CIFS"));
        // ext4, btrfs, xfs, tmpfs, overlayfs, zfs.
        for local in [0xef53, 0x9123_683e, 0x5846_5342, 0x0102_1994, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(network_file_system(local), None, "{local:x}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path(), &folder.path().join("a.db")).is_ok());
    }
}
