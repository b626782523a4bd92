//! A form, read part by part within limits.

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request};

use super::Shared;
use super::drip::{Tap, drip};
use super::error::{ApiError, Problem};

/// Most parts of a form: the files of one request, and fields beside them.
const MAX_PARTS: usize = 256;

/// Longest name of an unknown field that is told back, in letters.
const MAX_TOLD_LETTERS: usize = 64;

/// The form of a request.
#[derive(Debug)]
pub(super) struct Form {
    multipart: Multipart,
    tap: Tap,
    n_parts: usize,
    max_bytes: usize,
    max_text_bytes: usize,
}

/// One part of a form.
#[derive(Debug)]
pub(super) struct Part<'f> {
    field: Field<'f>,
    tap: &'f Tap,
    max_bytes: usize,
    max_text_bytes: usize,
}

impl Form {
    pub(super) async fn of(request: Request, api: &Shared) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let (body, tap) = drip(body);
        let request = Request::from_parts(head, Body::from_stream(body));
        let multipart = Multipart::from_request(request, api)
            .await
            .map_err(|fault| ApiError::BadRequest(format!("the form cannot be read: {fault}")))?;
        Ok(Self {
            multipart,
            tap,
            n_parts: 0,
            max_bytes: api.runs.settings.max_upload_bytes,
            max_text_bytes: api.settings.max_json_bytes,
        })
    }

    /// The next part.
    pub(super) async fn next(&mut self) -> Result<Option<Part<'_>>, ApiError> {
        self.tap.head();
        let (tap, max_bytes) = (&self.tap, self.max_bytes);
        let field = self.multipart.next_field().await;
        let Some(field) = field.map_err(|fault| broken(&fault, tap, max_bytes))? else {
            return Ok(None);
        };
        self.n_parts += 1;
        if self.n_parts > MAX_PARTS {
            return Err(ApiError::BadRequest(format!(
                "the form has more than {MAX_PARTS} parts: pack files into one zip archive"
            )));
        }
        Ok(Some(Part { field, tap, max_bytes, max_text_bytes: self.max_text_bytes }))
    }
}

impl Part<'_> {
    /// The name of its field.
    pub(super) fn name(&self) -> String {
        self.field.name().unwrap_or_default().to_owned()
    }

    /// The name of its file, where it is one.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// What comes next of its content.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.tap.data();
        let (tap, max_bytes) = (self.tap, self.max_bytes);
        self.field.chunk().await.map_err(|fault| broken(&fault, tap, max_bytes))
    }

    /// Its content, where it is no file.
    pub(super) async fn text(mut self) -> Result<String, ApiError> {
        let name = self.name();
        let limit = self.max_text_bytes;
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit {
                return Err(ApiError::TooLarge(format!(
                    "the field `{}` is larger than {limit} bytes: send large inputs as files",
                    told(&name)
                )));
            }
        }
        String::from_utf8(bytes).map_err(|_| {
            let msg = "it must be UTF-8 text";
            ApiError::Invalid(vec![Problem::of_field(&told(&name), "value_error", msg)])
        })
    }
}

/// A name that a client made up, short enough to be told back.
pub(super) fn told(name: &str) -> String {
    match name.char_indices().nth(MAX_TOLD_LETTERS) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

fn broken(fault: &MultipartError, tap: &Tap, limit: usize) -> ApiError {
    if let Some(fault) = tap.fault() {
        return fault.into();
    }
    // axum tells the limit from a broken form by its status alone.
    if fault.status().as_u16() == 413 {
        ApiError::TooLarge(format!("the request is larger than {limit} bytes"))
    } else {
        ApiError::BadRequest(format!("the form cannot be read: {}", fault.body_text()))
    }
}
