//! The names that a member of an archive may have.

/// Longest path of a member, in bytes. Linux takes 4096 for the whole path.
const MAX_PATH_BYTES: usize = 1024;

/// Longest segment of a path, in bytes: what every common file system takes.
const MAX_SEGMENT_BYTES: usize = 255;

/// Folders inside folders. The sandbox's collector goes no deeper either.
const MAX_DEPTH: usize = 64;

/// What is wrong with a member's name, as the end of a sentence; `None` when it stays inside and is
/// harmless.
pub(super) fn fault(name: &str) -> Option<&'static str> {
    let path = name.strip_suffix('/').unwrap_or(name);
    if path.is_empty() {
        Some("has no name")
    } else if path.starts_with('/') {
        Some("has an absolute path")
    } else if path.contains('\\') {
        Some("has a backslash in its name")
    } else if path.chars().any(char::is_control) {
        Some("has a control character in its name")
    } else if has_drive(path) {
        Some("begins with a drive letter")
    } else if path.split('/').any(|segment| segment == "..") {
        Some("leads outside, with `..`")
    } else if path.split('/').any(|segment| segment.is_empty() || segment == ".") {
        Some("has an empty segment or `.` in its path")
    } else if path.len() > MAX_PATH_BYTES
        || path.split('/').any(|segment| segment.len() > MAX_SEGMENT_BYTES)
    {
        Some("has a name that is too long")
    } else if path.split('/').count() > MAX_DEPTH {
        Some("lies in too many folders")
    } else {
        None
    }
}

fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_lead_outside_or_deceive_are_refused() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(65) + "b";
        for name in [
            "",
            "/",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "..",
            "a\\b",
            "..\\x",
            "C:x",
            "c:/x",
            "a\0b",
            "a\nb",
            "a//b",
            "./a",
            "a/./b",
            "\u{7f}",
            "\u{85}",
            &long,
            &deep,
        ] {
            assert!(fault(name).is_some(), "{name:?}");
        }
        for name in ["a", "a/", "a/b.txt", "ü/ß.md", "a b", "..a", "a..", "1:x", ":x", "%2e%2e/a"]
        {
            assert_eq!(fault(name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_without_a_fault_stays_inside(name in r"[a./\\: \x00é]{0,12}") {
            if fault(&name).is_none() {
                let inside = Path::new(&name).components().all(|c| matches!(c, Component::Normal(_)));
                prop_assert!(inside);
            }
        }
    }
}
