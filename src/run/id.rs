//! What a run is called: collection, task, and an id that is unique inside them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Longest name of a collection or a task, in bytes. It becomes a folder, and a file name may have
/// 255 bytes; the rest is left for suffixes.
const MAX_SLUG_BYTES: usize = 128;

/// A name that cannot be used as a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a usable name: use letters, digits, `-`, `_`, `.` and spaces inside, 1 to {MAX_SLUG_BYTES} bytes, not starting with `.`"
)]
pub struct InvalidName {
    /// The name as it was given.
    pub name: String,
}

/// The name of a collection or a task. Always a single, harmless path segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(String);

impl Slug {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, too long, starts with a dot, or holds anything but
    /// alphanumeric characters, `-`, `_`, `.` and inner spaces.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
        let whole = !name.is_empty()
            && name.len() <= MAX_SLUG_BYTES
            && name.trim() == name
            && !name.starts_with('.')
            && name.chars().all(legal);
        if whole { Ok(Self(name.to_owned())) } else { Err(InvalidName { name: name.to_owned() }) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a run: 8 hexadecimal digits, the form that Jetty's clients expect of a trajectory id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// Takes the id from a random UUID. Two runs of one task can meet (32 bits), so the store
    /// refuses a second folder of the same name and the caller draws again.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.simple().to_string()[..8].to_owned())
    }

    /// Takes an id as somebody else gave it. A record that was made elsewhere keeps the id it has
    /// there, as long as it can be a folder.
    ///
    /// # Errors
    /// [`InvalidName`] when it breaks the rules of [`Slug`].
    pub fn new(id: &str) -> Result<Self, InvalidName> {
        Slug::new(id).map(|Slug(id)| Self(id))
    }

    /// Checks an id that somebody gives; `None` when it is not 8 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 8 && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a run belongs and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunName {
    /// The tenant's folder.
    pub collection: Slug,
    /// The task inside the collection.
    pub task: Slug,
    /// The run inside the task.
    pub id: RunId,
}

impl RunName {
    /// The name as one word, as Jetty's clients know it. Two names can have the same, because the
    /// dash between collection and task may also be part of them.
    #[must_use]
    pub fn workflow_id(&self) -> String {
        format!("{}-{}--{}", self.collection, self.task, self.id)
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.collection, self.task, self.id)
    }
}

/// How a person names a run that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunRef {
    /// By its id alone, wherever it is.
    Id(RunId),
    /// In full.
    Name(RunName),
}

/// What does not name a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` does not name a run: write its id, 8 digits of 0-9 and a-f, or collection/task/id"
)]
pub struct InvalidRef {
    /// What was given.
    pub text: String,
}

impl FromStr for RunRef {
    type Err = InvalidRef;

    fn from_str(text: &str) -> Result<Self, InvalidRef> {
        let name = || {
            let [collection, task, id] = text.split('/').collect::<Vec<&str>>().try_into().ok()?;
            let (collection, task) = (Slug::new(collection).ok()?, Slug::new(task).ok()?);
            Some(Self::Name(RunName { collection, task, id: RunId::parse(id)? }))
        };
        let named = RunId::parse(text).map(Self::Id).or_else(name);
        named.ok_or_else(|| InvalidRef { text: text.to_owned() })
    }
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", " a", "a ", "a\nb", "über/x"]
        {
            assert!(Slug::new(name).is_err(), "{name:?}");
        }
        for name in ["hello", "my task", "v1.2", "über", "A_b-c"] {
            assert!(Slug::new(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn an_id_has_eight_hexadecimal_digits() {
        let id = RunId::from_uuid(Uuid::from_u128(0xbb2b_b71e_0000_0000_0000_0000_0000_0000));
        assert_eq!(id.as_str(), "bb2bb71e");
    }

    #[test]
    fn an_id_from_elsewhere_is_kept_as_long_as_it_can_be_a_folder() {
        assert_eq!(RunId::new("session-7-turn_0").unwrap().as_str(), "session-7-turn_0");
        assert!(RunId::new("../up").is_err());
        let slug = |name: &str| Slug::new(name).unwrap();
        let name = RunName {
            collection: slug("acme"),
            task: slug("a-b"),
            id: RunId::from_uuid(Uuid::from_u128(0xbb2b_b71e << 96)),
        };
        assert_eq!(name.workflow_id(), "acme-a-b--bb2bb71e");
        assert_eq!(name.to_string(), "acme/a-b/bb2bb71e");
    }

    #[test]
    fn a_run_is_named_by_its_id_or_in_full() {
        let shown = |text: &str| text.parse::<RunRef>().map(|named| named.to_string());
        for text in ["bb2bb71e", "local/my task/bb2bb71e"] {
            assert_eq!(shown(text).as_deref(), Ok(text));
        }
        for text in
            ["", "bb2bb71", "BB2BB71E", "../../etc", "a/b", "a/../bb2bb71e", "a/b/c/bb2bb71e"]
        {
            assert!(shown(text).is_err(), "{text:?}");
        }
    }
}
