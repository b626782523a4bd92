//! The description of the API that is generated from its handlers, and the pages that show it.

use axum::Router;
use utoipa::Modify;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::Shared;
use super::chat::OpenAiFailure;
use super::described::Failure;

/// The document before the handlers have added their paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "runbookd",
        description = "Runs agent runbooks in sandboxes, keeps what happened, and counts every \
                       token. Every path but health, step-templates and these pages wants \
                       `Authorization: Bearer mlc_…`; a token is made with `runbookd token create`."
    ),
    components(schemas(Failure, OpenAiFailure)),
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

/// `GET /openapi.json` and `GET /docs`, with every file of the pages in this program.
pub(super) fn pages(document: OpenApi) -> Router<Shared> {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}
