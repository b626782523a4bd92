//! Every snapshot that this installation knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::definition::{DESCRIPTION, DOCKERFILE, Origin, Snapshot};
use super::error::SnapshotError;
use super::recipe::{BuildSettings, recipe};
use super::{folder, packages};
use crate::run::{ContextFile, ImageRecipe};

/// The snapshot of a run that names neither a snapshot nor an image.
pub const DEFAULT_SNAPSHOT: &str = "python312-uv";

/// The snapshots that are a part of this program: name, Dockerfile, description.
const BUILT_IN: [(&str, &str, &str); 2] = [
    (
        DEFAULT_SNAPSHOT,
        include_str!("../../snapshots/python312-uv/Dockerfile"),
        include_str!("../../snapshots/python312-uv/snapshot.yaml"),
    ),
    (
        "prism-playwright",
        include_str!("../../snapshots/prism-playwright/Dockerfile"),
        include_str!("../../snapshots/prism-playwright/snapshot.yaml"),
    ),
];

/// What the operator decides about snapshots.
#[derive(Debug, Clone, Default)]
pub struct SnapshotSettings {
    /// A folder with more snapshots. One of a built-in's name takes its place.
    pub folder: Option<PathBuf>,
    /// The image that snapshots are built on, instead of the one that each names.
    pub base_image: Option<String>,
    /// Arguments for every build that declares them.
    pub build_args: BTreeMap<String, String>,
    /// More certificate authorities for the builds and in the images, a PEM file.
    pub extra_ca: Option<PathBuf>,
}

/// The snapshots that can be built here.
#[derive(Debug, Clone)]
pub struct Snapshots {
    known: BTreeMap<String, Snapshot>,
    settings: BuildSettings,
}

