//! A request's body as it came, and without what is ours.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The part of a body that is ours.
const OURS: &str = "jetty";

/// A body that is no JSON object.
#[derive(Debug, thiserror::Error)]
#[error("the body is not a JSON object")]
pub struct BadBody(#[source] serde_json::Error);

/// The parts of a body, each as it came.
#[derive(Debug)]
pub struct RawBody<'b>(Vec<(String, &'b RawValue)>);

impl<'b> RawBody<'b> {
    /// Takes a body apart, one level deep.
    ///
    /// # Errors
    /// [`BadBody`].
    pub fn read(body: &'b [u8]) -> Result<Self, BadBody> {
        serde_json::from_slice(body).map_err(BadBody)
    }

    /// What goes on: the very bytes, unless there is a part of ours among them; then the other parts,
    /// each in its own bytes.
    #[must_use]
    pub fn without_ours(&self, body: &Bytes) -> Bytes {
        if self.0.iter().all(|(key, _)| key != OURS) {
            return body.clone();
        }
        let mut rest = Vec::with_capacity(body.len());
        rest.push(b'{');
        for (key, value) in self.parts() {
            if rest.len() > 1 {
                rest.push(b',');
            }
            rest.extend_from_slice(serde_json::Value::from(key).to_string().as_bytes());
            rest.push(b':');
            rest.extend_from_slice(value.get().as_bytes());
        }
        rest.push(b'}');
        rest.into()
    }

    /// The parts that go on, in their order.
    pub fn parts(&self) -> impl Iterator<Item = (&str, &'b RawValue)> {
        self.0.iter().filter(|(key, _)| key != OURS).map(|(key, value)| (key.as_str(), *value))
    }
}

impl<'de> Deserialize<'de> for RawBody<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Parts)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = RawBody<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = map.next_entry::<String, &'de RawValue>()? {
            parts.push(part);
        }
        Ok(RawBody(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(body: &str) -> String {
        let body = Bytes::from(body.to_owned());
        let passed = RawBody::read(&body).unwrap().without_ours(&body);
        String::from_utf8(passed.to_vec()).unwrap()
    }

    #[test]
    fn a_body_without_our_part_passes_byte_for_byte() {
        let body = "{ \"model\" : \"m\",\n \"x\": 1.0e2, \"x\": [ ] , \"é\":\"\\u00e9\"}";
        assert_eq!(passed(body), body);
    }

    #[test]
    fn our_part_is_left_out_and_the_others_keep_their_bytes() {
        assert_eq!(
            passed(
                "{\"jetty\":{\"task\":\"t\"}, \"n\": 1.0e2, \"messages\": [ {\"jetty\": 1} ],\"jetty\":null}"
            ),
            "{\"n\":1.0e2,\"messages\":[ {\"jetty\": 1} ]}"
        );
        assert_eq!(passed("{\"j\\u0065tty\": {}}"), "{}");
        assert_eq!(passed("{\"a\\\"b\": 1, \"jetty\": {}}"), "{\"a\\\"b\":1}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "{\"a\":1} x", "{\"a\":}", "\u{feff}{}"] {
            assert!(RawBody::read(body.as_bytes()).is_err(), "{body:?}");
        }
    }
}
