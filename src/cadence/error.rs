//! What can be wrong with a cadence.

/// A cadence that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    /// It is no object.
    #[error(
        "the cadence must be an object, such as `{{\"type\": \"daily\", \"hour_utc\": 9, \"minute_utc\": 30}}`"
    )]
    NotObject,
    /// The rhythm is missing or unknown.
    #[error(
        "the cadence's `type` must be `manual`, `hourly`, `daily`, `weekdays` or `weekly`; it is {found}"
    )]
    UnknownType {
        /// What it is.
        found: String,
    },
    /// A key that the rhythm needs.
    #[error("a `{rhythm}` cadence needs `{key}`: {expected}")]
    Missing {
        /// The rhythm.
        rhythm: &'static str,
        /// The key.
        key: &'static str,
        /// What to write.
        expected: &'static str,
    },
    /// A value out of its range.
    #[error("the cadence's `{key}` must be {expected}; it is {found}")]
    Unfit {
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A key that means nothing in this rhythm.
    #[error("a `{rhythm}` cadence takes no `{key}`: leave it out")]
    NotFor {
        /// The rhythm.
        rhythm: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A key that means nothing at all.
    #[error(
        "the cadence's key `{key}` is not known: it has `type`, `hour_utc`, `minute_utc`, `day_of_week` and `time_zone`"
    )]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A time zone that the database does not have.
    #[error(
        "the time zone `{name}` is not known: write a name of the IANA database, such as `Europe/Berlin`, or leave it out for UTC"
    )]
    UnknownZone {
        /// The name.
        name: String,
    },
}
