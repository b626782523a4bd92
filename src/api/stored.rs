//! Stored files by their path: one, and a list of them.

use std::io::{Seek as _, SeekFrom};
use std::ops::RangeInclusive;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::{ApiError, Problem, is_a_part};
use super::extract::{Query, Segments};
use super::runs::blocking;
use crate::store::{StoragePath, StoredFile, UPLOADS_FOLDER};
use crate::trajectory::content_type;

/// How much of a file is sent at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Most files in one list.
const MAX_LISTED: usize = 10_000;

/// The folder that stands in hosted storage keys where a run has a folder of its own here.
const HOSTED_FOLDER: &str = "0000";

/// What an agent wrote may be a page with a script. It must not run with this server's origin,
/// whatever a browser makes of it.
const SANDBOXED: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// What may stand in `filename*` as it is (RFC 5987).
const NOT_IN_FILENAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'^')
    .remove(b'`')
    .remove(b'|');

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(file)).routes(routes!(list))
}

/// Sends a stored file. The path is one of those that trajectories and uploads name, and begins
/// with the collection. `Range` is understood.
#[utoipa::path(get, path = "/api/v1/file/{*path}", tag = "files",
    params(("path" = String, Path, description = "The file's storage path.")),
    responses((status = 200, description = "The file.", content_type = "*/*"),
        (status = 206, description = "A part of the file.", content_type = "*/*"),
        (status = 404, description = "There is no such file.")))]
async fn file(
    State(api): State<Shared>,
    caller: Caller,
    Segments(path): Segments<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = StoragePath::parse(&path).map_err(|e| ApiError::NotFound(e.to_string()))?;
    caller.may(path.collection().as_str())?;
    let file = open(&api, &path).await?;
    send(file, path.file_name(), &headers).await
}

/// Opens a stored file.
pub(super) async fn open(api: &Shared, path: &StoragePath) -> Result<StoredFile, ApiError> {
    let (store, wanted) = (api.store.clone(), path.clone());
    let found = blocking("could not open a stored file", move || store.open_file(&wanted)).await?;
    found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "There is no file '{path}': `GET /api/v1/list-files?prefix=…` lists what there is, and \
             a trajectory's outputs name the paths of its files"
        ))
    })
}

/// Sends an open file under a name.
pub(super) async fn send(
    stored: StoredFile,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let StoredFile { mut file, n_bytes } = stored;
    // What cannot be understood or met may be ignored: then the whole file is the answer.
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| wanted(range, n_bytes));
    let start = range.as_ref().map_or(0, |range| *range.start());
    let length = range.as_ref().map_or(n_bytes, |range| range.end() - range.start() + 1);
    let file = blocking("could not read a stored file", move || {
        file.seek(SeekFrom::Start(start)).map(|_| file)
    })
    .await?;
    let bytes = tokio::fs::File::from_std(file).take(length);
    let body = Body::from_stream(ReaderStream::with_capacity(bytes, CHUNK_BYTES));
    let mut response = Response::new(body);
    if range.is_some() {
        is_a_part(&mut response);
        let end = start + length - 1;
        put(&mut response, CONTENT_RANGE, &format!("bytes {start}-{end}/{n_bytes}"));
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(extension(name))));
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOXED);
    put(&mut response, CONTENT_DISPOSITION, &disposition(name));
    Ok(response)
}

fn put(response: &mut Response, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// How a browser is to keep the file: under its name, whatever is in it.
pub(super) fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' }
        })
        .collect();
    let whole = utf8_percent_encode(name, NOT_IN_FILENAME);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}")
}

/// The one range that a header asks for, where it can be met.
fn wanted(header: &str, n_bytes: u64) -> Option<RangeInclusive<u64>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (first.trim(), last.trim()) {
        ("", last) => (n_bytes.checked_sub(number(last)?.min(n_bytes))?, n_bytes.checked_sub(1)?),
        (first, "") => (number(first)?, n_bytes.checked_sub(1)?),
        (first, last) => (number(first)?, number(last)?.min(n_bytes.checked_sub(1)?)),
    };
    (start <= end && start < n_bytes).then_some(start..=end)
}

/// Which files.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Wish {
    /// How their paths begin: a collection, and what follows.
    prefix: String,
}

/// Lists stored files by the beginning of their paths.
#[utoipa::path(get, path = "/api/v1/list-files", tag = "files", params(Wish),
    responses((status = 200, description = "The files, and whether there are more.")))]
async fn list(
    State(api): State<Shared>,
    caller: Caller,
    Query(wish): Query<Wish>,
) -> Result<Json<Value>, ApiError> {
    let prefix = wish.prefix.trim_start_matches('/');
    // `…/0000` is where the hosted service keeps all runs of a task; here each has a folder.
    let own = prefix.trim_end_matches('/').strip_suffix(HOSTED_FOLDER);
    let own = own.filter(|own| own.ends_with('/') && own.matches('/').count() == 2);
    let prefix = StoragePath::parse(own.unwrap_or(prefix)).map_err(|e| {
        let loc = vec![json!("query"), json!("prefix")];
        let msg = format!("{e}: begin with the collection, such as `team/task`");
        ApiError::Invalid(vec![Problem { loc, msg, kind: "value_error" }])
    })?;
    caller.may(prefix.collection().as_str())?;
    let store = api.store.clone();
    let act = "could not list the stored files";
    let listing = blocking(act, move || store.list_files(&prefix, MAX_LISTED)).await?;
    let files: Vec<Value> = listing
        .files
        .iter()
        .map(|file| {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            json!({
                "path": file.path,
                "name": name,
                "size": file.n_bytes,
                "content_type": content_type(extension(name)),
                "extension": extension(name),
                "is_upload": file.path.split('/').nth(1) == Some(UPLOADS_FOLDER),
            })
        })
        .collect();
    Ok(Json(json!({ "files": files, "truncated": listing.cut_off })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_met_or_ignored() {
        for (header, n_bytes, expected) in [
            ("bytes=0-3", 10, Some(0..=3)),
            ("bytes=4-", 10, Some(4..=9)),
            ("bytes=-3", 10, Some(7..=9)),
            ("bytes=-30", 10, Some(0..=9)),
            ("bytes=8-99", 10, Some(8..=9)),
            ("bytes=10-", 10, None),
            ("bytes=5-4", 10, None),
            ("bytes=-0", 10, None),
            ("bytes=0-", 0, None),
            ("bytes=0-1,3-4", 10, None),
            ("lines=0-1", 10, None),
            ("bytes=a-b", 10, None),
        ] {
            assert_eq!(wanted(header, n_bytes), expected, "{header} of {n_bytes}");
        }
    }

    #[test]
    fn a_name_is_told_whole_and_in_plain_letters() {
        assert_eq!(
            disposition("a \"b\"\r\nü.md"),
            "attachment; filename=\"a _b____.md\"; filename*=UTF-8''a%20%22b%22%0D%0A%C3%BC.md"
        );
    }

    proptest! {
        #[test]
        fn any_name_makes_a_header(name in r"(?s).{0,40}") {
            prop_assert!(HeaderValue::from_str(&disposition(&name)).is_ok());
        }
    }
}
