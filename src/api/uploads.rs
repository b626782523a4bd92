//! Files that clients send before a run: by path for `file_paths`, by id for `files`.

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Caller;
use super::error::{ApiError, Problem};
use super::extract::{Query, Segments};
use super::form::{Form, told};
use super::receive::Received;
use super::runs::blocking;
use super::stored::{open, send};
use crate::run::Slug;
use crate::store::{FILE_ID, StoragePath, UploadedFile};

/// What a file is for, when its sender does not say.
const PURPOSE: &str = "user_data";

/// Most files in one list.
const MAX_LISTED: usize = 1000;

pub(super) fn routes(max_upload_bytes: usize) -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .routes(routes!(create, list))
        .routes(routes!(one, remove))
        .routes(routes!(content))
        // The same where OpenAI's clients look for it.
        .route("/v1/files", post(create).get(list))
        .route("/v1/files/{file_id}", get(one).delete(remove))
        .route("/v1/files/{file_id}/content", get(content))
        .layer(DefaultBodyLimit::max(max_upload_bytes))
}

/// Whose files: a collection's token needs not say.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The collection, for an admin token.
    collection: Option<String>,
}

/// The collection that a request without one in its path is about.
async fn collection(api: &Shared, caller: &Caller, named: Option<&str>) -> Result<Slug, ApiError> {
    let name = named.or(caller.own_collection().map(Slug::as_str)).ok_or_else(|| {
        ApiError::BadRequest(
            "An admin token belongs to no collection: add `?collection=…`".to_owned(),
        )
    })?;
    caller.may(name)?;
    Ok(api.catalog.collection(name).await?.name)
}

/// The form of an upload.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the form; the form is read field by field")]
struct UploadForm {
    /// The files, one part each.
    files: Vec<String>,
}

/// Takes files for runs that come later. The paths go into `file_paths`.
#[utoipa::path(post, path = "/api/v1/sandbox/upload", tag = "files", params(Whose),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "`upload_id`, `file_paths` and `count`.")))]
async fn upload(
    State(api): State<Shared>,
    caller: Caller,
    Query(whose): Query<Whose>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let collection = collection(&api, &caller, whose.collection.as_deref()).await?;
    let mut received = Received::new(&api, collection).await?;
    take_all(Form::of(request, &api).await?, (&mut received, "files")).await?;
    let batch = received.batch().clone();
    let files = received.handed_over();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    Ok(Json(json!({
        "upload_id": batch.as_str(), "file_paths": paths, "count": paths.len(),
    })))
}

/// Receives every file of the field `wanted`, at least one. Gives the purpose, if one is named.
async fn take_all(
    mut form: Form,
    (received, wanted): (&mut Received, &'static str),
) -> Result<Option<String>, ApiError> {
    let mut purpose = None;
    while let Some(part) = form.next().await? {
        let name = part.name();
        let is_file = part.file_name().is_some();
        match name.as_str() {
            name if is_file && name == wanted => received.take(part).await?,
            "purpose" if !is_file => purpose = Some(part.text().await?),
            other if is_file => {
                let msg = format!("files are sent in the field `{wanted}`");
                let problem = Problem::of_field(&told(other), "unexpected", msg);
                return Err(ApiError::Invalid(vec![problem]));
            }
            // It means nothing, but it must not be endless either.
            _ => drop(part.text().await?),
        }
    }
    if received.files.is_empty() {
        let msg =
            format!("send at least one file in the field `{wanted}` (curl -F {wanted}=@PATH)");
        return Err(ApiError::Invalid(vec![Problem::of_field(wanted, "missing", msg)]));
    }
    Ok(purpose)
}

/// The form of a file.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the form; the form is read field by field")]
struct FileForm {
    /// The file.
    file: String,
    /// What it is for.
    purpose: Option<String>,
}

/// Takes one file. Its id goes into `files`.
#[utoipa::path(post, path = "/api/v1/files", tag = "files", params(Whose),
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "The file as OpenAI's clients know it.")))]
async fn create(
    State(api): State<Shared>,
    caller: Caller,
    Query(whose): Query<Whose>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let collection = collection(&api, &caller, whose.collection.as_deref()).await?;
    let mut received = Received::new(&api, collection).await?;
    let purpose = take_all(Form::of(request, &api).await?, (&mut received, "file")).await?;
    if received.files.len() > 1 {
        return Err(ApiError::BadRequest(
            "Send one file at a time, or several with `POST /api/v1/sandbox/upload`".to_owned(),
        ));
    }
    let id = format!("{FILE_ID}{}", received.batch());
    let files = received.handed_over();
    let file = &files[0];
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let created = (api.clock)();
    Ok(Json(object(&id, (name, file.n_bytes), (created, purpose))))
}

