//! What a sandbox starts from: snapshots that are built, packages on top, images of any kind, and
//! this machine's own system where there are no images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runbookd::plan::Overrides;
use runbookd::run::RunFailure;
use runbookd::run::RunStatus;
use runbookd::sandbox::{EngineChoice, LibC, SetPriv};
use runbookd::snapshot::{SnapshotSettings, Snapshots};
use runbookd::worker::{Phase, RunUpdate};

use crate::support::{Home, Ran, Scene, Stage, Story, image, tell, tell_within};

/// A build that fetches its packages once on a slow mirror; afterwards the image is there.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// The Python of the local base: no newer one can be had from Debian's packages.
const LOCAL_PYTHON: &str = "3.11";

/// Makes a test of each story that only Docker can tell.
macro_rules! docker_stories {
    ($($story:ident),* $(,)?) => {
        mod docker {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() {
                let story = async |stage: &super::Stage| super::$story(stage).await;
                super::tell_within(super::BUILD_LIMIT, super::EngineChoice::Docker, stringify!($story), story).await;
            })*
        }
    };
}

docker_stories! {
    the_default_snapshot_is_built_for_real_and_the_agent_has_its_tools,
    a_snapshot_is_built_once_and_pruned_when_its_recipe_changed,
    two_runs_at_once_build_a_snapshot_once,
    a_build_that_fails_is_named_with_its_last_lines,
    packages_are_installed_on_top_and_kept,
    an_image_without_bash_is_refused_with_what_to_install,
    an_image_without_setpriv_is_refused_with_what_to_install,
    an_image_without_anything_is_refused_with_all_that_is_missing,
    the_agent_for_musl_works_in_an_image_of_musl,
    a_stop_ends_a_build,
    the_command_line_builds_lists_and_prunes,
}

/// The operator's folder with these snapshots, on the image of the stories.
struct Own {
    folder: tempfile::TempDir,
}

impl Own {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn add(self, name: &str, tools: &str, dockerfile: &str) -> Self {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        let description = format!("description: Made up.\ntools: [{tools}]\n");
        std::fs::write(folder.join("snapshot.yaml"), description).unwrap();
        self
    }

    fn snapshots(&self) -> Snapshots {
        open(Some(self.folder.path()))
    }
}

