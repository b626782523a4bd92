//! Debian packages on top of an image: an image of their own.

use std::collections::BTreeMap;

use crate::run::{ContextFile, ImageRecipe};

use super::definition::DOCKERFILE;
use super::recipe::{EXTRA_CA, tagged};

/// What images with packages are called.
pub const PACKAGES_TITLE: &str = "packages";

/// Installs the packages. The lists of packages do not stay, nor does the operator's authority.
const INSTALL: &str = r#"ARG BASE_IMAGE
FROM ${BASE_IMAGE}
USER root
SHELL ["/bin/sh", "-euc"]
COPY extra-ca.pem /tmp/runbookd-extra-ca.pem
RUN command -v apt-get >/dev/null || { \
        echo 'the image has no apt-get: apt_packages need an image of Debian or Ubuntu' >&2; exit 1; }; \
    ca=/tmp/runbookd-ca.pem; conf=/etc/apt/apt.conf.d/90runbookd-packages; \
    if [ -s /tmp/runbookd-extra-ca.pem ]; then \
        cat /etc/ssl/certs/ca-certificates.crt /tmp/runbookd-extra-ca.pem >$ca 2>/dev/null || true; \
        echo "Acquire::https::CaInfo \"$ca\";" >$conf; fi; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends PACKAGES; \
    rm -rf $ca $conf /tmp/runbookd-extra-ca.pem /var/lib/apt/lists/*
"#;

/// Whether this is a Debian package, `name` or `name=version`. Nothing else may come near a shell.
#[must_use]
pub fn is_package(text: &str) -> bool {
    let (name, version) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
    let starts_well = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c);
    let in_version = |c: char| c.is_ascii_alphanumeric() || "+.:~-".contains(c);
    starts_well(name)
        && name.chars().all(in_name)
        && version.is_none_or(|version| starts_well(version) && version.chars().all(in_version))
}

/// The recipe for packages on top of an image. The image's id goes into the name: a tag can move.
pub(super) fn recipe(
    base: &str,
    base_id: &str,
    packages: &[String],
    extra_ca: &[u8],
) -> ImageRecipe {
    let mut packages = packages.to_vec();
    packages.sort();
    packages.dedup();
    let install = INSTALL.replace("PACKAGES", &packages.join(" "));
    let files = BTreeMap::from([
        (DOCKERFILE.to_owned(), ContextFile::plain(install)),
        (EXTRA_CA.to_owned(), ContextFile::plain(extra_ca)),
    ]);
    let recipe = ImageRecipe {
        title: PACKAGES_TITLE.to_owned(),
        tag: String::new(),
        base: base.to_owned(),
        files,
        build_args: BTreeMap::from([("BASE_IMAGE".to_owned(), base.to_owned())]),
    };
    tagged(recipe, base_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_a_plain_name_with_an_optional_version() {
        for good in ["jq", "g++", "libssl1.1", "ffmpeg=7:5.1.6-0+deb12u1", "0ad", "a=1~rc1"] {
            assert!(is_package(good), "{good}");
        }
        for bad in
            ["", "-y", "JQ", "a b", "a;b", "$(x)", "a=", "=1", "a=1;b", "a=-1", "a/b", "a\n", "é"]
        {
            assert!(!is_package(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_order_of_packages_does_not_make_another_image_and_the_base_does() {
        let tag = |id: &str, packages: &[&str]| {
            let packages: Vec<String> = packages.iter().map(|&p| p.to_owned()).collect();
            recipe("debian:12", id, &packages, b"").tag
        };
        assert_eq!(tag("id", &["jq", "ffmpeg"]), tag("id", &["ffmpeg", "jq", "jq"]));
        assert_ne!(tag("id", &["jq"]), tag("other", &["jq"]));
        assert_ne!(tag("id", &["jq"]), tag("id", &["jq", "ffmpeg"]));
        assert!(tag("id", &["jq"]).starts_with("runbookd-snapshot/packages:"));
    }
}
