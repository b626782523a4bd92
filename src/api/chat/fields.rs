//! The fields of a request's object, each read with its type. A null and an
//! empty text count as not given.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::ChatError;
use crate::secret::Secret;

/// Fields that are taken one by one. What is left was not known.
pub(super) struct Fields {
    /// The object's name, with which its fields are named.
    within: Option<&'static str>,
    fields: Map<String, Value>,
}

impl Fields {
    /// The body itself.
    pub(super) fn of_body() -> Self {
        Self { within: None, fields: Map::new() }
    }

    /// An object of the body.
    pub(super) fn within(name: &'static str, fields: Map<String, Value>) -> Self {
        Self { within: Some(name), fields }
    }

    pub(super) fn put(&mut self, name: &str, value: Option<Value>) {
        self.fields.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// The value, whatever it is.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        // Clients send empty texts for what a person left open.
        let is_blank = |value: &Value| value.as_str().is_some_and(|text| text.trim().is_empty());
        self.fields.shift_remove(name).filter(|value| !value.is_null() && !is_blank(value))
    }

    /// The names of what nobody took.
    pub(super) fn rest(self) -> Vec<String> {
        self.fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, _)| name)
            .collect()
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ChatError> {
        self.typed(name, "a text", |value| match value {
            Value::String(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        })
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ChatError> {
        self.typed(name, "`true` or `false`", |value| value.as_bool())
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ChatError> {
        self.typed(name, "an object", |value| match value {
            Value::Object(fields) => Some(fields),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::String(_) => None,
        })
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ChatError> {
        let text = |value: &Value| value.as_str().map(str::trim).map(str::to_owned);
        let read = |value: Value| value.as_array()?.iter().map(text).collect::<Option<Vec<_>>>();
        Ok(self.typed(name, "a list of texts", read)?.unwrap_or_default())
    }

    /// A whole number from 1.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<Value>, ChatError> {
        let fits = |value: &Value| value.as_u64().is_some_and(|count| count > 0);
        self.typed(name, "a whole number from 1", |value| Some(value).filter(fits))
    }

    /// A number above 0.
    pub(super) fn share(&mut self, name: &str) -> Result<Option<Value>, ChatError> {
        let fits = |value: &Value| value.as_f64().is_some_and(|share| share > 0.0);
        self.typed(name, "a number above 0", |value| Some(value).filter(fits))
    }

    /// A size of memory.
    pub(super) fn size(&mut self, name: &str) -> Result<Option<Value>, ChatError> {
        let fits = |value: &Value| match value {
            Value::String(text) => text.trim().starts_with(|c: char| c.is_ascii_digit()),
            Value::Number(number) => number.as_u64().is_some_and(|bytes| bytes > 0),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        let expected = "a size such as \"4G\", or a whole number of bytes";
        self.typed(name, expected, |value| Some(value).filter(fits))
    }

    /// A time in seconds.
    pub(super) fn duration(&mut self, name: &str) -> Result<Option<Duration>, ChatError> {
        let read = |value: Value| Duration::try_from_secs_f64(value.as_f64()?).ok();
        self.typed(name, "a number of seconds", read)
    }

    /// Names and texts that nobody is shown.
    pub(super) fn secrets(&mut self, name: &str) -> Result<BTreeMap<String, Secret>, ChatError> {
        let secret = |(name, value): (String, Value)| match value {
            Value::String(text) => Some((name, Secret::new(text))),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => None,
        };
        let read = |value: Value| match value {
            Value::Object(fields) => {
                fields.into_iter().map(secret).collect::<Option<BTreeMap<_, _>>>()
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::String(_) => None,
        };
        let expected = "an object of names and texts, such as {\"NAME\": \"value\"}";
        Ok(self.typed(name, expected, read)?.unwrap_or_default())
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, ChatError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| {
            let field = self.within.map_or_else(|| name.to_owned(), |at| format!("{at}.{name}"));
            ChatError::field(field, format!("it must be {expected}"))
        })
    }
}
