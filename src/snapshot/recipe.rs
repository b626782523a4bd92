//! From a snapshot and the operator's settings to what is built, and its name.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::definition::Snapshot;
use crate::run::{ContextFile, ImageRecipe};

/// The first part of every image's name.
const REPOSITORY: &str = "runbookd-snapshot";

/// Counts up when a recipe of the same content must be built anew.
const RECIPE_VERSION: u8 = 1;

/// How many bytes of the hash a name has. 64 bits are far from a chance meeting.
const NAME_BYTES: usize = 8;

/// The argument with the image that a build stands on.
const BASE_IMAGE: &str = "BASE_IMAGE";

/// The file with the operator's certificate authorities, empty where there are none.
pub(super) const EXTRA_CA: &str = "extra-ca.pem";

/// Arguments that every build knows without declaring them. They change the way to the packages,
/// not what comes of it, so they are no part of the name.
const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What the operator decides for every build.
#[derive(Debug, Clone, Default)]
pub(super) struct BuildSettings {
    pub(super) base_image: Option<String>,
    pub(super) build_args: BTreeMap<String, String>,
    pub(super) extra_ca: Vec<u8>,
}

/// The recipe for a snapshot, on top of `below` where it stands on another one.
pub(super) fn recipe(
    snapshot: &Snapshot,
    below: Option<&ImageRecipe>,
    settings: &BuildSettings,
) -> ImageRecipe {
    let declared = arguments(snapshot.dockerfile());
    let base = below.map(|below| below.tag.clone()).or_else(|| settings.base_image.clone());
    let mut build_args: BTreeMap<String, String> = settings
        .build_args
        .iter()
        .filter(|(name, _)| declared.contains_key(name.as_str()) || is_proxy(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let (Some(base), true) = (&base, declared.contains_key(BASE_IMAGE)) {
        build_args.insert(BASE_IMAGE.to_owned(), base.clone());
    }
    let own_base = || declared.get(BASE_IMAGE).copied().filter(|base| !base.is_empty());
    let named = build_args.get(BASE_IMAGE).map(String::as_str).or_else(own_base);
    let base = named.unwrap_or_else(|| first_from(snapshot.dockerfile())).to_owned();
    let mut files = snapshot.files.clone();
    files.insert(EXTRA_CA.to_owned(), ContextFile::plain(settings.extra_ca.as_slice()));
    let title = snapshot.name.clone();
    let recipe = ImageRecipe { title, tag: String::new(), base, files, build_args };
    tagged(recipe, "")
}

/// The recipe with its name. `also` is what else must be the same for the image to be the same.
pub(super) fn tagged(recipe: ImageRecipe, also: &str) -> ImageRecipe {
    let mut hash = Sha256::new();
    // Each piece with its length, so that two pieces never read as one.
    let mut take = |piece: &[u8]| {
        hash.update(piece.len().to_be_bytes());
        hash.update(piece);
    };
    take(&[RECIPE_VERSION]);
    take(recipe.base.as_bytes());
    take(also.as_bytes());
    for (path, file) in &recipe.files {
        take(path.as_bytes());
        take(&[u8::from(file.is_executable)]);
        take(&file.bytes);
    }
    for (name, value) in recipe.build_args.iter().filter(|(name, _)| !is_proxy(name)) {
        take(name.as_bytes());
        take(value.as_bytes());
    }
    let digest = hash.finalize();
    let hex: String = digest[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("{REPOSITORY}/{}:{hex}", recipe.title);
    ImageRecipe { tag, ..recipe }
}

fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}

/// The arguments that a Dockerfile declares, with their defaults.
fn arguments(dockerfile: &str) -> BTreeMap<&str, &str> {
    let declared = dockerfile.lines().filter_map(|line| line.trim().strip_prefix("ARG "));
    declared
        .map(|words| words.split_once('=').unwrap_or((words, "")))
        .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
        .collect()
}

fn first_from(dockerfile: &str) -> &str {
    let from = dockerfile.lines().find_map(|line| line.trim().strip_prefix("FROM "));
    from.unwrap_or_default().split_whitespace().find(|w| !w.starts_with("--")).unwrap_or_default()
}
