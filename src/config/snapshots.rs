//! What snapshots are built from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use url::Url;

use crate::snapshot::SnapshotSettings;

pub(super) fn snapshot_settings(
    vars: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
) -> SnapshotSettings {
    let words = vars.get("RUNBOOKD_BUILD_ARGS").map_or("", String::as_str);
    SnapshotSettings {
        folder: vars.get("RUNBOOKD_SNAPSHOTS").map(PathBuf::from),
        base_image: vars.get("RUNBOOKD_BASE_IMAGE").cloned(),
        build_args: build_args(words, faults),
        extra_ca: vars.get("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
    }
}

/// The arguments of builds: `NAME=VALUE`, blanks between them.
fn build_args(words: &str, faults: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for word in words.split_whitespace() {
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match word.split_once('=').filter(|(name, _)| is_name(name)) {
            // An image tells its arguments to everybody who has it.
            Some((name, value)) if holds_credentials(value) => faults.push(format!(
                "RUNBOOKD_BUILD_ARGS: the URL of {name} holds credentials, and would stay in the image: use a mirror that needs none"
            )),
            Some((name, value)) => {
                found.insert(name.to_owned(), value.to_owned());
            }
            None => faults.push(
                "RUNBOOKD_BUILD_ARGS: write NAME=VALUE, with blanks between several".to_owned(),
            ),
        }
    }
    found
}

fn holds_credentials(value: &str) -> bool {
    Url::parse(value).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}
