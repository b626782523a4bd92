//! Which images runs may start from, as the operator says.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A set of images: names, and beginnings of names that end in `*`. A name counts as it is written:
/// `debian` and `docker.io/library/debian` are two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSet(Vec<String>);

/// What runbooks and requests may do with images that they name themselves. Snapshots, and the image
/// of a run that names none, are the operator's own and always allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRules {
    /// Images that a run may start from.
    pub named: ImageSet,
    /// Images that packages may be installed on. The build carries out what is in the image as root,
    /// outside of any sandbox and with a network.
    pub extended: ImageSet,
}

impl Default for ImageRules {
    fn default() -> Self {
        Self { named: ImageSet::all(), extended: ImageSet::default() }
    }
}

impl ImageRules {
    /// Rules that allow everything.
    #[must_use]
    pub fn all() -> Self {
        Self { named: ImageSet::all(), extended: ImageSet::all() }
    }
}

impl ImageSet {
    /// Every image.
    #[must_use]
    pub fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// Adds an image.
    #[must_use]
    pub fn with(mut self, image: Option<&str>) -> Self {
        self.0.extend(image.map(str::to_owned));
        self
    }

    /// Whether an image is among them.
    #[must_use]
    pub fn has(&self, image: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => image.starts_with(beginning),
            None => image == pattern,
        })
    }
}

impl fmt::Display for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}

impl FromStr for ImageSet {
    type Err = Infallible;

    /// Names with commas between them.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Self(names.map(str::to_owned).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_in_a_set_by_its_name_or_its_beginning() {
        let Ok(set) = "debian:bookworm, ghcr.io/acme/*".parse::<ImageSet>();
        let has = |image| set.has(image);
        assert!(has("debian:bookworm") && has("ghcr.io/acme/box:1"));
        assert!(
            !has("debian:bookworm-slim") && !has("ghcr.io/acme") && !has("evil/ghcr.io/acme/x")
        );
        assert!(ImageSet::all().has("any") && !ImageSet::default().has("any"));
        assert!(set.with(Some("mine")).has("mine"));
        assert_eq!(ImageSet::default().to_string(), "none");
    }
}
