//! Values that are encrypted where they rest. The key lies in a file of its own, so that a copy of
//! the database alone tells nothing.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::secret::Secret;

/// Length of the key, in bytes.
const KEY_BYTES: usize = 32;

/// The format of a sealed value: this byte, the key's mark, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;

/// Length of the key's mark in a sealed value, in bytes. It tells "another key" from "damaged" and
/// nothing about the key.
const MARK_BYTES: usize = 4;

/// Length of everything before the ciphertext, in bytes.
const HEAD_BYTES: usize = 1 + MARK_BYTES + NONCE_LEN;

/// The vault could not do its part. No variant holds a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file could not be made.
    #[error("could not make the key file `{}`", path.display())]
    Create {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file could not be read.
    #[error("could not read the key file `{}`", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file can be read by others.
    #[error(
        "the key file `{}` can be read by others (mode {mode:03o}): run `chmod 600` on it, and replace the secrets if somebody may have seen it",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key file does not hold a key.
    #[error(
        "the key file `{}` must be a file of exactly {KEY_BYTES} bytes: restore it from a backup; what was sealed with it cannot be read without it",
        path.display()
    )]
    NotAKey {
        /// The key file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// The value is too long to be sealed.
    #[error("the value for `{context}` is too long to be sealed")]
    TooLong {
        /// What the value is for.
        context: String,
    },
    /// The value was sealed with another key.
    #[error(
        "the value for `{context}` was sealed with another key than the one in `{}`: put the old key file back, or set the value again",
        key.display()
    )]
    OtherKey {
        /// What the value is for.
        context: String,
        /// The key file in use.
        key: PathBuf,
    },
    /// The value was changed, or it was sealed for another place.
    #[error(
        "the value for `{context}` is damaged or was sealed for another place (key file `{}`): set the value again",
        key.display()
    )]
    Damaged {
        /// What the value is for.
        context: String,
        /// The key file in use.
        key: PathBuf,
    },
}

/// Seals and opens values with one key.
pub struct Vault {
    path: PathBuf,
    key: LessSafeKey,
    mark: [u8; MARK_BYTES],
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Vault {
    /// Reads the key file, and makes it with a new key where it is missing.
    ///
    /// # Errors
    /// When it cannot be made or read, when others can read it, when it does not hold a key.
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let random = SystemRandom::new();
        let bytes = match read_key(path) {
            Err(VaultError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make_key(path, &random)?;
                // Read back: another process may have been the first to make it.
                read_key(path)?
            }
            read => read?,
        };
        let not_a_key = || VaultError::NotAKey { path: path.to_owned() };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| not_a_key())?;
        let labelled = [b"runbookd key mark:".as_slice(), &bytes].concat();
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&digest(&SHA256, &labelled).as_ref()[..MARK_BYTES]);
        Ok(Self { path: path.to_owned(), key: LessSafeKey::new(key), mark, random })
    }

    /// Encrypts a value for one place, which is named by `context` (such as `collection/NAME`): it
    /// can be opened for that place alone.
    ///
    /// # Errors
    /// [`VaultError::Random`] and [`VaultError::TooLong`].
    pub fn seal(&self, plaintext: &str, context: &str) -> Result<String, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| VaultError::Random)?;
        let mut ciphertext = plaintext.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.bound_to(context)),
                &mut ciphertext,
            )
            .map_err(|_| VaultError::TooLong { context: context.to_owned() })?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend(self.mark);
        sealed.extend(nonce);
        sealed.extend(ciphertext);
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Decrypts a value that was sealed for the same place.
    ///
    /// # Errors
    /// [`VaultError::OtherKey`] or [`VaultError::Damaged`].
    pub fn open(&self, sealed: &str, context: &str) -> Result<Secret, VaultError> {
        let damaged =
            || VaultError::Damaged { context: context.to_owned(), key: self.path.clone() };
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| damaged())?;
        let (head, ciphertext) = bytes.split_at_mut_checked(HEAD_BYTES).ok_or_else(damaged)?;
        let (mark, nonce) = head[1..].split_at(MARK_BYTES);
        if head[0] != VERSION {
            return Err(damaged());
        }
        if mark != self.mark {
            let context = context.to_owned();
            return Err(VaultError::OtherKey { context, key: self.path.clone() });
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let plaintext = self
            .key
            .open_in_place(nonce, Aad::from(self.bound_to(context)), ciphertext)
            .map_err(|_| damaged())?;
        String::from_utf8(plaintext.to_vec()).map(Secret::new).map_err(|_| damaged())
    }

    /// What a sealed value is bound to beside its key.
    fn bound_to(&self, context: &str) -> Vec<u8> {
        [&[VERSION], self.mark.as_slice(), context.as_bytes()].concat()
    }
}

