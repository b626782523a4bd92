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
                self.image(&image);
                Base::Image(image)
            }
            (None, Some(snapshot)) => {
                if self.setting.snapshots.get(&snapshot).is_none() {
                    self.unknown_snapshot(&snapshot);
                }
                Base::Snapshot(snapshot)
            }
            (None, None) => Base::Default,
        }
    }

    /// Whether the operator lets runs start from this image.
    fn image(&mut self, image: &str) {
        let named = &self.setting.images.named;
        if !named.has(image) {
            let words = format!(
                "this server starts nothing from the image `{image}`: write a snapshot, or an image \
                 out of RUNBOOKD_IMAGES ({named})"
            );
            self.find_at("image", Finding::new(Code::ImageNotPermitted, words));
        }
    }

    /// Whether the operator lets packages be installed on this image.
    fn extends(&mut self, base: &Base) {
        let extended = &self.setting.images.extended;
        let Base::Image(image) = base else { return };
        if !extended.has(image) {
            let words = format!(
                "packages are not installed on the image `{image}`, which would run what is in it \
                 outside of a sandbox: use a snapshot, an image that has them, or one out of \
                 RUNBOOKD_PACKAGE_IMAGES ({extended})"
            );
            self.find_at("apt_packages", Finding::new(Code::ImageNotExtended, words));
        }
    }

    fn unknown_snapshot(&mut self, snapshot: &str) {
        let known: Vec<&str> =
            self.setting.snapshots.iter().map(|s: &Snapshot| s.name.as_str()).collect();
        let known = known.join(", ");
        let why = if snapshot == LOCAL {
            "the snapshot `local` is the computer of the runbook's author, which is not here"
                .to_owned()
        } else if let Some(nearest) = self.setting.snapshots.nearest(snapshot) {
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
    pub(super) fn packages(&mut self, base: &Base) -> Vec<String> {
        let named = self.request.overrides.apt_packages.as_ref();
        let packages = named.unwrap_or(&self.runbook.front_matter().apt_packages).clone();
        if !packages.is_empty() {
            self.extends(base);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::rehearsal::Rehearsal;
    use crate::plan::{Overrides, Planned};
    use crate::run::{ImageRules, ImageSet};

    /// Plans a runbook with this front matter.
    fn planned(front_matter: &str, overrides: Overrides) -> Planned {
        Rehearsal::of(front_matter, overrides).planned()
    }

    fn words(planned: &Planned) -> Vec<String> {
        planned.findings.iter().map(|f| format!("{}: {}", f.code, f.sentence())).collect()
    }

    #[test]
    fn the_request_wins_over_the_runbook_and_an_image_over_a_snapshot() {
        let image = |image: &str| Base::Image(image.to_owned());
        let snapshot = |snapshot: &str| Base::Snapshot(snapshot.to_owned());
        let none = Overrides::default;
        let asked_image = || Overrides { image: Some("b:2".to_owned()), ..none() };
        let asked_snapshot =
            || Overrides { snapshot: Some("prism-playwright".to_owned()), ..none() };
        let (i, s) = ("image: a:1", "snapshot: python312-uv");
        let both = format!("{i}\n{s}");
        for (written, overrides, expected, n_findings) in [
            ("", none(), Base::Default, 0),
            (i, none(), image("a:1"), 0),
            (s, none(), snapshot("python312-uv"), 0),
            (&both, none(), image("a:1"), 1),
            (s, asked_image(), image("b:2"), 1),
            (i, asked_image(), image("b:2"), 0),
            (i, asked_snapshot(), snapshot("prism-playwright"), 0),
            (&both, asked_snapshot(), snapshot("prism-playwright"), 0),
        ] {
            let planned = planned(written, overrides);
            let found = words(&planned);
            assert_eq!(
                (planned.plan.unwrap().base, found.len()),
                (expected, n_findings),
                "{found:?}"
            );
        }
    }

    /// jetty-api 17: a snapshot that is not here is refused, and the mending is said.
    #[test]
    fn f17_an_unknown_snapshot_is_refused_with_those_that_are_known() {
        let refused = |name: &str| {
            let planned = planned(&format!("snapshot: {name}"), Overrides::default());
            assert!(planned.plan.is_none());
            words(&planned).remove(0)
        };
        let mend = "write one of prism-playwright, python312-uv, add it to the folder \
            RUNBOOKD_SNAPSHOTS, or give an image that has its tools, with `image:` or `--image` (line 2).";
        assert_eq!(
            refused("local"),
            format!(
                "unknown-snapshot: The snapshot `local` is the computer of the runbook's author, \
                 which is not here: {mend}"
            )
        );
        assert_eq!(
            refused("python312-uv-office"),
            format!("unknown-snapshot: There is no snapshot `python312-uv-office`: {mend}")
        );
        assert_eq!(
            refused("prism-playwrite"),
            format!(
                "unknown-snapshot: There is no snapshot `prism-playwrite`; the nearest is \
                 `prism-playwright`: {mend}"
            )
        );
    }

    #[test]
    fn the_operator_says_which_images_runs_may_name_and_extend() {
        let Ok(named) = "ghcr.io/acme/*, debian:bookworm".parse::<ImageSet>();
        let rules = ImageRules { named, extended: ImageSet::default() };
        let found = |front_matter: &str| {
            let planned = Rehearsal {
                images: rules.clone(),
                ..Rehearsal::of(front_matter, Overrides::default())
            }
            .planned();
            planned.findings.iter().map(|f| f.code.to_string()).collect::<Vec<String>>()
        };
        assert_eq!(found("image: ghcr.io/acme/box:1"), Vec::<String>::new());
        assert_eq!(found("image: evil/box"), ["image-not-permitted"]);
        assert_eq!(found("image: debian:bookworm\napt_packages: [jq]"), ["image-not-extended"]);
        assert_eq!(found("snapshot: python312-uv\napt_packages: [jq]"), Vec::<String>::new());
        assert_eq!(found("apt_packages: [jq]"), Vec::<String>::new());
        let asked = Overrides { image: Some("evil/box".to_owned()), ..Overrides::default() };
        let planned =
            Rehearsal { images: rules.clone(), ..Rehearsal::of("apt_packages: [jq]", asked) }
                .planned();
        let expected = [
            "image-not-permitted: This server starts nothing from the image `evil/box`: write a \
             snapshot, or an image out of RUNBOOKD_IMAGES (ghcr.io/acme/*, debian:bookworm).",
            "image-not-extended: Packages are not installed on the image `evil/box`, which would run \
             what is in it outside of a sandbox: use a snapshot, an image that has them, or one out of \
             RUNBOOKD_PACKAGE_IMAGES (none) (line 2).",
        ];
        assert_eq!(words(&planned), expected);
    }

    #[test]
    fn packages_are_checked_by_their_names_and_the_request_wins() {
        let packages = |packages: &[&str]| {
            Some(packages.iter().map(|&p| p.to_owned()).collect::<Vec<String>>())
        };
        let asked = Overrides { apt_packages: packages(&["jq"]), ..Overrides::default() };
        let plan = planned("apt_packages: [ffmpeg]", asked).plan.unwrap();
        assert_eq!(plan.apt_packages, ["jq"]);
        let wrong = planned("apt_packages: [ffmpeg, 'jq; reboot']", Overrides::default());
        assert_eq!(
            words(&wrong),
            [
                "bad-package: `jq; reboot` is not a Debian package: write a name such as `ffmpeg`, or \
              `ffmpeg=7:5.1-1` (line 2)."
            ]
        );
        let many = vec!["jq"; MAX_PACKAGES + 1];
        let many = Overrides { apt_packages: packages(&many), ..Overrides::default() };
        assert!(planned("", many).plan.is_none());
    }
}
