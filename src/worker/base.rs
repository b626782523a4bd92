//! What a sandbox starts from: had or built, looked into, and found fit for the agent.

use std::fmt::Display;

use super::agent::AgentSource;
use super::attend::Stop;
use super::fault::sandbox_failed;
use super::parts::Parts;
use super::record::Record;
use super::watch::{Phase, RunUpdate, Watcher};
use crate::run::{Base, Code, Finding, ImageRecipe, RunFailure, RunPlan, RunStatus, error_chain};
use crate::sandbox::{Engine, EngineKind, ImageFacts, ImagesHold, LibC, OnBuild, SandboxError};
use crate::snapshot::DEFAULT_SNAPSHOT;
use crate::store::LogFile;
use crate::toolchain::{Libc, Target};
use crate::trajectory::{StartedFrom, one_line};

/// How a line begins with which Docker announces the next step of a build.
const STEP: &str = "Step ";

/// What a run's sandbox can be made from.
pub(super) struct Prepared {
    /// The image; `None` where this machine's system stands in for one.
    pub(super) image: Option<String>,
    /// The agent CLI that fits.
    pub(super) target: Target,
    /// Keeps the image until the sandbox has it.
    pub(super) hold: ImagesHold,
}

/// Has the image of a plan, with its packages, and tells the record.
pub(super) async fn prepare(
    parts: &Parts,
    plan: &RunPlan,
    record: &Record,
    stop: &Stop,
    watch: Watcher<'_>,
) -> Result<Prepared, RunStatus> {
    let hold = parts.engine.hold_images().await.map_err(|e| sandbox_failed(&e))?;
    let mut site = Site { parts, plan, record, stop, watch };
    let settled = match parts.engine.report().kind {
        EngineKind::Docker => site.docker().await?,
        EngineKind::Bubblewrap => site.bubblewrap().await?,
    };
    let Settled { image, facts, snapshot, notes } = settled;
    let image_id = facts.as_ref().map(|facts| facts.id.clone()).filter(|id| !id.is_empty());
    let target = target(parts, image.as_deref(), facts.as_ref())?;
    let engine = parts.engine.report().kind.to_string();
    notes.iter().for_each(|note| (site.watch)(RunUpdate::Note(note.clone())));
    let started_from = StartedFrom { engine, snapshot, image: image.clone(), image_id };
    record.starts_from(started_from, notes);
    Ok(Prepared { image, target, hold })
}

/// Builds recipes in order, unless they are there. Calls `heard` with what is built and each line.
///
/// # Errors
/// When one of them cannot be built.
pub async fn build(
    engine: &Engine,
    recipes: &[ImageRecipe],
    heard: &mut (dyn FnMut(&ImageRecipe, &str) + Send),
) -> Result<(), SandboxError> {
    for recipe in recipes {
        let mut line = |line: &str| heard(recipe, line);
        let hear: OnBuild<'_> = &mut line;
        engine.build(recipe, hear).await?;
    }
    Ok(())
}

/// What came of it.
struct Settled {
    image: Option<String>,
    /// What is in it; `None` where the engine refuses it anyway.
    facts: Option<ImageFacts>,
    snapshot: Option<String>,
    notes: Vec<String>,
}

/// Where the image of one run is had.
struct Site<'a, 'w> {
    parts: &'a Parts,
    plan: &'a RunPlan,
    record: &'a Record,
    stop: &'a Stop,
    watch: Watcher<'w>,
}

impl Site<'_, '_> {
    async fn docker(&mut self) -> Result<Settled, RunStatus> {
        let engine = &self.parts.engine;
        let default = || engine.default_image().map(str::to_owned);
        let (mut image, snapshot) = match &self.plan.base {
            Base::Image(image) => (Some(image.clone()), None),
            Base::Snapshot(snapshot) => (None, Some(snapshot.clone())),
            Base::Default => match default() {
                Some(image) => (Some(image), None),
                None => (None, Some(DEFAULT_SNAPSHOT.to_owned())),
            },
        };
        if let Some(snapshot) = &snapshot {
            let recipes = self.parts.snapshots.recipes(snapshot);
            image = recipes.last().map(|recipe| recipe.tag.clone());
            self.build(&recipes).await?;
        }
        let image = image.unwrap_or_default();
        unless_stopped(self.stop, engine.prepare(Some(&image)))
            .await?
            .map_err(|e| sandbox_failed(&e))?;
        let (image, facts) = self.with_packages(image).await?;
        let is_pinned = matches!(self.parts.agents, AgentSource::Pinned(_));
        let mut lacks = facts.lacks_for_start();
        if is_pinned {
            lacks.extend(facts.lacks_for_agent());
        }
        if !lacks.is_empty() {
            return Err(unfit(&image, lacks.join("; ")));
        }
        let no_ps = (is_pinned && !facts.has_ps).then(|| {
            format!(
                "The image `{image}` has no `ps`: what a command of the agent leaves running is \
                 ended with the sandbox only (install the package procps)."
            )
        });
        let notes = no_ps.into_iter().collect();
        Ok(Settled { image: Some(image), facts: Some(facts), snapshot, notes })
    }

    /// The image with the plan's packages, and what is in it.
    async fn with_packages(&mut self, image: String) -> Result<(String, ImageFacts), RunStatus> {
        let engine = &self.parts.engine;
        let look =
            async |image: &str| engine.look_into(Some(image)).await.map_err(|e| sandbox_failed(&e));
        let facts = look(&image).await?;
        if self.plan.apt_packages.is_empty() {
            return Ok((image, facts));
        }
        let packages = &self.plan.apt_packages;
        let recipe = self.parts.snapshots.with_packages(&image, &facts.id, packages);
        let with_packages = recipe.tag.clone();
        self.build(&[recipe]).await?;
        let facts = look(&with_packages).await?;
        Ok((with_packages, facts))
    }