fn read_key(path: &Path) -> Result<Vec<u8>, VaultError> {
    let failed = |source| VaultError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(VaultError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
    if metadata.is_file() {
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() == KEY_BYTES {
        Ok(bytes)
    } else {
        Err(VaultError::NotAKey { path: path.to_owned() })
    }
}

/// Writes a new key whole and then gives it its name, so that a process that dies here leaves
/// nothing behind that looks like a key. A file that is already there is kept.
fn make_key(path: &Path, random: &SystemRandom) -> Result<(), VaultError> {
    let failed = |source| VaultError::Create { path: path.to_owned(), source };
    let mut bytes = [0; KEY_BYTES];
    random.fill(&mut bytes).map_err(|_| VaultError::Random)?;
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(lost) => Err(failed(lost.error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vault() -> (tempfile::TempDir, Vault) {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::load(&folder.path().join("secret.key")).unwrap();
        (folder, vault)
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_alone() {
        let (folder, vault) = vault();
        let path = folder.path().join("secret.key");
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 32));
        let sealed = vault.seal("made-up", "acme/KEY").unwrap();
        let again = Vault::load(&path).unwrap();
        assert_eq!(again.open(&sealed, "acme/KEY").unwrap().expose(), "made-up");
        // Nothing else is left in the folder.
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_can_read_or_that_is_no_key_is_refused() {
        let (folder, _) = vault();
        let path = folder.path().join("secret.key");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let refused = Vault::load(&path).unwrap_err();
        assert!(matches!(refused, VaultError::Exposed { mode: 0o640, .. }), "{refused:?}");
        assert!(refused.to_string().contains("mode 640"), "{refused}");
        for bytes in [0, 31, 33, 1_000_000] {
            std::fs::write(&path, vec![7; bytes]).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Vault::load(&path), Err(VaultError::NotAKey { .. })), "{bytes}");
        }
        let elsewhere = folder.path().join("a folder");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(Vault::load(&elsewhere), Err(VaultError::NotAKey { .. })));
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let ((_one, mine), (_two, other)) = (vault(), vault());
        let sealed = mine.seal("made-up", "acme/KEY").unwrap();
        let refused = other.open(&sealed, "acme/KEY").unwrap_err();
        assert!(matches!(&refused, VaultError::OtherKey { key, .. } if *key == other.path));
        for nothing in ["", "AQ", "not base64!"] {
            assert!(matches!(mine.open(nothing, "acme/KEY"), Err(VaultError::Damaged { .. })));
        }
        assert!(!format!("{mine:?}").contains("key: "));
    }

    #[test]
    fn the_first_processes_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let sealed: Vec<String> = std::thread::scope(|scope| {
            let one = || Vault::load(&path).unwrap().seal("made-up", "x").unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let vault = Vault::load(&path).unwrap();
        assert!(sealed.iter().all(|sealed| vault.open(sealed, "x").is_ok()));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_for_its_own_place_alone_and_unchanged_alone(
            plaintext in ".{0,200}",
            context in "[a-z]{1,9}/[A-Z_]{1,9}",
            elsewhere in "[a-z]{1,9}/[A-Z_]{1,9}",
            place in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let (_folder, vault) = vault();
            let sealed = vault.seal(&plaintext, &context).unwrap();
            let opened = vault.open(&sealed, &context).unwrap();
            prop_assert_eq!(opened.expose(), plaintext.as_str());
            prop_assert!(plaintext.len() < 4 || !sealed.contains(&plaintext));
            // No two are alike, though what they hold is.
            prop_assert_ne!(&vault.seal(&plaintext, &context).unwrap(), &sealed);
            if elsewhere != context {
                prop_assert!(vault.open(&sealed, &elsewhere).is_err());
            }
            let mut bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(vault.open(&URL_SAFE_NO_PAD.encode(bytes), &context).is_err());
        }
    }
}
