//! Looking into an image without starting anything of it.

use std::io;
use std::path::Path;

use bollard::models::{ContainerCreateBody, ImageInspect};
use bollard::query_parameters::ContainerArchiveInfoOptionsBuilder;

use super::super::error::{EngineFault, SandboxError};
use super::super::images::{ImageFacts, LibC, SetPriv};
use super::{Docker, STATE_LABEL, remove, status};

/// Where programs are looked for in an image that sets no `PATH`: Docker's own default.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The label of a container that is only looked into. Nobody else's has it together with our state's,
/// so what a killed process left of them can be told.
pub(super) const LOOK_LABEL: &str = "runbookd.look";

/// Counts up when a look sees more than before.
const LOOK_VERSION: u32 = 1;

/// The loaders of both C libraries, by processor.
const LOADERS: [(&str, &[&str], &str); 2] = [
    ("x86_64", &["/lib64/ld-linux-x86-64.so.2"], "/lib/ld-musl-x86_64.so.1"),
    (
        "aarch64",
        &["/lib/ld-linux-aarch64.so.1", "/lib64/ld-linux-aarch64.so.1"],
        "/lib/ld-musl-aarch64.so.1",
    ),
];

impl Docker {
    /// What is in an image that is here. What was seen is remembered by the image's id: a look takes
    /// as long as making a sandbox.
    pub(in super::super) async fn look_into(
        &self,
        image: &str,
        looks: &Path,
    ) -> Result<ImageFacts, SandboxError> {
        let failed =
            |source: EngineFault| SandboxError::LookInto { image: image.to_owned(), source };
        let inspected = self.client.inspect_image(image).await.map_err(|e| failed(e.into()))?;
        let remembered = looks.join(file_name(&inspected));
        if let Some(facts) = recall(&remembered) {
            return Ok(facts);
        }
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec!["/never-started".to_owned()]),
            cmd: Some(vec![]),
            labels: Some(
                [
                    (STATE_LABEL.to_owned(), self.state.clone()),
                    (LOOK_LABEL.to_owned(), "1".to_owned()),
                ]
                .into(),
            ),
            ..ContainerCreateBody::default()
        };
        let created = self.client.create_container(None, body).await;
        let container = created.map_err(|e| failed(e.into()))?.id;
        let looked = self.facts(&container, &inspected).await;
        remove(&self.client, &container).await.map_err(failed)?;
        let facts = looked.map_err(failed)?;
        if let Err(error) = remember(&remembered, &facts) {
            tracing::warn!(%error, "what is in the image `{image}` could not be remembered");
        }
        Ok(facts)
    }

    async fn facts(
        &self,
        container: &str,
        inspected: &ImageInspect,
    ) -> Result<ImageFacts, EngineFault> {
        let variables = inspected.config.iter().flat_map(|config| config.env.iter().flatten());
        let path = variables.filter_map(|variable| variable.strip_prefix("PATH=")).next_back();
        let path = path.unwrap_or(USUAL_PATH);
        let setpriv = match self.program(container, path, "setpriv").await? {
            Some(real) if real.ends_with("/busybox") => SetPriv::Busybox,
            Some(_) => SetPriv::Fit,
            None => SetPriv::Missing,
        };
        let arch = arch(inspected.architecture.as_deref().unwrap_or_default());
        let has_bash = self.program(container, path, "bash").await?.is_some()
            || self.program(container, path, "zsh").await?.is_some();
        Ok(ImageFacts {
            id: inspected.id.clone().unwrap_or_default(),
            libc: self.libc(container, arch).await?,
            arch: arch.to_owned(),
            has_sh: self.real_path(container, "/bin/sh").await?.is_some(),
            has_bash,
            has_ps: self.program(container, path, "ps").await?.is_some(),
            setpriv,
        })
    }

    /// An image with both, as a Debian with the package `musl`, is one of glibc.
    async fn libc(&self, container: &str, arch: &str) -> Result<Option<LibC>, EngineFault> {
        let Some((_, glibc, musl)) = LOADERS.iter().find(|(of, ..)| *of == arch) else {
            return Ok(None);
        };
        for loader in *glibc {
            if self.real_path(container, loader).await?.is_some() {
                return Ok(Some(LibC::Glibc));
            }
        }
        let musl = self.real_path(container, musl).await?;
        Ok(musl.map(|_| LibC::Musl))
    }

    /// Where a program of that name really lies.
    async fn program(
        &self,
        container: &str,
        path: &str,
        name: &str,
    ) -> Result<Option<String>, EngineFault> {
        for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
            let real = self.real_path(container, &format!("{folder}/{name}")).await?;
            if real.is_some() {
                return Ok(real);
            }
        }
        Ok(None)
    }

    /// Where a path leads; `None` where there is nothing. The daemon follows every link, and stays
    /// inside the image.
    async fn real_path(&self, container: &str, path: &str) -> Result<Option<String>, EngineFault> {
        match self.stat(container, path).await? {
            Some(target) if target.is_empty() => Ok(Some(path.to_owned())),
            Some(target) => Ok(self.stat(container, &target).await?.map(|_| target)),
            None => Ok(None),
        }
    }

    /// The target of a link, empty for anything else; `None` where there is nothing.
    async fn stat(&self, container: &str, path: &str) -> Result<Option<String>, EngineFault> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        match self.client.get_container_archive_info(container, Some(options)).await {
            Ok(found) => Ok(Some(found.link_target)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The file that remembers a look. An id is `sha256:` and hexadecimal digits.
fn file_name(inspected: &ImageInspect) -> String {
    let id = inspected.id.as_deref().unwrap_or_default();
    format!("v{LOOK_VERSION}-{}.json", id.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
}

/// A file that cannot be read is looked up anew.
fn recall(path: &Path) -> Option<ImageFacts> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn remember(path: &Path, facts: &ImageFacts) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    // Whole or not at all: others read it meanwhile.
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&file, facts)?;
    file.persist(path)?;
    Ok(())
}

/// Docker's word for a processor as Rust's.
fn arch(word: &str) -> &str {
    match word {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}
