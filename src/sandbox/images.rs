//! What is known of images: what is in one, how a build goes, what was removed.

use std::collections::VecDeque;
use std::fs::File;

use serde::{Deserialize, Serialize};

/// Is told each line of a build.
pub type OnBuild<'a> = &'a mut (dyn FnMut(&str) + Send);

/// How many of a build's last lines an error holds.
const TAIL_LINES: usize = 12;

/// The longest line that an error holds, in characters. A failed command is repeated whole.
const TAIL_CHARS: usize = 300;

/// The C library of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LibC {
    /// Debian, Ubuntu, Fedora and most others.
    Glibc,
    /// Alpine.
    Musl,
}

/// What an image holds of what an agent needs; also the form in which a look is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The image's id; empty where the system is the host's.
    pub id: String,
    /// Its processor as Rust names it, such as `x86_64`.
    pub arch: String,
    /// Its C library; `None` where no loader of one is there.
    pub libc: Option<LibC>,
    /// Whether there is `/bin/sh`.
    pub has_sh: bool,
    /// Whether there is a `bash` or a `zsh`.
    pub has_bash: bool,
    /// Whether there is a `ps`.
    pub has_ps: bool,
    /// Whether there is a `setpriv` that can change the user.
    pub setpriv: SetPriv,
}

/// The program that gives privileges away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetPriv {
    /// It is there, or not needed.
    Fit,
    /// It is Busybox's, which cannot change the user.
    Busybox,
    /// There is none.
    Missing,
}

impl ImageFacts {
    /// What the launcher needs and the image lacks, a fragment each with what to install.
    #[must_use]
    pub fn lacks_for_start(&self) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if !self.has_sh {
            lacks.push("it has no `/bin/sh`: use an image of a Linux distribution");
        }
        match self.setpriv {
            SetPriv::Fit => {}
            SetPriv::Busybox => lacks.push(
                "its `setpriv` is Busybox's, which cannot change the user: install the package `setpriv` (Alpine) or `util-linux`",
            ),
            SetPriv::Missing => lacks.push(
                "it has no `setpriv`: install the package `util-linux` (Debian, Fedora) or `setpriv` (Alpine)",
            ),
        }
        lacks
    }

    /// What the pinned agent CLI needs beside that, a fragment each.
    #[must_use]
    pub fn lacks_for_agent(&self) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if self.libc.is_none() {
            lacks.push("it has neither glibc nor musl: use an image of a Linux distribution");
        }
        if !self.has_bash {
            lacks.push("it has no `bash`, without which the agent runs no command: install the package `bash`");
        }
        lacks
    }
}

/// An image that was removed, or a name of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrunedImage {
    /// Its name.
    pub name: String,
    /// Its size in bytes. What it shares with others is not freed.
    pub bytes: u64,
}

/// Keeps images from being removed between the moment they are found and the moment a sandbox uses
/// them.
#[derive(Debug)]
pub struct ImagesHold {
    _file: Option<File>,
}

impl ImagesHold {
    pub(super) fn new(file: Option<File>) -> Self {
        Self { _file: file }
    }
}

/// The last lines of a build.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    pub(super) fn push(&mut self, line: &str) {
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.chars().take(TAIL_CHARS).collect());
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_lacks_is_said_with_what_to_install() {
        let fit = ImageFacts {
            id: "sha256:0".to_owned(),
            arch: "x86_64".to_owned(),
            libc: Some(LibC::Glibc),
            has_sh: true,
            has_bash: true,
            has_ps: true,
            setpriv: SetPriv::Fit,
        };
        assert!(fit.lacks_for_start().is_empty() && fit.lacks_for_agent().is_empty());
        let bare = ImageFacts {
            libc: None,
            has_sh: false,
            has_bash: false,
            setpriv: SetPriv::Missing,
            ..fit.clone()
        };
        assert_eq!((bare.lacks_for_start().len(), bare.lacks_for_agent().len()), (2, 2));
        let alpine = ImageFacts { setpriv: SetPriv::Busybox, ..fit };
        assert!(alpine.lacks_for_start()[0].contains("install the package `setpriv` (Alpine)"));
    }

    #[test]
    fn an_error_holds_the_last_lines_and_none_of_them_whole_if_long() {
        let mut tail = Tail::default();
        (0..20).for_each(|n| tail.push(&format!("{n} {}", "é".repeat(1000))));
        let text = tail.text();
        assert_eq!(text.lines().count(), TAIL_LINES);
        assert!(text.starts_with("8 é") && text.lines().all(|l| l.chars().count() == TAIL_CHARS));
    }
}
