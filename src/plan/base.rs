//! What the sandbox starts from: an image, a snapshot, and packages on top.

use super::planner::Planner;
use crate::run::{Base, Code, Finding};
use crate::snapshot::{Snapshot, is_package};

/// The most packages of one run. More is an image of its own.
const MAX_PACKAGES: usize = 200;

/// What Jetty's runbooks write that were made on their author's computer.
const LOCAL: &str = "local";

impl Planner<'_> {
    /// The request wins over the runbook, and in each the image over the snapshot.
    pub(super) fn base(&mut self) -> Base {
        let (overrides, front_matter) = (&self.request.overrides, self.runbook.front_matter());
        let asked = overrides.snapshot.as_ref();
        let written = front_matter.snapshot.as_ref();
        let (image, snapshot) = match (&overrides.image, asked, &front_matter.image) {
            (Some(image), asked, _) => (Some(image), asked.or(written)),
            (None, Some(asked), _) => (None, Some(asked)),
            (None, None, image) => (image.as_ref(), written),
        };
        match (image.cloned(), snapshot.cloned()) {
            (Some(image), snapshot) => {
                if let Some(snapshot) = snapshot {
                    let words =
                        format!("the image `{image}` is used instead of the snapshot `{snapshot}`");
                    self.find_at("snapshot", Finding::new(Code::ImageInsteadOfSnapshot, words));
                }
                Base::Image(image)
            }
            (None, Some(snapshot)) => {
                if self.snapshots.get(&snapshot).is_none() {
                    self.unknown_snapshot(&snapshot);
                }
                Base::Snapshot(snapshot)
            }
            (None, None) => Base::Default,
        }
    }

    fn unknown_snapshot(&mut self, snapshot: &str) {
        let known: Vec<&str> = self.snapshots.iter().map(|s: &Snapshot| s.name.as_str()).collect();
        let known = known.join(", ");
        let why = if snapshot == LOCAL {
            "the snapshot `local` is the computer of the runbook's author, which is not here"
                .to_owned()
        } else if let Some(nearest) = self.snapshots.nearest(snapshot) {
            format!("there is no snapshot `{snapshot}`; the nearest is `{nearest}`")
        } else {
            format!("there is no snapshot `{snapshot}`")
        };
        let words = format!(
            "{why}: write one of {known}, add it to the folder RUNBOOKD_SNAPSHOTS, or give an image \
             that has its tools, with `image:` or `--image`"
        );
        self.find_at("snapshot", Finding::new(Code::UnknownSnapshot, words));
    }

    /// Debian packages on top of it.
    pub(super) fn packages(&mut self) -> Vec<String> {
        let named = self.request.overrides.apt_packages.as_ref();
        let packages = named.unwrap_or(&self.runbook.front_matter().apt_packages).clone();
        for package in packages.iter().filter(|package| !is_package(package)) {
            let words = format!(
                "`{}` is not a Debian package: write a name such as `ffmpeg`, or `ffmpeg=7:5.1-1`",
                package.escape_default()
            );
            self.find_at("apt_packages", Finding::new(Code::BadPackage, words));
        }
        if packages.len() > MAX_PACKAGES {
            let words = format!(
                "{} packages are more than {MAX_PACKAGES}: make an image or a snapshot of them",
                packages.len()
            );
            self.find_at("apt_packages", Finding::new(Code::BadPackage, words));
        }
        packages
    }
}
