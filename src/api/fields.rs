//! Reads the fields of a JSON object one by one and collects everything that is wrong with them.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Problem};
use super::extract::JsonBody;

/// The body's object, and the faults that were found so far.
#[derive(Debug)]
pub(super) struct Fields {
    object: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Fields {
    /// Takes the body apart.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] when it is no object.
    pub(super) fn of(JsonBody(body): JsonBody<Value>) -> Result<Self, ApiError> {
        let found = kind_of(&body);
        if let Value::Object(object) = body {
            return Ok(Self { object, problems: Vec::new() });
        }
        Err(ApiError::Invalid(vec![Problem {
            loc: vec![json!("body")],
            msg: format!("Input should be an object; it is {found}"),
            kind: "type_error",
        }]))
    }

    /// The field as it is; `None` where it is not there.
    pub(super) fn raw(&mut self, name: &str) -> Option<Value> {
        self.object.swap_remove(name)
    }

    /// The field, where `null` counts as not there.
    fn given(&mut self, name: &str) -> Option<Value> {
        self.raw(name).filter(|value| !value.is_null())
    }

    /// A text; `None` where it is missing or `null`.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.given(name)?;
        let text = value.as_str().map(str::to_owned);
        self.fits(name, "a text", &value, text)
    }

    /// `true` or `false`; `None` where it is missing or `null`.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.given(name)?;
        self.fits(name, "`true` or `false`", &value, value.as_bool())
    }

    /// An object; `None` where it is missing or `null`.
    pub(super) fn object(&mut self, name: &str) -> Option<Value> {
        let value = self.given(name)?;
        let object = value.is_object().then(|| value.clone());
        self.fits(name, "an object", &value, object)
    }

    /// Notes that a field must be there.
    pub(super) fn require<T>(&mut self, name: &str, value: &Option<T>) {
        let is_known = self.problems.iter().any(|known| known.loc.get(1) == Some(&json!(name)));
        if value.is_none() && !is_known {
            self.problems.push(Problem::of_field(name, "missing", "Field required"));
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] with everything that was wrong.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.problems)) }
    }

    /// The value as what it should be; what does not fit is noted.
    fn fits<T>(&mut self, name: &str, wanted: &str, found: &Value, fit: Option<T>) -> Option<T> {
        if fit.is_none() {
            let msg = format!("Input should be {wanted}; it is {}", kind_of(found));
            self.problems.push(Problem::of_field(name, "type_error", msg));
        }
        fit
    }
}

/// What a value is, without its content.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_at_once() {
        let body = json!({ "name": 1, "is_private": "yes", "description": null });
        let mut fields = Fields::of(JsonBody(body)).unwrap();
        let name = fields.text("name");
        fields.require("name", &name);
        let workflow = fields.object("workflow");
        fields.require("workflow", &workflow);
        assert_eq!((fields.flag("is_private"), fields.text("description")), (None, None));
        let Err(ApiError::Invalid(problems)) = fields.finish() else { panic!("no faults") };
        assert_eq!(
            problems,
            [
                Problem::of_field("name", "type_error", "Input should be a text; it is a number"),
                Problem::of_field("workflow", "missing", "Field required"),
                Problem::of_field(
                    "is_private",
                    "type_error",
                    "Input should be `true` or `false`; it is a text"
                ),
            ]
        );
    }
}
