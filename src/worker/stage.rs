//! From a plan to a sandbox: what is mounted, staged and started inside.

use std::path::Path;

use super::way_out::proxy_env;
use crate::plan::RESULTS_DIR;
use crate::provider::Access as ModelAccess;
use crate::run::{Asset, FormerFile, RunPlan};
use crate::runtime::{self, Invocation};
use crate::sandbox::{
    Access, Mount, SandboxId, SandboxLimits, SandboxSpec, Setup, Source, StagedFile,
};
use crate::secret::Secret;

/// Where the agent starts; its results and assets are below it.
const WORK_DIR: &str = "/app";

/// Where the files that the run was given are.
const ASSETS_DIR: &str = "/app/assets";

/// Where the pinned CLI is mounted. It is not on the `PATH`, so the agent does not call a second one
/// of itself by accident, and a version that an image brings along is never taken for it.
const CLI: &str = "/opt/runbookd/bin/claude";

/// What a run stands on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// The image; none where the machine's own system stands in for one.
    pub(super) image: Option<&'a str>,
    /// The agent CLI on this machine.
    pub(super) cli: &'a Path,
}

/// What a sandbox for `plan` must be.
pub(super) fn sandbox_spec(
    id: SandboxId,
    plan: &RunPlan,
    invocation: Invocation,
    access: &ModelAccess,
    ground: Ground<'_>,
) -> SandboxSpec {
    let Invocation { args, env, files, stdin, .. } = invocation;
    let runtime_env = env.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value)));
    let model_env = access.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let results_dir = ("RESULTS_DIR".to_owned(), Secret::new(RESULTS_DIR.to_owned()));
    let given = plan.secrets.iter().chain(&plan.agent_env);
    let given = given.map(|(name, value)| (name.clone(), access.stand_in(value)));
    let way_out = if plan.network.mode().has_proxy() { proxy_env() } else { Vec::new() };
    let run_env = given.chain([results_dir]).chain(way_out);
    let setup = plan.setup.as_ref().map(|script| Setup {
        script: script.clone(),
        // Nothing of the provider: an installer does not need its credentials.
        env: run_env.clone().collect(),
    });
    let read_only = files.into_iter().map(|(inside, contents)| StagedFile {
        inside,
        source: Source::Bytes(contents),
        access: Access::ReadOnly,
    });
    SandboxSpec {
        id,
        run: format!("{}/{}/{}", plan.name.collection, plan.name.task, plan.name.id),
        image: ground.image.map(str::to_owned),
        mounts: vec![Mount { host: ground.cli.to_owned(), inside: CLI.to_owned() }],
        files: read_only
            .chain(credential_files(access))
            .chain(assets(plan))
            .chain(former_files(plan))
            .collect(),
        setup,
        stdin,
        argv: std::iter::once(CLI.to_owned()).chain(args).collect(),
        // Ours come last: a runbook's secret must not redirect the agent.
        env: run_env.chain(model_env).chain(runtime_env).collect(),
        cwd: WORK_DIR.to_owned(),
        limits: SandboxLimits {
            memory_bytes: plan.limits.memory_bytes,
            n_cpus: plan.limits.n_cpus,
            n_pids: plan.limits.n_pids,
            // Twice the limit that ends the run, so that the run ends by its own limit first.
            file_bytes: plan.limits.output_bytes.saturating_mul(2),
        },
        network: plan.network.mode(),
    }
}

/// Files that hold a credential.
fn credential_files(access: &ModelAccess) -> impl Iterator<Item = StagedFile> {
    access.files.iter().map(|(path, contents)| StagedFile {
        inside: (*path).to_owned(),
        source: Source::Bytes(contents.expose().as_bytes().to_vec()),
        access: Access::ReadOnly,
    })
}

/// Each file twice: under its own name, and under the name that Jetty's sandboxes give it.
fn assets(plan: &RunPlan) -> impl Iterator<Item = StagedFile> {
    plan.assets.iter().enumerate().flat_map(|(place, asset)| {
        // What was unpacked from an archive keeps its own name alone.
        let is_given = !asset.name.contains('/');
        let numbered = is_given.then(|| numbered_name(plan.name.id.as_str(), place, asset));
        std::iter::once(asset.name.clone()).chain(numbered).map(|name| StagedFile {
            inside: format!("{ASSETS_DIR}/{name}"),
            source: Source::HostFile(asset.host_path.clone()),
            access: Access::Writable,
        })
    })
}

/// What the former run left, where the conversation knows it: session files, results, and the files
/// that it was given under their numbered names. (Under their own names they are assets.)
fn former_files(plan: &RunPlan) -> impl Iterator<Item = StagedFile> {
    let sessions = runtime::sessions_folder(plan.runtime);
    let below = |folder: &str, file: &FormerFile| {
        (format!("{folder}/{}", file.path), file.host_path.clone())
    };
    let files = plan.former.iter().flat_map(move |former| {
        let id = former.name.id.as_str();
        let numbered = former.assets.iter().enumerate().map(move |(place, asset)| {
            let name = numbered_name(id, place, asset);
            (format!("{ASSETS_DIR}/{name}"), asset.host_path.clone())
        });
        let sessions = former.sessions.iter().map(move |file| below(sessions, file));
        let results = former.results.iter().map(move |file| below(RESULTS_DIR, file));
        sessions.chain(results).chain(numbered)
    });
    files.map(|(inside, host)| StagedFile {
        inside,
        source: Source::HostFile(host),
        access: Access::Writable,
    })
}

/// `<run id>.NN.<ext>`.
fn numbered_name(run_id: &str, place: usize, asset: &Asset) -> String {
    match Path::new(&asset.name).extension().and_then(|e| e.to_str()) {
        Some(extension) => format!("{run_id}.{place:02}.{extension}"),
        None => format!("{run_id}.{place:02}"),
    }
}
