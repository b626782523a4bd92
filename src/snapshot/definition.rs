//! One snapshot: what it promises, and the files of its build.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::SnapshotError;
use crate::run::ContextFile;

/// The file that an image is built from.
pub(super) const DOCKERFILE: &str = "Dockerfile";

/// The file that describes a snapshot.
pub(super) const DESCRIPTION: &str = "snapshot.yaml";

/// Names with a meaning of their own: a place that a server has not, and the images with packages.
const RESERVED: [&str; 2] = ["local", super::packages::PACKAGES_TITLE];

/// Where a snapshot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is a part of this program.
    BuiltIn,
    /// It lies in the operator's folder.
    Own,
}

/// A named image that a sandbox can start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence.
    pub description: String,
    /// The programs that it promises, beside those of the snapshot below.
    pub tools: Vec<String>,
    /// The snapshot below it.
    pub from: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// The files of its build.
    pub(super) files: BTreeMap<String, ContextFile>,
}

/// `snapshot.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    description: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    tools: Vec<String>,
}

impl Snapshot {
    /// Reads a snapshot's files, `snapshot.yaml` among them.
    pub(super) fn read(
        path: &Path,
        origin: Origin,
        mut files: BTreeMap<String, ContextFile>,
    ) -> Result<Self, SnapshotError> {
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
        let name = name.ok_or_else(|| SnapshotError::Name { path: path.to_owned() })?.to_owned();
        let text = files.remove(DESCRIPTION).unwrap_or_default().bytes;
        let Description { description, from, tools } =
            serde_yaml::from_slice(&text).map_err(|source| SnapshotError::Description {
                path: path.join(DESCRIPTION),
                source,
            })?;
        let snapshot = Self { name, description, tools, from, origin, files };
        if snapshot.dockerfile().lines().any(|line| line.trim_start().starts_with("FROM ")) {
            Ok(snapshot)
        } else {
            Err(SnapshotError::NoDockerfile { name: snapshot.name })
        }
    }

    /// Its Dockerfile, empty where it is not UTF-8.
    pub(super) fn dockerfile(&self) -> &str {
        let file = self.files.get(DOCKERFILE);
        file.and_then(|file| std::str::from_utf8(&file.bytes).ok()).unwrap_or_default()
    }
}

/// Whether an image can have this name, and a snapshot may.
fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let parts_are_whole = name.split(['.', '_', '-']).all(|part| !part.is_empty());
    parts_are_whole
        && name.chars().all(|c| legal(c) || matches!(c, '.' | '_' | '-'))
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, files: &[(&str, &str)]) -> Result<Snapshot, String> {
        let file = |&(name, text): &(&str, &str)| (name.to_owned(), ContextFile::plain(text));
        Snapshot::read(Path::new(name), Origin::Own, files.iter().map(file).collect())
            .map_err(|error| error.to_string())
    }

    const FROM: (&str, &str) = ("Dockerfile", "FROM debian\n");

    #[test]
    fn a_snapshot_is_its_description_and_the_files_of_its_build() {
        let description = ("snapshot.yaml", "description: For maps.\nfrom: base\ntools: [gdal]");
        let read = read("a/maps", &[FROM, description, ("x/y", "z")]).unwrap();
        let file = |name: &str, text: &str| (name.to_owned(), ContextFile::plain(text));
        let expected = Snapshot {
            name: "maps".to_owned(),
            description: "For maps.".to_owned(),
            tools: vec!["gdal".to_owned()],
            from: Some("base".to_owned()),
            origin: Origin::Own,
            files: [file("Dockerfile", "FROM debian\n"), file("x/y", "z")].into(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_cannot_be_a_snapshot_is_refused() {
        let plain = ("snapshot.yaml", "description: D");
        for name in ["local", "packages", "Maps", "a--b", "-a", "a.", "a b", "é"] {
            assert!(read(name, &[FROM, plain]).unwrap_err().contains("cannot be a snapshot"));
        }
        let unknown = ("snapshot.yaml", "description: D\ncolour: red");
        assert!(read("a", &[FROM, unknown]).unwrap_err().contains("a/snapshot.yaml is not"));
        assert!(read("a", &[FROM]).unwrap_err().contains("a/snapshot.yaml is not"));
        for dockerfile in ["", "# FROM x\n"] {
            let error = read("a", &[("Dockerfile", dockerfile), plain]).unwrap_err();
            assert_eq!(error, "the snapshot `a` has no Dockerfile with a `FROM`");
        }
    }
}