    /// Builds what is not there, before the eyes of whoever watches and into the run's log.
    async fn build(&mut self, recipes: &[ImageRecipe]) -> Result<(), RunStatus> {
        let Self { parts, record, stop, watch, .. } = self;
        let mut log = BuildLog { record, file: None, step: String::new() };
        let title = recipes.last().map(|recipe| recipe.title.clone()).unwrap_or_default();
        let mut heard = |recipe: &ImageRecipe, line: &str| log.hear(recipe, line, *watch);
        let built = unless_stopped(stop, build(&parts.engine, recipes, &mut heard)).await?;
        match built {
            Ok(()) => Ok(()),
            Err(error @ (SandboxError::Build { .. } | SandboxError::Image { .. })) => {
                let is_base = matches!(error, SandboxError::Image { .. });
                let on_another =
                    if is_base { "; RUNBOOKD_BASE_IMAGE names another base" } else { "" };
                let detail = format!("{}{on_another}", error_chain(&error));
                Err(RunStatus::Failed(RunFailure::SnapshotFailed { snapshot: title, detail }))
            }
            Err(error) => Err(sandbox_failed(&error)),
        }
    }

    async fn bubblewrap(&mut self) -> Result<Settled, RunStatus> {
        let engine = &self.parts.engine;
        if !self.plan.apt_packages.is_empty() {
            let words = format!(
                "the packages {} cannot be installed on Bubblewrap, which has no images: install \
                 them on this machine and leave `apt_packages` out, or run it on Docker",
                self.plan.apt_packages.join(", ")
            );
            return Err(refused(Code::PackagesNeedDocker, words));
        }
        match &self.plan.base {
            Base::Default => self.host(None, Vec::new()).await,
            // The engine says why it cannot, as for any image.
            Base::Image(image) => Ok(Settled {
                image: Some(image.clone()),
                facts: None,
                snapshot: None,
                notes: Vec::new(),
            }),
            Base::Snapshot(snapshot) => {
                let missing = engine.missing_on_host(&self.parts.snapshots.tools(snapshot));
                if !missing.is_empty() {
                    let words = format!(
                        "Bubblewrap has no images, and this machine lacks what the snapshot \
                         `{snapshot}` promises ({}): install that in /usr/bin or /usr/local/bin, or \
                         run it on Docker",
                        missing.join(", ")
                    );
                    return Err(refused(Code::MissingTools, words));
                }
                let words = format!(
                    "Bubblewrap has no images: this machine's own system stands in for the \
                     snapshot `{snapshot}`"
                );
                let note = Finding::new(Code::SnapshotNeedsDocker, words).sentence();
                self.host(Some(snapshot.clone()), vec![note]).await
            }
        }
    }

    async fn host(
        &mut self,
        snapshot: Option<String>,
        notes: Vec<String>,
    ) -> Result<Settled, RunStatus> {
        let facts = self.parts.engine.look_into(None).await.map_err(|e| sandbox_failed(&e))?;
        Ok(Settled { image: None, facts: Some(facts), snapshot, notes })
    }
}

/// The log of a run's builds. It is made with the first line: most runs build nothing.
struct BuildLog<'a> {
    record: &'a Record,
    file: Option<LogFile>,
    step: String,
}

impl BuildLog<'_> {
    fn hear(
        &mut self,
        recipe: &ImageRecipe,
        line: &str,
        watch: &mut (dyn FnMut(RunUpdate) + Send),
    ) {
        if self.file.is_none() {
            self.file = self.record.folder().snapshot_log().ok();
        }
        let line = &self.record.redactor().redact_str(line);
        let written = self.file.as_mut().map(|file| file.append(format!("{line}\n").as_bytes()));
        if let Some(Err(error)) = written {
            tracing::warn!(error = %error_chain(&error), "a line of the build's log was lost");
        }
        let begins = self.step.is_empty() || line.starts_with(STEP);
        if begins {
            self.step = one_line(line);
        }
        watch(RunUpdate::Phase(Phase::BuildingSnapshot {
            name: recipe.title.clone(),
            step: self.step.clone(),
            last_line: (!begins).then(|| one_line(line)),
        }));
    }
}

/// Which agent CLI fits.
fn target(
    parts: &Parts,
    image: Option<&str>,
    facts: Option<&ImageFacts>,
) -> Result<Target, RunStatus> {
    let unavailable = |e: &dyn Display| {
        unfit(image.unwrap_or("of this machine"), format!("{e}: use an image for this machine"))
    };
    let host = Target::host().map_err(|e| unavailable(&e))?;
    let (Some(facts), AgentSource::Pinned(_)) = (facts, &parts.agents) else { return Ok(host) };
    let libc = match facts.libc {
        Some(LibC::Musl) => Libc::Musl,
        Some(LibC::Glibc) | None => Libc::Glibc,
    };
    Target::linux(&facts.arch, libc).map_err(|e| unavailable(&e))
}

/// A wait that ends when the run is stopped.
async fn unless_stopped<T>(stop: &Stop, wait: impl Future<Output = T>) -> Result<T, RunStatus> {
    tokio::select! {
        biased;
        () = stop.cancel.cancelled() => Err(RunStatus::Cancelled),
        done = wait => Ok(done),
    }
}

fn refused(code: Code, words: String) -> RunStatus {
    let problems = vec![Finding::new(code, words).sentence()];
    RunStatus::Failed(RunFailure::Refused { problems })
}

fn unfit(image: &str, detail: String) -> RunStatus {
    RunStatus::Failed(RunFailure::UnfitImage { image: image.to_owned(), detail })
}
