//! Removing the images that nobody will ask for again.

use std::collections::{BTreeSet, HashMap};

use bollard::models::ImageSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};

use super::super::error::{EngineFault, SandboxError};
use super::super::images::PrunedImage;
use super::build::{BASE_ID_LABEL, BASE_LABEL};
use super::look::LOOK_LABEL;
use super::{Docker, STATE_LABEL, remove, status};

impl Docker {
    /// Removes the names of ours that are not in `current`, stand on nothing that is, and that no
    /// container uses. Nobody else looks into an image or builds one meanwhile.
    pub(in super::super) async fn prune(
        &self,
        current: &BTreeSet<String>,
    ) -> Result<Vec<PrunedImage>, SandboxError> {
        self.prune_all(current).await.map_err(SandboxError::Prune)
    }

    async fn prune_all(&self, current: &BTreeSet<String>) -> Result<Vec<PrunedImage>, EngineFault> {
        let of_this_state = format!("{STATE_LABEL}={}", self.state);
        self.remove_looks(&of_this_state).await?;
        let used = self.images_of_containers().await?;
        let filters = HashMap::from([("label", vec![of_this_state])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let mut pruned = Vec::new();
        for image in self.client.list_images(Some(options)).await? {
            if used.contains(&image.id) || self.is_wanted(&image, current).await? {
                continue;
            }
            for name in image.repo_tags.iter().filter(|name| name.as_str() != "<none>:<none>") {
                let options = RemoveImageOptionsBuilder::new().build();
                match self.client.remove_image(name, Some(options), None).await {
                    Ok(_) => pruned.push(PrunedImage {
                        name: name.clone(),
                        bytes: u64::try_from(image.size).unwrap_or_default(),
                    }),
                    // Gone meanwhile, or used meanwhile.
                    Err(error) if matches!(status(&error), Some(404 | 409)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        pruned.sort();
        Ok(pruned)
    }

    /// An image is wanted by its name. One with packages is wanted as long as the image below is what
    /// it was, and is one that is wanted or not ours.
    async fn is_wanted(
        &self,
        image: &ImageSummary,
        current: &BTreeSet<String>,
    ) -> Result<bool, EngineFault> {
        if image.repo_tags.iter().any(|name| current.contains(name)) {
            return Ok(true);
        }
        let is_ours = |name: &str| name.starts_with("runbookd-snapshot/");
        let has_packages =
            image.repo_tags.iter().any(|name| name.starts_with("runbookd-snapshot/packages:"));
        let (Some(base), Some(base_id), true) =
            (image.labels.get(BASE_LABEL), image.labels.get(BASE_ID_LABEL), has_packages)
        else {
            return Ok(false);
        };
        if is_ours(base) && !current.contains(base) {
            return Ok(false);
        }
        match self.client.inspect_image(base).await {
            Ok(inspected) => Ok(inspected.id.as_ref() == Some(base_id)),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What a process left that was killed while it looked into an image.
    async fn remove_looks(&self, of_this_state: &str) -> Result<(), EngineFault> {
        let labels = vec![LOOK_LABEL.to_owned(), of_this_state.to_owned()];
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        for container in self.client.list_containers(Some(options)).await? {
            if let Some(id) = container.id {
                remove(&self.client, &id).await?;
            }
        }
        Ok(())
    }

    async fn images_of_containers(&self) -> Result<BTreeSet<String>, EngineFault> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.client.list_containers(Some(options)).await?;
        Ok(containers.into_iter().filter_map(|container| container.image_id).collect())
    }
}
