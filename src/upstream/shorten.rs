//! A request's text as it is recorded: without files, without what the collection hides, not longer
//! than a record may be.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use sha2::{Digest as _, Sha256};

/// What stands in place of a value that the collection hides.
pub const HIDDEN: &str = "[redacted]";

/// Longest base64 that is kept, in bytes: an icon, not a picture.
const MAX_BASE64_BYTES: usize = 1024;

/// What is kept of all texts of one request together, in bytes. A context of a million tokens has
/// about four million.
const MAX_KEPT_BYTES: usize = 4 << 20;

/// What a value costs beside its text, in bytes, so that many small ones have an end too.
const VALUE_BYTES: usize = 32;

/// A part of a request for the record. Long base64 is told by its length and digest, the values of
/// hidden keys are left out, and what is beyond the limit is counted.
#[must_use]
pub fn shorten<'r>(
    parts: impl IntoIterator<Item = (&'r str, &'r RawValue)>,
    hidden: &[String],
) -> Map<String, Value> {
    let room = Cell::new(MAX_KEPT_BYTES);
    let kept = Kept { hidden, room: &room };
    let parts = parts.into_iter().map(|(key, part)| {
        if hidden.iter().any(|hidden| hidden == key) {
            return (key.to_owned(), HIDDEN.into());
        }
        let mut reader = serde_json::Deserializer::from_str(part.get());
        // It was read as JSON before; only one that is nested deeper than is read fails here.
        let value = kept.deserialize(&mut reader);
        (key.to_owned(), value.unwrap_or_else(|_| "[nested too deeply to be kept]".into()))
    });
    parts.collect()
}

/// Builds the values that are kept.
#[derive(Clone, Copy)]
struct Kept<'a> {
    hidden: &'a [String],
    room: &'a Cell<usize>,
}

impl Kept<'_> {
    fn spend(self, bytes: usize) {
        self.room.set(self.room.get().saturating_sub(bytes));
    }

    fn text(self, text: &str) -> Value {
        let text = without_base64(text);
        let n_kept = text.floor_char_boundary(self.room.get());
        self.spend(n_kept + VALUE_BYTES);
        if n_kept == text.len() {
            return text.into();
        }
        format!("{}[{} bytes more are not kept]", &text[..n_kept], text.len() - n_kept).into()
    }

    fn small(self, value: Value) -> Value {
        self.spend(VALUE_BYTES);
        value
    }
}

impl<'de> DeserializeSeed<'de> for Kept<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Kept<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(self.small(Value::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(self.small(flag.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(self.small(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(self.small(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(self.small(Number::from_f64(number).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(self.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while self.room.get() > 0 {
            let Some(value) = seq.next_element_seed(self)? else { return Ok(values.into()) };
            values.push(value);
        }
        let mut n_left_out = 0_u64;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            n_left_out += 1;
        }
        if n_left_out > 0 {
            values.push(format!("[{n_left_out} more are not kept]").into());
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.room.get() == 0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.spend(key.len() + VALUE_BYTES);
            let value = if self.hidden.contains(&key) {
                map.next_value::<IgnoredAny>()?;
                HIDDEN.into()
            } else {
                map.next_value_seed(self)?
            };
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

/// The text with each long run of base64 told by its length and digest.
fn without_base64(text: &str) -> String {
    let mut kept = String::new();
    let mut done = 0;
    for run in base64_runs(text.as_bytes()) {
        let digest: String =
            Sha256::digest(&text[run.clone()]).iter().map(|byte| format!("{byte:02x}")).collect();
        kept.push_str(&text[done..run.start]);
        kept.push_str(&format!("[{} bytes of base64, sha256 {digest}]", run.len()));
        done = run.end;
    }
    kept.push_str(&text[done..]);
    kept
}

/// Where base64 stands that is too long to be kept. No natural text has so many such letters
/// without a blank.
fn base64_runs(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let is_base64 =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let rest = &text[at..];
            let length = rest.iter().position(|&byte| !is_base64(byte)).unwrap_or(rest.len());
            let run = at..at + length;
            at += length + 1;
            if length > MAX_BASE64_BYTES {
                return Some(run);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::upstream::RawBody;

    fn shortened(body: &Value, hidden: &[&str]) -> Value {
        let text = body.to_string();
        let hidden: Vec<String> = hidden.iter().map(|key| (*key).to_owned()).collect();
        Value::Object(shorten(RawBody::read(text.as_bytes()).unwrap().parts(), &hidden))
    }

    #[test]
    fn pictures_are_told_by_length_and_digest_and_the_text_around_them_stays() {
        let picture = "iVBORw0KGgo+/".repeat(100);
        let digest: String =
            Sha256::digest(&picture).iter().map(|byte| format!("{byte:02x}")).collect();
        let told = format!("[1300 bytes of base64, sha256 {digest}]");
        let body = |picture: &str| {
            json!({"messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": format!("see ![x](data:image/png;base64,{picture}) and {picture}.")},
                    {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{picture}")}},
                    {"type": "input_audio", "input_audio": {"data": picture, "format": "wav"}},
                ]},
                {"role": "user", "content": "a short one: aGVsbG8="},
            ], "n": [1, -1, 1.5, null, true]})
        };
        assert_eq!(shortened(&body(&picture), &[]), body(&told));
        assert_eq!(shortened(&body("aGVsbG8="), &[]), body("aGVsbG8="));
    }

    #[test]
    fn hidden_keys_lose_their_values_at_any_depth() {
        let body =
            json!({"user": "u", "metadata": {"patient": {"name": "x"}, "b": 1}, "messages": []});
        assert_eq!(
            shortened(&body, &["user", "patient"]),
            json!({"user": HIDDEN, "metadata": {"patient": HIDDEN, "b": 1}, "messages": []})
        );
    }

    #[test]
    fn a_record_has_a_limit_however_the_request_is_built() {
        let text = "word ".repeat(MAX_KEPT_BYTES / 4);
        let told = shortened(&json!({"messages": [text, "after", "it"]}), &[]);
        let first = told["messages"][0].as_str().unwrap();
        assert!(first.ends_with("bytes more are not kept]"), "{}", &first[first.len() - 50..]);
        assert_eq!(told["messages"][1], "[2 more are not kept]");
        let many = json!({"messages": vec![0; 1_000_000], "after": {"a": 1}});
        let told = shortened(&many, &[]).to_string();
        assert!(told.len() < MAX_KEPT_BYTES && told.contains("more are not kept]"));
    }
}
