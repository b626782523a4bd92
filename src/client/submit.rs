//! Submitting a run: a form with files, sent again under the same key until it is answered.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::attempts::{Again, attempt};
use super::connect::{ANSWER_LIMIT, Client};
use super::error::ClientError;
use crate::run::{RunId, RunName, Slug};
use crate::secret::Secret;

/// The slowest upload that is not given up, in bytes a second.
const MIN_UPLOAD_RATE: u64 = 64 << 10;

/// A run that is asked for.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Where it belongs.
    pub collection: Slug,
    /// What is run.
    pub task: Slug,
    /// What is laid over the task's own parameters.
    pub init_params: Map<String, Value>,
    /// Files of this machine for the sandbox.
    pub files: Vec<PathBuf>,
    /// Secrets for this run alone.
    pub secrets: BTreeMap<String, Secret>,
    /// Makes a repeated request the same request.
    pub key: Uuid,
}

/// A run that was taken in.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// What it is called.
    pub run: RunName,
    /// What a person should know, as sentences.
    pub notes: Vec<String>,
    /// The server's answer.
    pub answer: Value,
}

impl Client {
    /// Submits a run.
    ///
    /// # Errors
    /// [`ClientError`]; a run that could only fail is refused with every reason.
    pub async fn submit(&self, wish: &Submission) -> Result<Submitted, ClientError> {
        // The key makes a second request the first one.
        let answer = attempt(Again::Safe, async || self.submit_once(wish).await).await?;
        let id = answer["trajectory_id"].as_str().and_then(|id| RunId::new(id).ok());
        let id = id.ok_or_else(|| self.foreign("its answer names no run".to_owned()))?;
        let notes = answer["notes"].as_array().into_iter().flatten();
        Ok(Submitted {
            run: RunName { collection: wish.collection.clone(), task: wish.task.clone(), id },
            notes: notes.filter_map(|note| note.as_str().map(str::to_owned)).collect(),
            answer,
        })
    }

    async fn submit_once(&self, wish: &Submission) -> Result<Value, ClientError> {
        let path = ["api", "v1", "run", wish.collection.as_str(), wish.task.as_str()];
        let mut form =
            Form::new().text("init_params", Value::from(wish.init_params.clone()).to_string());
        if !wish.secrets.is_empty() {
            let secrets = wish.secrets.iter();
            let secrets: Map<String, Value> =
                secrets.map(|(name, value)| (name.clone(), value.expose().into())).collect();
            form = form.text("secret_params", Value::from(secrets).to_string());
        }
        let mut n_bytes = 0;
        for path in &wish.files {
            let (part, length) = part(path)?;
            n_bytes += length;
            form = form.part("files", part);
        }
        let limit = ANSWER_LIMIT + Duration::from_secs(n_bytes / MIN_UPLOAD_RATE);
        let request = self.request(Method::POST, &path).multipart(form).timeout(limit);
        self.exchange(request.header("Idempotency-Key", wish.key.to_string())).await
    }
}

/// A file as a part of a form, read while it is sent.
fn part(path: &Path) -> Result<(Part, u64), ClientError> {
    let failed = |source| ClientError::File { act: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("it is no file; send a folder as a zip archive")));
    }
    let length = metadata.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let body = Body::from(tokio::fs::File::from_std(file));
    Ok((Part::stream_with_length(body, length).file_name(name), length))
}
