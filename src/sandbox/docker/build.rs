//! Building images: sent from memory, heard line by line, never twice at once.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bollard::body_full;
use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::super::engine::blocking;
use super::super::error::{EngineFault, SandboxError};
use super::super::images::{OnBuild, Tail};
use super::super::lock;
use super::{Docker, STATE_LABEL, status};
use crate::run::{ContextFile, ImageRecipe};

/// How long a build may take. A browser with its libraries takes minutes on a slow mirror.
const BUILD_LIMIT: Duration = Duration::from_secs(45 * 60);

/// What Docker calls the image with nothing in it. It is in no registry.
const NOTHING: &str = "scratch";

/// The label with the snapshot's name.
const TITLE_LABEL: &str = "runbookd.snapshot";
/// The label with the name of the image below.
pub(super) const BASE_LABEL: &str = "runbookd.snapshot.base";
/// The label with the id of the image below.
pub(super) const BASE_ID_LABEL: &str = "runbookd.snapshot.base-id";

impl Docker {
    /// Builds the image of a recipe unless it is there.
    pub(in super::super) async fn build(
        &self,
        recipe: &ImageRecipe,
        locks: &Path,
        heard: OnBuild<'_>,
    ) -> Result<(), SandboxError> {
        let failed = |source, tail: Tail| SandboxError::Build {
            image: recipe.tag.clone(),
            tail: tail.text(),
            source,
        };
        if self.has(&recipe.tag).await.map_err(|e| failed(e, Tail::default()))? {
            return Ok(());
        }
        let name = recipe.tag.replace(['/', ':'], "-");
        let waits = || heard("waiting for another process that builds it");
        let lock = lock::exclusive(&locks.join(format!("{name}.lock")), BUILD_LIMIT, waits).await;
        let _lock = lock.map_err(|e| failed(e.into(), Tail::default()))?;
        // Whoever held the lock may have built it.
        if self.has(&recipe.tag).await.map_err(|e| failed(e, Tail::default()))? {
            return Ok(());
        }
        let base = match recipe.base.as_str() {
            NOTHING => NOTHING.to_owned(),
            base => self.image(Some(base)).await?,
        };
        let mut tail = Tail::default();
        let mut hear = |line: &str| {
            heard(line);
            tail.push(line);
        };
        match timeout(BUILD_LIMIT, self.send(recipe, &base, &mut hear)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(failed(source, tail)),
            Err(_) => Err(failed(EngineFault::Slow { limit: BUILD_LIMIT }, tail)),
        }
    }

    async fn send(
        &self,
        recipe: &ImageRecipe,
        base: &str,
        heard: OnBuild<'_>,
    ) -> Result<(), EngineFault> {
        let base_id = match base {
            NOTHING => String::new(),
            base => self.client.inspect_image(base).await?.id.unwrap_or_default(),
        };
        let labels = HashMap::from([
            (STATE_LABEL, self.state.as_str()),
            (TITLE_LABEL, recipe.title.as_str()),
            (BASE_LABEL, base),
            (BASE_ID_LABEL, base_id.as_str()),
        ]);
        let arguments: HashMap<&str, &str> =
            recipe.build_args.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let options = BuildImageOptionsBuilder::new()
            .t(&recipe.tag)
            .labels(&labels)
            .buildargs(&arguments)
            .rm(true)
            .forcerm(true)
            .build();
        let files = recipe.files.clone();
        let sent = blocking(move || context(&files)).await?;
        let mut lines = self.client.build_image(options, None, Some(body_full(sent.into())));
        while let Some(news) = lines.next().await {
            let BuildInfo { stream, status, error_detail, .. } = news?;
            let words = stream.or(status).or(error_detail.and_then(|detail| detail.message));
            // Programs of a build colour their words, also where nobody sees it.
            let words = words.unwrap_or_default();
            let words = console::strip_ansi_codes(&words);
            words.lines().map(str::trim_end).filter(|line| !line.is_empty()).for_each(&mut *heard);
        }
        // A build that broke off without a word leaves no image.
        match self.client.inspect_image(&recipe.tag).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an image is here.
    pub(in super::super) async fn has(&self, image: &str) -> Result<bool, EngineFault> {
        match self.client.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The files as the daemon wants them. Nothing of them depends on the time, so that the daemon finds
/// the layers again that it built before.
fn context(files: &std::collections::BTreeMap<String, ContextFile>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.bytes.len() as u64);
        header.set_mode(if file.is_executable { 0o755 } else { 0o644 });
        archive.append_data(&mut header, path, file.bytes.as_slice())?;
    }
    archive.into_inner()
}
