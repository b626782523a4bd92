//! The calls with small answers.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::attempts::{Again, attempt};
use super::connect::{ANSWER_LIMIT, Client};
use super::error::ClientError;
use crate::run::RunName;
use crate::secret::Secret;

/// Items on a page of collections or tasks: what the server gives at most.
const PAGE: u64 = 100;

/// Most pages that are read: ten thousand names.
const MAX_PAGES: u64 = 100;

/// Which runs of a task are listed.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Only those that stand here.
    pub status: Option<String>,
    /// At most so many.
    pub limit: u64,
}

impl Client {
    /// Whether the server lives, or with `ready`, whether it can take work.
    ///
    /// # Errors
    /// [`ClientError`]; a server that is not ready refuses with what is missing.
    pub async fn health(&self, ready: bool) -> Result<Value, ClientError> {
        let segment = if ready { "readyz" } else { "healthz" };
        // Who watches a server wants to know how it is now.
        self.exchange(self.request(Method::GET, &[segment]).timeout(ANSWER_LIMIT)).await
    }

    /// Every collection that the token opens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn collections(&self) -> Result<Vec<Value>, ClientError> {
        self.pages(&["api", "v1", "collections"]).await
    }

    /// Makes a collection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_collection(&self, name: &str) -> Result<Value, ClientError> {
        let body = json!({ "name": name });
        self.write(Method::POST, &["api", "v1", "collections"], Some(&body)).await
    }

    /// A collection with the names of its environment's variables.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn environment(&self, collection: &str) -> Result<Value, ClientError> {
        self.get(&["api", "v1", "collections", collection, "environment"], &[]).await
    }

    /// What a collection used from one day to another; the server's choice where they are absent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn usage(
        &self,
        collection: &str,
        (from, to): (Option<&str>, Option<&str>),
    ) -> Result<Value, ClientError> {
        let days = [("from", from), ("to", to)].into_iter();
        let days: Vec<(&str, &str)> = days.filter_map(|(name, day)| Some((name, day?))).collect();
        self.get(&["api", "v1", "collections", collection, "usage"], &days).await
    }

    /// Sets a variable of a collection's environment, or removes it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn set_variable(
        &self,
        collection: &str,
        name: &str,
        value: Option<&Secret>,
    ) -> Result<Value, ClientError> {
        let mut variables = Map::new();
        variables.insert(name.to_owned(), value.map(Secret::expose).into());
        let body = json!({ "environment_variables": variables });
        let path = ["api", "v1", "collections", collection, "environment"];
        // The second time it sets the same.
        self.put(Method::PATCH, &path, &body).await
    }

    /// Every task of a collection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tasks(&self, collection: &str) -> Result<Vec<Value>, ClientError> {
        self.pages(&["api", "v1", "tasks", collection]).await
    }

    /// A task; `None` where there is none of this name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn task(&self, collection: &str, task: &str) -> Result<Option<Value>, ClientError> {
        found(self.get(&["api", "v1", "tasks", collection, task], &[]).await)
    }

    /// Makes a task.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_task(&self, collection: &str, task: &Value) -> Result<Value, ClientError> {
        self.write(Method::POST, &["api", "v1", "tasks", collection], Some(task)).await
    }

    /// Changes a task.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn update_task(
        &self,
        collection: &str,
        task: &str,
        change: &Value,
    ) -> Result<Value, ClientError> {
        self.put(Method::PUT, &["api", "v1", "tasks", collection, task], change).await
    }

    /// Removes a task.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_task(&self, collection: &str, task: &str) -> Result<Value, ClientError> {
        self.write(Method::DELETE, &["api", "v1", "tasks", collection, task], None).await
    }

    /// The runs of a task, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn runs(
        &self,
        collection: &str,
        task: &str,
        listed: &Listed,
    ) -> Result<Value, ClientError> {
        let limit = listed.limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(listed.status.as_deref().map(|status| ("status", status)));
        self.get(&["api", "v1", "db", "trajectories", collection, task], &query).await
    }

    /// Everything that is known of a run; `None` where there is no such run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn run(&self, run: &RunName) -> Result<Option<Value>, ClientError> {
        let (collection, task) = (run.collection.as_str(), run.task.as_str());
        let path = ["api", "v1", "db", "trajectory", collection, task, run.id.as_str()];
        found(self.get(&path, &[]).await)
    }

    /// Stops a run. What it made is kept.
    ///
    /// # Errors
    /// [`ClientError`]; a run that has ended otherwise refuses.
    pub async fn cancel(&self, run: &RunName) -> Result<Value, ClientError> {
        let (collection, task) = (run.collection.as_str(), run.task.as_str());
        let path = ["api", "v1", "trajectory", collection, task, run.id.as_str(), "status"];
        // The second time it is cancelled already.
        self.put(Method::POST, &path, &json!({ "status": "cancelled" })).await
    }

    /// What happened in a run so far.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn logs(&self, run: &RunName) -> Result<Value, ClientError> {
        self.get(&["api", "v1", "workflows-logs", &run.workflow_id()], &[]).await
    }

    async fn pages(&self, path: &[&str]) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        for page in 0..MAX_PAGES {
            let (skip, limit) = ((page * PAGE).to_string(), PAGE.to_string());
            let query = [("skip", skip.as_str()), ("limit", limit.as_str())];
            let Value::Array(found) = self.get(path, &query).await? else {
                return Err(self.foreign("it sent something else instead of a list".to_owned()));
            };
            let is_last = (found.len() as u64) < PAGE;
            items.extend(found);
            if is_last {
                break;
            }
        }
        Ok(items)
    }

    async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, ClientError> {
        attempt(Again::Safe, async || {
            let request = self.request(Method::GET, path).query(query);
            self.exchange(request.timeout(ANSWER_LIMIT)).await
        })
        .await
    }

    /// Writes what is the same when it is written twice.
    async fn put(&self, way: Method, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        attempt(Again::Safe, async || {
            let request = self.request(way.clone(), path).json(body);
            self.exchange(request.timeout(ANSWER_LIMIT)).await
        })
        .await
    }

    /// Writes what must not be written twice.
    async fn write(
        &self,
        way: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        attempt(Again::Unheard, async || {
            let request = self.request(way.clone(), path).timeout(ANSWER_LIMIT);
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            self.exchange(request).await
        })
        .await
    }
}

/// What is not there is an answer too.
fn found(answer: Result<Value, ClientError>) -> Result<Option<Value>, ClientError> {
    match answer {
        Err(error) if error.status() == Some(404) => Ok(None),
        other => other.map(Some),
    }
}
