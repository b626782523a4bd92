//! What an archive may hold, and what speaks against one.

use super::extract::Member;

/// How much one archive may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Files and folders in it.
    pub n_members: usize,
    /// Bytes of all its files together, unpacked.
    pub total_bytes: u64,
    /// How many bytes one packed byte may become. Text reaches 20, logs 100; a bomb has 1000.
    pub ratio: u64,
}

impl UnpackLimits {
    /// What a run's inputs may be: far more than any skill or data set seen so far, far less than a
    /// disk.
    pub const INPUTS: Self = Self { n_members: 10_000, total_bytes: 2 << 30, ratio: 200 };

    /// What is left of these after some members were unpacked.
    #[must_use]
    pub fn after(self, members: &[Member]) -> Self {
        let n_bytes = members.iter().map(|member| member.n_bytes).sum();
        Self {
            n_members: self.n_members.saturating_sub(members.len()),
            total_bytes: self.total_bytes.saturating_sub(n_bytes),
            ..self
        }
    }
}

/// Below this many unpacked bytes the ratio says nothing: a short file of zeros is no bomb.
pub(super) const RATIO_COUNTS_FROM_BYTES: u64 = 1 << 20;

/// Why an archive is refused: the client's fault, said in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveFault {
    /// It is no archive, or a damaged one.
    #[error("it cannot be read as a zip archive: {reason}")]
    Unreadable {
        /// What the reader says.
        reason: String,
    },
    /// One member is refused.
    #[error("its member `{member}` {fault}")]
    Member {
        /// Its name, with control characters escaped.
        member: String,
        /// What is wrong with it, as the end of a sentence.
        fault: &'static str,
    },
    /// Two members have one name.
    #[error("two of its members have the same name")]
    Duplicate,
    /// Two members share their bytes, as bombs do.
    #[error("its members overlap")]
    Overlap,
    /// Its directory is too large.
    #[error("its directory has more than {limit_bytes} bytes")]
    Directory {
        /// How many it may have.
        limit_bytes: u64,
    },
    /// Too many members.
    #[error("it has {n} members: at most {limit} are unpacked")]
    TooMany {
        /// How many it has.
        n: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Too many bytes.
    #[error("it unpacks to more than {limit_bytes} bytes")]
    TooLarge {
        /// What it may unpack to.
        limit_bytes: u64,
    },
}

impl ArchiveFault {
    pub(super) fn member(name: &str, fault: &'static str) -> Self {
        Self::Member { member: name.escape_debug().to_string(), fault }
    }
}
