use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::{Expect, expect};

use super::*;

const LIMITS: CollectLimits =
    CollectLimits { n_entries: 1_000, total_bytes: 1_000, file_bytes: 500, depth: 4 };

/// A place with `agent/`, where a test builds, and `to/`, where it collects.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scene.path("agent")).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: usize) {
        let path = self.path("agent").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; bytes]).unwrap();
    }

    fn collect(&self, limits: CollectLimits) -> Collected {
        collect(&AgentFolder::new(self.path("agent"), ""), &self.path("to"), &limits).unwrap()
    }

    fn check(&self, limits: CollectLimits, expected: Expect) {
        let collected = self.collect(limits);
        let files = collected.files.iter().map(|file| format!("{} {}", file.bytes, file.path));
        let skipped =
            collected.skipped.iter().map(|skip| format!("{}: {}", skip.path, skip.reason));
        let end = format!("{} in all, cut off: {}", collected.total_bytes, collected.cut_off);
        let lines: Vec<String> = files.chain(skipped).chain([end]).collect();
        expected.assert_eq(&lines.join("\n"));
    }
}

#[test]
fn an_agent_that_wrote_nothing_leaves_nothing() {
    let scene = Scene::new();
    scene.check(LIMITS, expect!["0 in all, cut off: false"]);
    let gone = AgentFolder::new(scene.path("agent"), "results");
    assert_eq!(collect(&gone, &scene.path("to"), &LIMITS).unwrap(), Collected::default());
}

#[test]
fn files_are_bounded_each_and_together() {
    let scene = Scene::new();
    for (name, bytes) in [("a", 500), ("b", 501), ("c", 300), ("d", 300), ("e", 200)] {
        scene.write(name, bytes);
    }
    scene.check(
        LIMITS,
        expect![[r#"
                500 a
                300 c
                200 e
                b: it is too large (501 bytes)
                d: the files together are too large
                1000 in all, cut off: false"#]],
    );
}

#[test]
fn a_deep_tree_is_cut_where_it_gets_too_deep() {
    let scene = Scene::new();
    scene.write("1/2/3/file", 1);
    scene.write("1/2/3/4/file", 1);
    scene.check(
        LIMITS,
        expect![[r#"
                1 1/2/3/file
                1/2/3/4: it lies too deep
                1 in all, cut off: false"#]],
    );
}

#[test]
fn many_files_are_looked_at_up_to_the_limit() {
    let scene = Scene::new();
    for n in 0..50 {
        scene.write(&format!("f{n:02}"), 1);
    }
    let collected = scene.collect(CollectLimits { n_entries: 20, ..LIMITS });
    assert_eq!((collected.files.len(), collected.cut_off), (20, true));
}

#[test]
fn a_long_list_of_what_was_left_out_is_counted() {
    let scene = Scene::new();
    for n in 0..MAX_LISTED + 10 {
        symlink("/", scene.path("agent").join(n.to_string())).unwrap();
    }
    let collected = scene.collect(LIMITS);
    assert_eq!((collected.skipped.len(), collected.n_skipped), (MAX_LISTED, MAX_LISTED + 10));
}

#[test]
fn a_name_that_is_no_text_is_written_as_one() {
    let scene = Scene::new();
    let long = vec![0xff; 100];
    for name in [&b"caf\xe9"[..], b"caf%E9", b"\xf0\x9f\xa6\x80", b"100%", &long] {
        fs::write(scene.path("agent").join(OsStr::from_bytes(name)), "x").unwrap();
    }
    scene.check(
        LIMITS,
        expect![[r#"
                1 100%
                1 caf%E9
                1 🦀
                caf%E9: another file has its name
                %FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF%FF: its name is too long
                3 in all, cut off: false"#]],
    );
}

#[test]
fn a_link_in_the_place_of_the_folder_is_not_followed() {
    let scene = Scene::new();
    scene.write("secret/key", 3);
    symlink(scene.path("agent/secret"), scene.path("agent/results")).unwrap();
    symlink(scene.path("agent"), scene.path("agent/logs")).unwrap();
    for below in ["results", "logs/secret"] {
        let from = AgentFolder::new(scene.path("agent"), below);
        let collected = collect(&from, &scene.path("to"), &LIMITS).unwrap();
        let skipped = vec![Skipped { path: ".".to_owned(), reason: Skip::NotAFolder }];
        assert_eq!(collected, Collected { skipped, n_skipped: 1, ..Collected::default() });
    }
}

#[test]
fn devices_and_foreign_hard_links_are_left_out() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root makes devices and gives files away");
        return;
    }
    let scene = Scene::new();
    let agent = scene.path("agent");
    let mode = Mode::from_raw_mode(0o666);
    // The memory device: to open it would be harm enough.
    let memory = rustix::fs::makedev(1, 1);
    rustix::fs::mknodat(CWD, agent.join("mem"), FileType::CharacterDevice, mode, memory).unwrap();
    let foreign = scene.path("foreign");
    fs::write(&foreign, "secret").unwrap();
    std::os::unix::fs::chown(&agent, Some(59_999), None).unwrap();
    fs::hard_link(&foreign, agent.join("foreign")).unwrap();
    scene.write("own", 2);
    std::os::unix::fs::chown(agent.join("own"), Some(59_999), None).unwrap();
    fs::hard_link(agent.join("own"), agent.join("twin")).unwrap();
    scene.check(
        LIMITS,
        expect![[r#"
                2 own
                2 twin
                foreign: it is a hard link to another user's file
                mem: it is a pipe, a socket or a device
                4 in all, cut off: false"#]],
    );
    assert_eq!(fs::metadata(scene.path("to/own")).unwrap().uid(), 0);
}

#[test]
fn what_is_already_there_is_not_written_through() {
    let scene = Scene::new();
    scene.write("a", 3);
    scene.write("b/c", 3);
    fs::create_dir(scene.path("to")).unwrap();
    fs::write(scene.path("outside"), "stays").unwrap();
    symlink(scene.path("outside"), scene.path("to/a")).unwrap();
    symlink(scene.path("agent"), scene.path("to/b")).unwrap();
    scene.check(
        LIMITS,
        expect![[r#"
                a: another file has its name
                b: another file has its name
                0 in all, cut off: false"#]],
    );
    assert_eq!(fs::read_to_string(scene.path("outside")).unwrap(), "stays");
}

/// A folder that is exchanged for a link and back, without pause, never leads outside.
#[test]
fn a_folder_that_changes_meanwhile_does_not_lead_outside() {
    let scene = Scene::new();
    let (folder, link) = (scene.path("agent/folder"), scene.path("link"));
    fs::create_dir(scene.path("outside")).unwrap();
    fs::write(scene.path("outside/file"), "secret").unwrap();
    symlink(scene.path("outside"), &link).unwrap();
    scene.write("folder/file", 2);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &folder, CWD, &link, exchange).unwrap();
            }
        });
        let mut read = Vec::new();
        for round in 0..300 {
            let to = scene.path(&format!("to/{round}"));
            let collected = collect(&AgentFolder::new(scene.path("agent"), ""), &to, &LIMITS);
            let files = collected.into_iter().flat_map(|collected| collected.files);
            read.extend(files.map(|file| fs::read_to_string(to.join(file.path)).unwrap()));
        }
        // Before any assertion: the other thread waits for it.
        done.store(true, Ordering::Relaxed);
        assert!(!read.is_empty());
        read.retain(|text| text != "xx");
        assert_eq!(read, Vec::<String>::new());
    });
}
