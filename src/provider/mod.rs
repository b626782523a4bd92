//! The model services.

mod access;
mod examine;
mod models;
mod pricing;
pub mod scripted;
mod selection;
#[cfg(test)]
mod table;

pub use access::{
    Access, AwsKeys, Brokered, Credential, Route, SCRIPTED_SOCKET, VertexPlace, Wire, access,
    credentials,
};
pub use examine::examine;
pub use models::{BROKEN, Broken, MODELS, Model, PRICE_SOURCE, Price, WEB_SEARCH};
pub use pricing::{Billed, CacheTime, estimate, worst_case};
pub use selection::{ChosenModel, choose_model, choose_provider, choose_runtime};
