//! Checks what was read while the parser still knows where it stands.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Reads a mapping as `W` and makes a `T` of it. An error of the second step is raised inside the
/// mapping, so that it gets the mapping's line and column; `#[serde(try_from)]` raises it behind,
/// where only the list around it is known. `expecting` says what to write instead of no mapping.
pub(super) fn checked<'de, W, T, D>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    W: Deserialize<'de>,
    T: TryFrom<W, Error: Display>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Checked::<W, T> { expecting, of: PhantomData })
}

struct Checked<W, T> {
    expecting: &'static str,
    of: PhantomData<(W, T)>,
}

impl<'de, W, T> Visitor<'de> for Checked<W, T>
where
    W: Deserialize<'de>,
    T: TryFrom<W, Error: Display>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let wire = W::deserialize(MapAccessDeserializer::new(map))?;
        T::try_from(wire).map_err(A::Error::custom)
    }
}
