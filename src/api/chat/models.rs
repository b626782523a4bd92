//! The models that a client can name, as OpenAI's clients list them.

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Shared;
use crate::api::auth::Caller;
use crate::api::error::ApiError;
use crate::api::extract::{Query, Segments};
use crate::run::Slug;
use crate::secret::Keyring;
use crate::upstream::{Keys, Offer, offers};

/// Since when they are listed, in seconds: the day of the table that they stand in. Clients want a
/// number, and no service is asked for the right one.
const CREATED: i64 = 1_777_507_200;

/// What carries runbooks out, by its name as a model.
const RUNTIME: Offer = Offer { id: "claude-code", provider: "runbookd" };

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        // Clients whose base URL has no `/v1`.
        .route("/models", get(list))
        .route("/models/{*model}", get(one))
}

/// Whose models.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The collection; the token's own where it is not named.
    collection: Option<String>,
}

/// A list of models.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the answer")]
pub(super) struct Models {
    /// Always `list`.
    object: String,
    /// The models.
    data: Vec<ModelCard>,
}

/// A model.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the answer")]
pub(super) struct ModelCard {
    /// What requests name it.
    id: String,
    /// Always `model`.
    object: String,
    /// Since when it is listed, in seconds since 1970.
    created: i64,
    /// The provider.
    owned_by: String,
}

/// Lists the known models that the collection's keys reach, and the agents that carry runbooks out.
/// No service is asked: it may have others too.
#[utoipa::path(get, path = "/v1/models", tag = "chat", params(Whose),
    responses((status = 200, description = "The models.", body = Models),
        (status = 400, description = "An admin token must name a collection.")))]
async fn list(
    State(api): State<Shared>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, ApiError> {
    let cards: Vec<Value> = reached(&api, &caller, &whose).await?.iter().map(card).collect();
    Ok(Json(json!({ "object": "list", "data": cards })))
}

/// One of these models.
#[utoipa::path(get, path = "/v1/models/{*model}", tag = "chat", params(Whose),
    responses((status = 200, description = "The model.", body = ModelCard),
        (status = 404, description = "It is not among those that are listed.")))]
async fn one(
    State(api): State<Shared>,
    caller: Caller,
    Segments(model): Segments<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, ApiError> {
    let offers = reached(&api, &caller, &whose).await?;
    let found = offers.iter().find(|offer| offer.id == model).map(card);
    found.map(Json).ok_or_else(|| {
        ApiError::NotFound(format!(
            "The model '{model}' is not among those that are known to be in reach; a chat request \
             may name it all the same"
        ))
    })
}

async fn reached(api: &Shared, caller: &Caller, whose: &Whose) -> Result<Vec<Offer>, ApiError> {
    let own = caller.own_collection().map(Slug::as_str);
    let name = whose.collection.as_deref().or(own).ok_or_else(|| {
        ApiError::BadRequest(
            "An admin token belongs to no collection: name one with `?collection=`".to_owned(),
        )
    })?;
    caller.may(name)?;
    let collection = api.catalog.collection(name).await?;
    let own: Keyring = api.catalog.environment(&collection.name).await?.into_iter().collect();
    let keys = Keys { own: &own, shared: api.runs.intake.settings.shared_keys.as_ref() };
    let mut offers = offers(keys);
    offers.push(RUNTIME);
    Ok(offers)
}

fn card(offer: &Offer) -> Value {
    json!({
        "id": offer.id, "object": "model", "created": CREATED, "owned_by": offer.provider,
    })
}
