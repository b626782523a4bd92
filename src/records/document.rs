//! Reading the document of a run, whole or without the part that can have megabytes.

use std::fmt;
use std::io::{self, BufReader, Read, Write};

use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::Serialize;
use serde_json::{Map, Value};

use crate::queue::Job;
use crate::run::error_chain;
use crate::store::{Document, RunFolder, StoreError};

/// The part of a document that lists leave out: it can have megabytes, and clients of lists do not
/// read it. `n_agent_steps` stays.
const TOO_LONG_FOR_LISTS: &str = "agent_steps";

/// How much of a document is read at once, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Documents of this size and more are read by the piece, in bytes: it takes several times as long,
/// and less memory.
const MAX_TEXT_BYTES: u64 = 8 << 20;

/// All of a document. One that cannot be read is as good as none, but somebody should know.
pub(super) fn whole(
    folder: &RunFolder,
    job: &Job,
) -> Result<Option<Map<String, Value>>, StoreError> {
    read(folder, job)
}

/// A document as lists have it. What they leave out is passed over and never in memory.
pub(super) fn listed(
    folder: &RunFolder,
    job: &Job,
) -> Result<Option<Map<String, Value>>, StoreError> {
    Ok(read::<Listed>(folder, job)?.map(|Listed(document)| document))
}

fn read<T: DeserializeOwned>(folder: &RunFolder, job: &Job) -> Result<Option<T>, StoreError> {
    let Some(file) = folder.open_if_there(Document::Trajectory)? else { return Ok(None) };
    match parse(file) {
        Ok(document) => Ok(Some(document)),
        Err(error) => {
            let error = error_chain(&error);
            tracing::warn!(run.id = %job.name, error, "a trajectory cannot be read");
            Ok(None)
        }
    }
}

fn parse<T: DeserializeOwned>(from: impl Read) -> serde_json::Result<T> {
    let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
    let mut start = Vec::new();
    let n_read = from.by_ref().take(MAX_TEXT_BYTES).read_to_end(&mut start);
    if n_read.map_err(serde_json::Error::io)? < MAX_TEXT_BYTES as usize {
        return serde_json::from_slice(&start);
    }
    serde_json::from_reader(start.as_slice().chain(from))
}

/// How long a value is as JSON, in bytes.
#[must_use]
pub fn written_bytes(value: &impl Serialize) -> u64 {
    let mut count = Count(0);
    // Counting cannot fail, and our values have text for keys.
    serde_json::to_writer(&mut count, value).map_or(u64::MAX, |()| count.0)
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A document without [`TOO_LONG_FOR_LISTS`].
struct Listed(Map<String, Value>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Short)
    }
}

struct Short;

impl<'de> Visitor<'de> for Short {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document of a run")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Listed, A::Error> {
        let mut document = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            if key == TOO_LONG_FOR_LISTS {
                from.next_value::<IgnoredAny>()?;
            } else {
                document.insert(key, from.next_value()?);
            }
        }
        Ok(Listed(document))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_pass_over_what_is_too_long_and_keep_the_order_of_the_rest() {
        let text =
            r#"{"b": 1, "agent_steps": [{"b": 2}], "n_agent_steps": 1, "a": {"agent_steps": []}}"#;
        let Listed(document) = parse(text.as_bytes()).unwrap();
        let told = Value::Object(document).to_string();
        assert_eq!(told, r#"{"b":1,"n_agent_steps":1,"a":{"agent_steps":[]}}"#);
        assert_eq!(written_bytes(&json!({"b": "ü"})), r#"{"b":"ü"}"#.len() as u64);
        assert!(parse::<Listed>(&b"[]"[..]).is_err());
    }
}