impl Snapshots {
    /// Reads the operator's snapshots and adds them to the built-in ones.
    ///
    /// # Errors
    /// When a file cannot be read or a snapshot cannot be built by its shape.
    pub fn open(settings: &SnapshotSettings) -> Result<Self, SnapshotError> {
        let own = settings.folder.as_deref().map(folder::read).transpose()?.unwrap_or_default();
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| SnapshotError::Read { path: path.clone(), source })
        };
        let build = BuildSettings {
            base_image: settings.base_image.clone(),
            build_args: settings.build_args.clone(),
            extra_ca: settings.extra_ca.as_ref().map(read).transpose()?.unwrap_or_default(),
        };
        Self::with(own, build)
    }

    /// The built-in snapshots alone, as they are.
    ///
    /// # Panics
    /// Never: a test reads them all.
    #[must_use]
    pub fn built_in() -> Self {
        Self::with(Vec::new(), BuildSettings::default()).expect("a test reads the built-in ones")
    }

    fn with(own: Vec<Snapshot>, settings: BuildSettings) -> Result<Self, SnapshotError> {
        let mut known = BTreeMap::new();
        for (name, dockerfile, description) in BUILT_IN {
            let files = BTreeMap::from([
                (DOCKERFILE.to_owned(), ContextFile::plain(dockerfile)),
                (DESCRIPTION.to_owned(), ContextFile::plain(description)),
            ]);
            let snapshot = Snapshot::read(Path::new(name), Origin::BuiltIn, files)?;
            known.insert(snapshot.name.clone(), snapshot);
        }
        known.extend(own.into_iter().map(|snapshot| (snapshot.name.clone(), snapshot)));
        let snapshots = Self { known, settings };
        for snapshot in snapshots.known.values() {
            if let Some(from) = &snapshot.from
                && snapshots.chain(&snapshot.name).is_none()
            {
                let (name, from) = (snapshot.name.clone(), from.clone());
                return Err(SnapshotError::From { name, from });
            }
        }
        Ok(snapshots)
    }

    /// Every snapshot, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        self.known.values()
    }

    /// The snapshot of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Snapshot> {
        self.known.get(name)
    }

    /// The name that somebody may have meant who wrote `name`.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        /// More changes than this and it is another word.
        const MOST_CHANGES: usize = 4;
        let named = self.known.keys().map(|known| (changes(name, known), known.as_str()));
        let begins = |known: &str| !name.is_empty() && known.starts_with(name);
        let close = named.filter(|(n, known)| *n <= MOST_CHANGES || begins(known));
        close.min().map(|(_, known)| known)
    }

    /// The programs that a snapshot promises, those of the snapshots below included.
    #[must_use]
    pub fn tools(&self, name: &str) -> Vec<String> {
        let chain = self.chain(name).unwrap_or_default();
        chain.into_iter().flat_map(|snapshot| snapshot.tools.clone()).collect()
    }

    /// What is built for a snapshot, in order: the last one is its image. Empty for a name that is
    /// not known.
    #[must_use]
    pub fn recipes(&self, name: &str) -> Vec<ImageRecipe> {
        let mut recipes: Vec<ImageRecipe> = Vec::new();
        for snapshot in self.chain(name).unwrap_or_default() {
            recipes.push(recipe(snapshot, recipes.last(), &self.settings));
        }
        recipes
    }

    /// The recipe for Debian packages on top of the image `base`, which has the id `base_id`.
    #[must_use]
    pub fn with_packages(&self, base: &str, base_id: &str, packages: &[String]) -> ImageRecipe {
        packages::recipe(base, base_id, packages, &self.settings.extra_ca)
    }

    /// The snapshot and those below it, the lowest first. `None` where one is not known or they go
    /// in a circle.
    fn chain(&self, name: &str) -> Option<Vec<&Snapshot>> {
        let mut chain = vec![self.known.get(name)?];
        while let Some(from) = chain.last().and_then(|snapshot| snapshot.from.as_deref()) {
            if chain.len() > self.known.len() {
                return None;
            }
            chain.push(self.known.get(from)?);
        }
        chain.reverse();
        Some(chain)
    }
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn changes(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, from) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (place, to) in other.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    fn open(files: &[(&str, &str)], settings: SnapshotSettings) -> Result<Snapshots, String> {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), files);
        let folder = Some(folder.path().to_owned());
        Snapshots::open(&SnapshotSettings { folder, ..settings }).map_err(|e| e.to_string())
    }

    #[test]
    fn the_built_in_snapshots_stand_on_each_other_and_name_their_base() {
        let snapshots = Snapshots::built_in();
        let recipes = snapshots.recipes("prism-playwright");
        let titles: Vec<&str> = recipes.iter().map(|recipe| recipe.title.as_str()).collect();
        assert_eq!(titles, ["python312-uv", "prism-playwright"]);
        assert_eq!(recipes[0].base, "python:3.12-slim-bookworm");
        assert_eq!((&recipes[1].base, recipes[1].build_args.len()), (&recipes[0].tag, 1));
        let tools = snapshots.tools("prism-playwright");
        assert!(["python3", "uv", "chromium"].iter().all(|t| tools.contains(&(*t).to_owned())));
        assert!(snapshots.recipes("text-to-cad").is_empty());
    }

    #[test]
    fn a_name_changes_with_all_that_goes_into_the_image_and_with_nothing_else() {
        let settings = |base: Option<&str>, args: &[(&str, &str)]| SnapshotSettings {
            base_image: base.map(str::to_owned),
            build_args: args.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect(),
            ..SnapshotSettings::default()
        };
        let tag =
            |settings| Snapshots::open(&settings).unwrap().recipes(DEFAULT_SNAPSHOT)[0].tag.clone();
        let plain = tag(settings(None, &[]));
        assert_eq!(
            plain,
            tag(settings(None, &[("NOT_DECLARED", "x"), ("HTTPS_PROXY", "http://p")]))
        );
        assert_ne!(plain, tag(settings(Some("mirror/python"), &[])));
        assert_ne!(plain, tag(settings(None, &[("PYTHON", "3.13")])));
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), "made up").unwrap();
        let extra_ca = Some(ca.path().to_owned());
        assert_ne!(plain, tag(SnapshotSettings { extra_ca, ..SnapshotSettings::default() }));
    }

    #[test]
    fn a_snapshot_of_the_operator_is_added_or_takes_the_place_of_a_built_in_one() {
        let files = [
            ("README", "a note"),
            ("maps/Dockerfile", "FROM --platform=linux/amd64 debian:12 AS x\n"),
            ("maps/snapshot.yaml", "description: Maps."),
            ("maps/files/setup.sh", "true"),
            ("python312-uv/Dockerfile", "ARG BASE_IMAGE=own:1\nFROM $BASE_IMAGE\n"),
            ("python312-uv/snapshot.yaml", "description: Mine."),
        ];
        let snapshots = open(&files, SnapshotSettings::default()).unwrap();
        let named: Vec<(&str, Origin)> =
            snapshots.iter().map(|s| (s.name.as_str(), s.origin)).collect();
        let expected = [
            ("maps", Origin::Own),
            ("prism-playwright", Origin::BuiltIn),
            ("python312-uv", Origin::Own),
        ];
        assert_eq!(named, expected);
        let maps = &snapshots.recipes("maps")[0];
        assert_eq!(maps.base, "debian:12");
        let files: Vec<&String> = maps.files.keys().collect();
        assert_eq!(files, ["Dockerfile", "extra-ca.pem", "files/setup.sh"]);
        assert_eq!(snapshots.recipes("prism-playwright")[0].base, "own:1");
    }

    #[test]
    fn snapshots_that_stand_on_nothing_or_in_a_circle_are_refused() {
        let on = |from: &'static str| {
            [("a/Dockerfile", "ARG BASE_IMAGE\nFROM $BASE_IMAGE"), ("a/snapshot.yaml", from)]
        };
        for from in ["{description: A, from: nowhere}", "{description: A, from: a}"] {
            let error = open(&on(from), SnapshotSettings::default()).unwrap_err();
            assert!(error.starts_with("the snapshot `a` stands on"), "{error}");
        }
    }

    #[test]
    fn a_link_among_the_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("a/Dockerfile", "FROM x"), ("a/snapshot.yaml", "description: A")]);
        std::os::unix::fs::symlink("/etc/shadow", folder.path().join("a/shadow")).unwrap();
        let settings =
            SnapshotSettings { folder: Some(folder.path().to_owned()), ..Default::default() };
        let error = Snapshots::open(&settings).unwrap_err().to_string();
        assert!(error.contains("a/shadow is not a regular file"), "{error}");
    }

    #[test]
    fn a_misspelled_name_has_a_nearest_one() {
        let snapshots = Snapshots::built_in();
        for (written, meant) in [
            ("python312uv", Some("python312-uv")),
            ("python3.12-uv", Some("python312-uv")),
            ("prism", Some("prism-playwright")),
            ("text-to-cad", None),
            ("", None),
        ] {
            assert_eq!(snapshots.nearest(written), meant, "{written}");
        }
    }
}