/// A file as OpenAI's clients know it.
fn object(
    id: &str,
    (name, n_bytes): (&str, u64),
    (created, purpose): (Timestamp, Option<String>),
) -> Value {
    json!({
        "id": id,
        "object": "file",
        "bytes": n_bytes,
        "created_at": created.as_second(),
        "filename": name,
        "purpose": purpose.unwrap_or_else(|| PURPOSE.to_owned()),
        "status": "processed",
    })
}

fn shown(file: &UploadedFile) -> Value {
    object(&file.id, (file.path.file_name(), file.n_bytes), (file.created, None))
}

/// Lists the files that were taken, newest first.
#[utoipa::path(get, path = "/api/v1/files", tag = "files", params(Whose),
    responses((status = 200, description = "The files.")))]
async fn list(
    State(api): State<Shared>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, ApiError> {
    let collection = collection(&api, &caller, whose.collection.as_deref()).await?;
    let store = api.store.clone();
    let act = "could not list the uploads";
    let files = blocking(act, move || store.uploads(&collection, MAX_LISTED)).await?;
    let data: Vec<Value> = files.iter().map(shown).collect();
    Ok(Json(json!({ "object": "list", "data": data, "has_more": data.len() == MAX_LISTED })))
}

/// The file of an id, among those that the caller may see.
async fn find(
    api: &Shared,
    caller: &Caller,
    (whose, id): (&Whose, &str),
) -> Result<UploadedFile, ApiError> {
    let collection = collection(api, caller, whose.collection.as_deref()).await?;
    let (store, wanted) = (api.store.clone(), id.to_owned());
    let act = "could not look an upload up";
    let found = blocking(act, move || store.upload(&collection, &wanted)).await?;
    found.ok_or_else(|| {
        let hint = if id.contains('/') {
            ": a stored file's path goes to `GET /api/v1/file/{path}`"
        } else {
            ""
        };
        ApiError::NotFound(format!("There is no file with the id '{id}'{hint}"))
    })
}

/// Tells about a file that was taken.
#[utoipa::path(get, path = "/api/v1/files/{file_id}", tag = "files", params(Whose),
    responses((status = 200, description = "The file."),
        (status = 404, description = "There is no such file.")))]
async fn one(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, ApiError> {
    find(&api, &caller, (&whose, &id)).await.map(|file| Json(shown(&file)))
}

/// Sends a file that was taken.
#[utoipa::path(get, path = "/api/v1/files/{file_id}/content", tag = "files", params(Whose),
    responses((status = 200, description = "Its bytes.", content_type = "application/octet-stream"),
        (status = 404, description = "There is no such file.")))]
async fn content(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    Query(whose): Query<Whose>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = find(&api, &caller, (&whose, &id)).await?;
    let file = open(&api, &found.path).await?;
    send(file, found.path.file_name(), &headers).await
}

/// Removes a file that was taken. Runs that have it keep theirs.
#[utoipa::path(delete, path = "/api/v1/files/{file_id}", tag = "files", params(Whose),
    responses((status = 200, description = "It is gone."),
        (status = 404, description = "There is no such file.")))]
async fn remove(
    State(api): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, ApiError> {
    let found = find(&api, &caller, (&whose, &id)).await?;
    let (store, path): (_, StoragePath) = (api.store.clone(), found.path);
    blocking("could not remove an upload", move || store.remove_upload(&path)).await?;
    Ok(Json(json!({ "id": id, "object": "file", "deleted": true })))
}
