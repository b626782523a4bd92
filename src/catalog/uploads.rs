//! Who names an uploaded file. The files and all that is known of them lie in the store.

use super::Catalog;
use super::error::CatalogError;
use super::row::Columns;
use crate::run::Slug;

/// The folder of sandbox uploads in a collection. No task can be called so by accident.
pub(super) const SANDBOX_FOLDER: &str = "_sandbox_uploads";

const NAMED: &str = "SELECT
    (SELECT COUNT(*) FROM tasks WHERE collection = $1 AND replace(workflow, $2, '') <> workflow)
    + (SELECT COUNT(*) FROM routines WHERE collection = $1
        AND replace(overrides, $2, '') <> overrides) AS n";

impl Catalog {
    /// Whether a task or a routine of the collection names an upload: its digits stand in its id and in
    /// its path alike.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_named(&self, collection: &Slug, digits: &str) -> Result<bool, CatalogError> {
        let row = sqlx::query(NAMED)
            .bind(collection.as_str())
            .bind(digits)
            .fetch_one(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look for what names an upload"))?;
        Ok(Columns(&row).count("n")? > 0)
    }
}
