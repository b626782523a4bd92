//! The description of the API that is generated from its handlers, and the pages that show it.

use axum::Router;
use utoipa::Modify;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::Shared;

/// The document before the handlers have added their paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "runbookd",
        description = "Runs agent runbooks in sandboxes, keeps what happened, and counts every \
                       token. Every path but health, step-templates and these pages wants \
                       `Authorization: Bearer mlc_…`; a token is made with `runbookd token create`."
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
pub(super) struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_with(Components::default);
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", scheme);
    }
}

/// Gives every operation an id of its own, from its method and path: generated clients name their
/// functions after it, and handlers of different groups share their names.
pub(super) fn with_ids(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                operation.operation_id = Some(operation_id(method, path));
            }
        }
    }
    document
}

fn operation_id(method: &str, path: &str) -> String {
    let below = path.strip_prefix("/api/v1").unwrap_or(path);
    let words = below.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

/// `GET /openapi.json` and `GET /docs`, with every file of the pages in this program.
pub(super) fn pages(document: OpenApi) -> Router<Shared> {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}
