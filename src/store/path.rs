//! A path in the results directory, as clients write it.

use crate::run::Slug;

/// Longest path, in bytes: what Linux takes.
const MAX_BYTES: usize = 4096;

/// Most segments of a path. A run's own files lie at most 64 folders deep, below five of ours.
const MAX_SEGMENTS: usize = 72;

/// A path that leads nowhere in the results directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path of a stored file: it {problem}")]
pub struct BadPath {
    /// The path, with control characters escaped.
    pub path: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A path below the results directory: a collection, then segments that lead down only. Whether
/// something is there is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePath {
    collection: Slug,
    segments: Vec<String>,
}

impl StoragePath {
    /// Reads a path such as `team/hello/bb2bb71e/results/out.md`.
    ///
    /// # Errors
    /// [`BadPath`] when it does not start with a collection's name or could lead outside.
    pub fn parse(path: &str) -> Result<Self, BadPath> {
        let bad = |problem| BadPath { path: path.escape_debug().to_string(), problem };
        if path.len() > MAX_BYTES {
            return Err(BadPath { path: "…".to_owned(), problem: "is too long" });
        }
        let mut segments = path.trim_matches('/').split('/');
        let collection = segments.next().and_then(|first| Slug::new(first).ok());
        let collection = collection.ok_or_else(|| bad("does not start with a collection"))?;
        let segments: Vec<String> = segments.map(str::to_owned).collect();
        if segments.len() > MAX_SEGMENTS {
            return Err(bad("has too many segments"));
        }
        if segments.iter().any(|segment| matches!(segment.as_str(), "" | "." | "..")) {
            return Err(bad("has a segment that is empty, `.` or `..`"));
        }
        if path.contains('\0') {
            return Err(bad("has a NUL in it"));
        }
        Ok(Self { collection, segments })
    }

    /// The collection that it belongs to.
    #[must_use]
    pub fn collection(&self) -> &Slug {
        &self.collection
    }

    /// Its last segment: the file's own name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.segments.last().map_or(self.collection.as_str(), String::as_str)
    }

    /// The segments from the collection on.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.collection.as_str()).chain(self.segments.iter().map(String::as_str))
    }
}

impl std::fmt::Display for StoragePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.collection.as_str())?;
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_leads_down_or_is_refused() {
        for path in
            ["", "/", ".", "..", "../x", "c/../d", "c/./d", "c//d", ".c/d", "c/\0", "a\\b/c"]
        {
            assert!(StoragePath::parse(path).is_err(), "{path:?}");
        }
        for path in ["c/t/id/results/a b.md", "c/t/id/results/..x", "c/t/id/results/a\nb\\c"] {
            assert_eq!(StoragePath::parse(path).unwrap().to_string(), path);
        }
        assert_eq!(StoragePath::parse("/c/t/").unwrap().to_string(), "c/t");
    }

    proptest! {
        #[test]
        fn a_path_that_is_read_is_the_path_that_was_written(path in r"[a./\\ \x00-]{0,12}") {
            if let Ok(read) = StoragePath::parse(&path) {
                prop_assert_eq!(read.to_string(), path.trim_matches('/'));
                prop_assert!(read.segments().all(|s| !s.is_empty() && s != ".." && s != "."));
            }
        }
    }
}