fn open(folder: Option<&Path>) -> Snapshots {
    Snapshots::open(&SnapshotSettings {
        folder: folder.map(Path::to_owned),
        base_image: Some(image()),
        build_args: BTreeMap::from([("PYTHON".to_owned(), LOCAL_PYTHON.to_owned())]),
        extra_ca: std::env::var_os("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
    })
    .unwrap()
}

/// A word that no other test's image holds, so that no layer of an earlier run is taken.
fn unique(stage: &Stage) -> String {
    format!("{}-{}", stage.owner, uuid::Uuid::new_v4().simple())
}

/// A run on a snapshot.
fn on(snapshot: &str, snapshots: Snapshots, script: &str) -> Story {
    let story = Story::scripted(script);
    let overrides = Overrides { snapshot: Some(snapshot.to_owned()), ..story.overrides.clone() };
    Story { snapshots, overrides, ..story }
}

const DONE: &str = "turns: [{ text: Done. }]";

/// The steps of builds that somebody who watched was told of.
fn steps(scene: &Scene) -> Vec<&str> {
    let begun = scene.updates.iter().filter_map(|update| {
        if let RunUpdate::Phase(Phase::BuildingSnapshot { step, last_line: None, .. }) = update {
            Some(step.as_str())
        } else {
            None
        }
    });
    begun.filter(|step| step.starts_with("Step ")).collect()
}

async fn remove_images(stage: &Stage) {
    stage.engine.prune(&BTreeSet::new()).await.unwrap();
}

async fn the_default_snapshot_is_built_for_real_and_the_agent_has_its_tools(stage: &Stage) {
    let snapshots = open(None);
    let tools = snapshots.tools("python312-uv").join(" ");
    let script = format!(
        r#"
turns:
  - tools:
      - Bash: {{ command: "for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done >/app/results/missing" }}
      - Bash: {{ command: "cd /tmp && uv venv -q v && . v/bin/activate && python3 --version >/app/results/python && node -e 'console.log(1+1)' >/app/results/node" }}
  - text: Done.
"#
    );
    let tag = snapshots.recipes("python312-uv")[0].tag.clone();
    let scene = on("python312-uv", snapshots, &script).run(stage).await;
    assert_eq!(scene.ending(), "completed", "{}", scene.outline());
    assert_eq!(scene.text("results/missing"), "");
    assert!(scene.text("results/python").starts_with(&format!("Python {LOCAL_PYTHON}")));
    assert_eq!(scene.text("results/node"), "2\n");
    let from = &scene.trajectory["step_configs"]["run"]["started_from"];
    assert_eq!((&from["snapshot"], &from["image"]), (&"python312-uv".into(), &tag.into()));
    assert!(from["image_id"].as_str().unwrap().starts_with("sha256:"), "{from}");
    the_default_of_the_command_line_is_the_same_snapshot().await;
}

/// It is built now, so `auto` has no reason to take Bubblewrap.
async fn the_default_of_the_command_line_is_the_same_snapshot() {
    let home = Home::new();
    let mut command = home.command(&["demo", "--json"]);
    command.env_remove("RUNBOOKD_IMAGE").env("RUNBOOKD_BASE_IMAGE", image());
    command.env("RUNBOOKD_BUILD_ARGS", format!("PYTHON={LOCAL_PYTHON}"));
    command.envs(std::env::var_os("NODE_EXTRA_CA_CERTS").map(|ca| ("NODE_EXTRA_CA_CERTS", ca)));
    let ran = Ran::of(command.spawn().unwrap()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("engine docker"), "{ran:?}");
    assert!(!ran.stdout.contains("building"), "it is there: {ran:?}");
    let from = &home.trajectories()[0]["step_configs"]["run"]["started_from"];
    assert_eq!(from["snapshot"], "python312-uv");
}

async fn a_snapshot_is_built_once_and_pruned_when_its_recipe_changed(stage: &Stage) {
    let word = unique(stage);
    let build =
        |text: &str| format!("ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nRUN echo {text} >/made\n");
    let own = Own::new().add("tiny", "", &build(&word));
    let script =
        "turns: [{ tools: [{ Bash: { command: cp /made /app/results/made } }] }, { text: Done. }]";
    let first = on("tiny", own.snapshots(), script).run(stage).await;
    assert_eq!(first.ending(), "completed", "{}", first.outline());
    assert_eq!(first.text("results/made").trim(), word);
    assert_eq!(steps(&first).len(), 7, "three steps and four labels: {:?}", steps(&first));
    assert!(first.text("logs/snapshot.txt").contains("Successfully built"));
    let files = first.trajectory["steps"]["run"]["outputs"].to_string();
    assert!(files.contains("logs/snapshot.txt"), "{files}");

    let second = on("tiny", own.snapshots(), script).run(stage).await;
    assert_eq!((second.ending(), steps(&second)), ("completed", vec![]));
    assert!(!second.folder().join("logs/snapshot.txt").exists());

    let tag = |own: &Own| own.snapshots().recipes("tiny")[0].tag.clone();
    let current = BTreeSet::from([tag(&own)]);
    assert_eq!(stage.engine.prune(&current).await.unwrap(), vec![], "it is current");
    let old = tag(&own);
    let own = own.add("tiny", "", &build("changed"));
    assert_ne!(tag(&own), old);
    let pruned = stage.engine.prune(&BTreeSet::from([tag(&own)])).await.unwrap();
    assert_eq!(pruned.iter().map(|image| &image.name).collect::<Vec<_>>(), [&old]);
    assert!(!stage.engine.has_image(&old).await.unwrap());
}

async fn two_runs_at_once_build_a_snapshot_once(stage: &Stage) {
    let build =
        format!("ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nRUN echo {}; sleep 1\n", unique(stage));
    let own = Own::new().add("slow", "", &build);
    let run = || Story { shares_stage: true, ..on("slow", own.snapshots(), DONE) }.run(stage);
    let (one, two) = tokio::join!(run(), run());
    assert_eq!((one.ending(), two.ending()), ("completed", "completed"));
    let mut built = [steps(&one).len(), steps(&two).len()];
    built.sort_unstable();
    assert_eq!(built, [0, 7]);
    remove_images(stage).await;
}

async fn a_build_that_fails_is_named_with_its_last_lines(stage: &Stage) {
    let build = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo 'the mirror is closed' >&2; exit 7\n";
    let own = Own::new().add("broken", "", build);
    let scene = on("broken", own.snapshots(), DONE).run(stage).await;
    assert_eq!(scene.ending(), "snapshot_failed", "{}", scene.outline());
    let message = scene.trajectory["error"].as_str().unwrap();
    for word in ["`broken`", "the mirror is closed", "returned a non-zero code: 7"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(scene.text("logs/snapshot.txt").contains("the mirror is closed"));

    let own = Own::new().add("afloat", "", "FROM runbookd-no-such-image:1\n");
    let scene = on("afloat", own.snapshots(), DONE).run(stage).await;
    assert_eq!(scene.ending(), "snapshot_failed", "{}", scene.outline());
    let message = scene.trajectory["error"].as_str().unwrap();
    assert!(message.contains("`runbookd-no-such-image:1` is not on this machine"), "{message}");
    assert!(message.contains("RUNBOOKD_BASE_IMAGE names another base"), "{message}");
}

async fn packages_are_installed_on_top_and_kept(stage: &Stage) {
    let story = || Story {
        runbook: "---\napt_packages: [hello]\n---\n# Say hello\n".to_owned(),
        snapshots: open(None),
        ..Story::scripted(
            "turns: [{ tools: [{ Bash: { command: hello >/app/results/hello } }] }, { text: Done. }]",
        )
    };
    let first = story().run(stage).await;
    assert_eq!(first.ending(), "completed", "{}", first.outline());
    assert_eq!(first.text("results/hello"), "Hello, world!\n");
    let config = &first.trajectory["step_configs"]["run"];
    assert_eq!(config["apt_packages"], serde_json::json!(["hello"]));
    let built = config["started_from"]["image"].as_str().unwrap();
    assert!(built.starts_with("runbookd-snapshot/packages:"), "{built}");
    let second = story().run(stage).await;
    assert_eq!((second.ending(), steps(&second)), ("completed", vec![]));
    // Its base is what it was, so it is wanted.
    assert_eq!(stage.engine.prune(&BTreeSet::new()).await.unwrap(), vec![]);
}

/// The words with which an image is refused.
async fn refusal(stage: &Stage, dockerfile: &str) -> String {
    let own = Own::new().add("unfit", "", dockerfile);
    let scene = on("unfit", own.snapshots(), DONE).run(stage).await;
    remove_images(stage).await;
    let RunStatus::Failed(RunFailure::UnfitImage { image, detail }) = &scene.report.status else {
        panic!("{}", scene.outline());
    };
    assert!(image.starts_with("runbookd-snapshot/unfit:"), "{image}");
    let has_begun = |update: &RunUpdate| matches!(update, RunUpdate::Phase(Phase::Provisioning));
    assert!(!scene.updates.iter().any(has_begun), "no sandbox is made");
    detail.clone()
}

async fn an_image_without_bash_is_refused_with_what_to_install(stage: &Stage) {
    let build = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN rm -f /bin/bash /usr/bin/bash\n";
    let detail = refusal(stage, build).await;
    assert_eq!(
        detail,
        "it has no `bash`, without which the agent runs no command: install the package `bash`"
    );
}

async fn an_image_without_setpriv_is_refused_with_what_to_install(stage: &Stage) {
    let build = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN rm -f /usr/bin/setpriv\n";
    let detail = refusal(stage, build).await;
    assert!(
        detail.starts_with("it has no `setpriv`: install the package `util-linux`"),
        "{detail}"
    );
    assert!(!detail.contains(';'), "nothing else is missing: {detail}");
    // As Alpine's: a link to Busybox.
    let build = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n\
        RUN ln -sf /bin/busybox /usr/bin/setpriv; touch /bin/busybox\n";
    let detail = refusal(stage, build).await;
    assert!(detail.starts_with("its `setpriv` is Busybox's"), "{detail}");
}

async fn an_image_without_anything_is_refused_with_all_that_is_missing(stage: &Stage) {
    let build = "FROM scratch\nCOPY Dockerfile /only-this\n";
    let own = Own::new().add("empty", "", build);
    let recipe = own.snapshots().recipes("empty").remove(0);
    assert_eq!(recipe.base, "scratch");
    let detail = refusal(stage, build).await;
    for word in ["`/bin/sh`", "`setpriv`", "neither glibc nor musl", "`bash`"] {
        assert!(detail.contains(word), "{detail}");
    }
}

/// A system of musl, made of Debian's packages. `setpriv` is the only program of glibc in it, and
/// brings its loader along under another name.
const MUSL: &str = r#"ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS parts
SHELL ["/bin/sh", "-euc"]
RUN apt-get update; \
    apt-get install -y --no-install-recommends musl busybox-static bash-static; \
    mkdir -p /image/bin /image/lib /image/usr/bin /image/glibc /image/etc; \
    cp -L /lib/ld-musl-*.so.1 /image/lib/; \
    cp /bin/busybox /image/bin/; \
    for name in cat ls ps sleep env; do ln -s busybox /image/bin/$name; done; \
    cp /bin/bash-static /image/bin/bash; ln -s bash /image/bin/sh; \
    cp -L $(ldd /usr/bin/setpriv | grep -o '/[^ ]*') /usr/bin/setpriv /image/glibc/; \
    printf '#!/bin/sh\nexec /glibc/ld-linux* --library-path /glibc /glibc/setpriv "$@"\n' \
        >/image/usr/bin/setpriv; \
    chmod 755 /image/usr/bin/setpriv
FROM scratch
COPY --from=parts /image /
"#;

async fn the_agent_for_musl_works_in_an_image_of_musl(stage: &Stage) {
    let own = Own::new().add("musl", "", MUSL);
    let script =
        "turns: [{ tools: [{ Bash: { command: ls /lib >/app/results/lib } }] }, { text: Done. }]";
    let scene = on("musl", own.snapshots(), script).run(stage).await;
    assert_eq!(scene.ending(), "completed", "{}", scene.outline());
    assert!(scene.text("results/lib").starts_with("ld-musl-"), "{}", scene.text("results/lib"));
    let tag = own.snapshots().recipes("musl")[0].tag.clone();
    let facts = stage.engine.look_into(Some(&tag)).await.unwrap();
    // The second look is the first one, remembered.
    assert_eq!(stage.engine.look_into(Some(&tag)).await.unwrap(), facts);
    assert_eq!((facts.libc, facts.setpriv), (Some(LibC::Musl), SetPriv::Fit));
}

async fn a_stop_ends_a_build(stage: &Stage) {
    let build =
        format!("ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nRUN echo {}; sleep 500\n", unique(stage));
    let own = Own::new().add("endless", "", &build);
    let story = on("endless", own.snapshots(), DONE);
    let scene = story
        .run_while(stage, async |live| {
            live.hears(|update| {
                matches!(update, RunUpdate::Phase(Phase::BuildingSnapshot { step, .. }) if step.contains("sleep"))
            })
            .await;
            live.stop.cancel.cancel();
        })
        .await;
    assert_eq!(scene.ending(), "cancelled");
}

async fn the_command_line_builds_lists_and_prunes(_: &Stage) {
    let home = Home::new();
    let own = Own::new().add("tiny", "sh", "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo one\n");
    let run = async |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("RUNBOOKD_SNAPSHOTS", own.folder.path()).env("RUNBOOKD_BASE_IMAGE", image());
        let ran = Ran::of(command.spawn().unwrap()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    };
    let is_built = |list: &Ran| {
        let listed = &list.events()[0]["snapshots"];
        let tiny = listed.as_array().unwrap().iter().find(|s| s["name"] == "tiny").unwrap().clone();
        tiny["is_built"].clone()
    };
    assert_eq!(is_built(&run(&["snapshot", "list", "--json"]).await), false);
    let built = run(&["snapshot", "build", "tiny"]).await;
    assert!(built.stdout.contains("RUN echo one") && built.stdout.contains("tiny is built: "));
    let log = home.path().join(".local/state/runbookd/snapshots/tiny.txt");
    assert!(std::fs::read_to_string(log).unwrap().contains("RUN echo one"));
    assert_eq!(is_built(&run(&["snapshot", "list", "--json"]).await), true);
    assert_eq!(run(&["snapshot", "prune"]).await.stdout, "nothing to remove\n");
    std::fs::write(own.folder.path().join("tiny/new"), "another file").unwrap();
    let pruned = run(&["snapshot", "prune"]).await;
    assert!(pruned.stdout.starts_with("removed runbookd-snapshot/tiny:"), "{pruned:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_stands_in_for_a_snapshot_and_it_is_said() {
    let story = async |stage: &Stage| {
        let own = Own::new().add("here", "sh, bash", "FROM x\n");
        let scene = on("here", own.snapshots(), DONE).run(stage).await;
        assert_eq!(scene.ending(), "completed", "{}", scene.outline());
        let note = "Bubblewrap has no images: this machine's own system stands in for the snapshot `here`.";
        assert!(scene.warnings().contains(&note), "{:?}", scene.warnings());
        let from = &scene.trajectory["step_configs"]["run"]["started_from"];
        assert_eq!(
            (&from["engine"], &from["image"]),
            (&"bubblewrap".into(), &serde_json::Value::Null)
        );
    };
    tell(EngineChoice::Bubblewrap, "this machine stands in for a snapshot", story).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_the_tools_of_a_snapshot_is_refused_with_their_names() {
    let story = async |stage: &Stage| {
        let own = Own::new().add("more", "sh, no-such-tool, nor-this", "FROM x\n");
        let scene = on("more", own.snapshots(), DONE).run(stage).await;
        assert_eq!(scene.ending(), "refused", "{}", scene.outline());
        let message = scene.trajectory["error"].as_str().unwrap();
        assert!(message.contains("(no-such-tool, nor-this)"), "{message}");
    };
    tell(EngineChoice::Bubblewrap, "a machine without the tools", story).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_refused_where_there_are_no_images() {
    let story = async |stage: &Stage| {
        let story = Story::scripted(DONE);
        let apt_packages = Some(vec!["hello".to_owned()]);
        let overrides = Overrides { apt_packages, ..story.overrides.clone() };
        let scene = Story { overrides, ..story }.run(stage).await;
        assert_eq!(scene.ending(), "refused", "{}", scene.outline());
        let message = scene.trajectory["error"].as_str().unwrap();
        assert!(message.contains("hello cannot be installed on Bubblewrap"), "{message}");
    };
    tell(EngineChoice::Bubblewrap, "packages without images", story).await;
}

/// Without a registry the default snapshot cannot be built, and the demo runs all the same.
#[tokio::test]
async fn where_the_default_snapshot_cannot_be_built_bubblewrap_takes_its_place() {
    let home = Home::new();
    let mut command = home.command(&["demo", "--json"]);
    command.env_remove("RUNBOOKD_IMAGE").env("RUNBOOKD_BASE_IMAGE", "runbookd-no-such-image:1");
    let ran = Ran::of(command.spawn().unwrap()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let first = ran.events()[0]["text"].as_str().unwrap().to_owned();
    assert!(first.starts_with("engine bubblewrap"), "{first}");
    assert!(first.contains("`runbookd-no-such-image:1`") || first.contains("Docker"), "{first}");
}

#[tokio::test]
async fn the_snapshots_are_listed_for_people_and_for_programs() {
    let home = Home::new();
    let list = home.run(&["snapshot", "list"]).await;
    assert_eq!(list.code, Some(0), "{list:?}");
    assert!(list.stdout.contains("python312-uv (default): Python 3.12 with uv"), "{list:?}");
    let json = home.run(&["snapshot", "list", "--json"]).await;
    let listed = &json.events()[0];
    let names: Vec<_> =
        listed["snapshots"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["prism-playwright", "python312-uv"]);
    assert_eq!(listed["format_version"], 1);
}

#[tokio::test]
async fn a_wrong_snapshot_is_refused_before_anything_is_started() {
    let home = Home::new();
    home.file("a.md", "# A\n");
    home.file("a.yaml", DONE);
    let ran = home.run(&["run", "a.md", "--script", "a.yaml", "--snapshot", "python312uv"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("the nearest is `python312-uv`"), "{ran:?}");
    let built = home.run(&["snapshot", "build", "nothing-like-it"]).await;
    assert_eq!(built.code, Some(2), "{built:?}");
    assert!(built.stderr.contains("there are prism-playwright, python312-uv"), "{built:?}");
}

#[tokio::test]
async fn a_folder_of_snapshots_that_cannot_be_used_is_a_fault_of_the_settings() {
    let home = Home::new();
    let mut command = home.command(&["snapshot", "list"]);
    command.env("RUNBOOKD_SNAPSHOTS", home.path().join("nowhere"));
    let ran = Ran::of(command.spawn().unwrap()).await;
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.stderr.contains("could not read") && ran.stderr.contains("nowhere"), "{ran:?}");
}
