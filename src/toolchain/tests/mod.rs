//! The room as its callers see it, with a registry on this machine and packages of a few bytes.

mod examine;
mod registry;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use expect_test::{Expect, expect};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Notify;

use self::registry::{EXECUTABLE, Package, Registry, Reply, integrity};
use super::fetch::Limits;
use super::lock::CacheLock;
use super::pins::{Content, Pin};
use super::*;
use crate::secret::Secret;

/// Short where a test waits for a limit, long where a limit would only make a test flaky.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(20),
    stall: Duration::from_secs(20),
    attempt: Duration::from_secs(20),
    lock: Duration::from_secs(20),
    pauses: &[Duration::from_millis(1), Duration::from_millis(1)],
};

/// A cache, a package that is pinned, and the toolchain that is tested with them.
struct Scene {
    cache: TempDir,
    pin: Pin,
    toolchain: Toolchain,
}

impl Scene {
    fn new(registry: &str, pin: Pin) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let mut toolchain = Toolchain::new(settings(cache.path(), registry)).unwrap();
        toolchain.limits = LIMITS;
        Self { cache, pin, toolchain }
    }

    async fn fetch(&self) -> Result<InstalledCli, ToolchainError> {
        self.toolchain.fetch_pin(self.pin.clone(), &|_| ()).await
    }

    fn place(&self) -> PathBuf {
        self.cache.path().join("claude-code/2.1.126/linux-x64/claude")
    }

    fn lock(&self) -> PathBuf {
        self.cache.path().join("claude-code-2.1.126-linux-x64.lock")
    }

    fn installed(&self) -> InstalledCli {
        InstalledCli { path: self.place(), version: "2.1.126" }
    }

    /// Puts a file where the executable belongs.
    fn put(&self, content: &[u8], mode: u32) {
        fs::create_dir_all(self.place().parent().unwrap()).unwrap();
        fs::write(self.place(), content).unwrap();
        fs::set_permissions(self.place(), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Every file of the cache with its mode and content.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = vec![self.cache.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
                let content = String::from_utf8(fs::read(&path).unwrap()).unwrap();
                let name = path.strip_prefix(self.cache.path()).unwrap().display().to_string();
                files.push(format!("{name} {mode:o} {content:?}"));
            }
        }
        files.sort();
        files
    }

    /// Fails unless the cache holds the right executable, the lock file, and nothing else.
    fn check_cache(&self) {
        assert_eq!(
            self.files(),
            [
                r#"claude-code-2.1.126-linux-x64.lock 600 """#,
                r#"claude-code/2.1.126/linux-x64/claude 555 "made-up agent""#
            ]
        );
    }

    /// Fails if anything but the lock file is in the cache.
    fn check_nothing_kept(&self) {
        assert_eq!(self.files(), [r#"claude-code-2.1.126-linux-x64.lock 600 """#]);
    }
}

fn settings(cache_dir: &Path, registry: &str) -> ToolchainSettings {
    ToolchainSettings {
        cache_dir: cache_dir.to_owned(),
        registry: registry.parse().unwrap(),
        registry_token: None,
        extra_ca: None,
    }
}

/// What an error says, and its sources.
fn chain(error: &ToolchainError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What an error says, and what to do about it.
fn told(error: &ToolchainError) -> String {
    format!("{}\n{}\n", chain(error), error.mend())
}

/// Fetches with a cold cache that must fail: what each says, and after how many requests.
async fn check_failures(
    cases: impl IntoIterator<Item = (&str, Package, Reply)>,
    n_requests: usize,
    expected: Expect,
) {
    let mut all = String::new();
    for (name, package, reply) in cases {
        let registry = Registry::start(&package, vec![reply]).await;
        let mut scene = Scene::new(&registry.url, package.pin());
        scene.toolchain.limits.stall = Duration::from_millis(300);
        let error = chain(&scene.fetch().await.unwrap_err());
        assert_eq!(registry.requests().len(), n_requests, "{name}: {error}");
        scene.check_nothing_kept();
        // A tarball's length and hash are the compressor's choice.
        let Content { n_bytes, hash } = package.pin().tarball;
        let url = package.pin().tarball_url(&registry.url.parse().unwrap());
        let error = error
            .replace(url.as_str(), "<url>")
            .replace(&hash, "<pinned hash>")
            .replace(&integrity(&registry::other_content(n_bytes)), "<other hash>")
            .replace(&format!("{} of {n_bytes} bytes", n_bytes / 2), "<half> of <all> bytes")
            .replace(&format!("{n_bytes} bytes"), "<all> bytes");
        all.push_str(&format!("{name}: {error}\n"));
    }
    expected.assert_eq(&all);
}

#[tokio::test]
async fn a_cold_cache_is_filled_and_a_warm_one_needs_no_registry() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Package]).await;
    let scene = Scene::new(&registry.url, package.pin());
    let seen = Mutex::new(Vec::new());
    let fetched = scene
        .toolchain
        .fetch_pin(package.pin(), &|progress| seen.lock().unwrap().push(progress))
        .await;
    assert_eq!(fetched.unwrap(), scene.installed());
    scene.check_cache();
    let total_bytes = package.pin().tarball.n_bytes;
    assert_eq!(
        seen.into_inner().unwrap(),
        [
            FetchProgress::Downloading { received_bytes: 0, total_bytes },
            FetchProgress::Downloading { received_bytes: total_bytes, total_bytes },
            FetchProgress::Unpacking,
        ]
    );
    assert_eq!(
        registry.stop().await,
        [(
            "/npm/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz"
                .to_owned(),
            None
        )]
    );

    assert_eq!(scene.fetch().await.unwrap(), scene.installed());
}

#[tokio::test]
async fn a_failing_or_broken_registry_is_tried_again() {
    for trouble in [Reply::Status(503), Reply::Truncated, Reply::ShortWithoutLength] {
        let package = Package::good();
        let replies = vec![trouble.clone(), trouble.clone(), Reply::Package];
        let registry = Registry::start(&package, replies).await;
        let scene = Scene::new(&registry.url, package.pin());
        assert_eq!(scene.fetch().await.unwrap(), scene.installed(), "{trouble:?}");
        assert_eq!(registry.requests().len(), 3, "{trouble:?}");
        scene.check_cache();
    }
}

#[tokio::test]
async fn two_fetches_at_once_download_once() {
    let package = Package::good();
    let waits = Arc::new(Notify::new());
    let registry = Registry::start(&package, vec![Reply::After(Arc::clone(&waits))]).await;
    let scene = Scene::new(&registry.url, package.pin());
    // A toolchain of its own shares nothing with the first but the cache, as another process would.
    let mut other = Toolchain::new(settings(scene.cache.path(), &registry.url)).unwrap();
    other.limits = LIMITS;
    // The answer comes once one of the two has said that it waits for the other.
    let progress = |progress| {
        if progress == FetchProgress::WaitingForOther {
            waits.notify_one();
        }
    };
    let (one, two) = tokio::join!(
        scene.toolchain.fetch_pin(package.pin(), &progress),
        other.fetch_pin(package.pin(), &progress),
    );
    assert_eq!((one.unwrap(), two.unwrap()), (scene.installed(), scene.installed()));
    assert_eq!(registry.requests().len(), 1);
    scene.check_cache();
}

#[tokio::test]
async fn a_fetch_waits_for_another_process_and_takes_what_it_installed() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Package]).await;
    let scene = Scene::new(&registry.url, package.pin());
    let ready = scene.cache.path().join("ready");
    fs::write(&ready, EXECUTABLE).unwrap();
    let mut other = tokio::process::Command::new("flock")
        .arg(scene.lock())
        .args(["sh", "-c", r#"echo locked; read -r go; install -D -m 555 "$0" "$1"; rm "$0""#])
        .args([&ready, &scene.place()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(other.stdout.take().unwrap()).lines();
    assert_eq!(said.next_line().await.unwrap().as_deref(), Some("locked"));
    let stdin = other.stdin.take().unwrap().into_owned_fd().unwrap();
    let stdin = Mutex::new(fs::File::from(stdin));

    let progress = |progress| {
        assert_eq!(progress, FetchProgress::WaitingForOther);
        stdin.lock().unwrap().write_all(b"go\n").unwrap();
    };
    let fetched = scene.toolchain.fetch_pin(package.pin(), &progress).await;
    assert_eq!(fetched.unwrap(), scene.installed());
    assert!(other.wait().await.unwrap().success());
    assert_eq!(registry.requests(), []);
}

#[tokio::test]
async fn a_lock_that_is_never_given_back_ends_the_wait() {
    let mut scene = Scene::new("http://127.0.0.1:9", Package::good().pin());
    scene.toolchain.limits.lock = Duration::from_millis(20);
    let _held = CacheLock::acquire(&scene.lock(), Duration::ZERO, &|_| ()).await.unwrap();
    let error = scene.fetch().await.unwrap_err();
    expect![[r"
        another process has held `<lock>` for 0.02 s
        See which process holds it (`fuser <lock>`) and stop that process if it hangs.
    "]]
    .assert_eq(&told(&error).replace(&scene.lock().display().to_string(), "<lock>"));
}

#[tokio::test]
async fn a_fetch_that_is_dropped_leaves_neither_files_nor_the_lock() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Stalled, Reply::Package]).await;
    let scene = Scene::new(&registry.url, package.pin());
    let started = Notify::new();
    let progress = |progress| {
        if matches!(progress, FetchProgress::Downloading { received_bytes: 1.., .. }) {
            started.notify_one();
        }
    };
    tokio::select! {
        ended = scene.toolchain.fetch_pin(package.pin(), &progress) => panic!("{ended:?}"),
        () = started.notified() => {}
    }
    scene.check_nothing_kept();
    assert_eq!(scene.fetch().await.unwrap(), scene.installed());
    scene.check_cache();
}

#[tokio::test]
async fn a_fetch_that_is_dropped_while_it_unpacks_holds_the_lock_until_it_is_done() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Package]).await;
    let scene = Scene::new(&registry.url, package.pin());
    let unpacking = Notify::new();
    let progress = |progress| {
        if progress == FetchProgress::Unpacking {
            unpacking.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = unpacking.notified() => {}
        // A few bytes are sometimes unpacked before they can be abandoned.
        ended = scene.toolchain.fetch_pin(package.pin(), &progress) => {
            assert_eq!(ended.unwrap(), scene.installed());
        }
    }
    assert_eq!(scene.fetch().await.unwrap(), scene.installed());
    assert_eq!(registry.requests().len(), 1);
    // The lock is free when the abandoned work has cleared up behind itself.
    CacheLock::acquire(&scene.lock(), LIMITS.lock, &|_| ()).await.unwrap();
    scene.check_cache();
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleared_and_never_taken() {
    for name in ["tgz.partial", "partial"] {
        let package = Package::good();
        let registry = Registry::start(&package, vec![Reply::Package]).await;
        let scene = Scene::new(&registry.url, package.pin());
        let stale = scene.cache.path().join(format!("claude-code-2.1.126-linux-x64.{name}"));
        fs::write(&stale, "half a file").unwrap();
        fs::set_permissions(&stale, fs::Permissions::from_mode(0o555)).unwrap();
        assert_eq!(scene.fetch().await.unwrap(), scene.installed(), "{name}");
        scene.check_cache();
    }
}

#[tokio::test]
async fn a_file_put_in_place_by_hand_is_taken_if_it_is_the_right_one() {
    let altered = EXECUTABLE.to_ascii_uppercase();
    for (content, mode, n_requests) in [
        (EXECUTABLE, 0o644, 0),
        (EXECUTABLE, 0o755, 0),
        (altered.as_slice(), 0o755, 1),
        (b"another length".as_slice(), 0o555, 1),
        (b"".as_slice(), 0o555, 1),
    ] {
        let package = Package::good();
        let registry = Registry::start(&package, vec![Reply::Package]).await;
        let scene = Scene::new(&registry.url, package.pin());
        scene.put(content, mode);
        assert_eq!(scene.fetch().await.unwrap(), scene.installed());
        assert_eq!(registry.requests().len(), n_requests, "{content:?} {mode:o}");
        scene.check_cache();
    }
}

#[tokio::test]
async fn a_link_in_the_executables_place_is_replaced() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Package]).await;
    let scene = Scene::new(&registry.url, package.pin());
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::write(&elsewhere, EXECUTABLE).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o555)).unwrap();
    fs::create_dir_all(scene.place().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, scene.place()).unwrap();
    assert_eq!(scene.fetch().await.unwrap(), scene.installed());
    assert!(fs::symlink_metadata(scene.place()).unwrap().is_file());
    assert_eq!(registry.requests().len(), 1);
}

#[tokio::test]
async fn verify_reads_what_is_installed() {
    let scene = Scene::new("http://127.0.0.1:9", Package::good().pin());
    let verify = || scene.toolchain.verify_pin(scene.pin.clone());
    let cold = verify().await.unwrap_err();
    assert!(matches!(cold, ToolchainError::NotInstalled { path } if path == scene.place()));
    scene.put(EXECUTABLE, 0o555);
    assert_eq!(verify().await.unwrap(), scene.installed());
    fs::remove_file(scene.place()).unwrap();
    scene.put(&EXECUTABLE.to_ascii_uppercase(), 0o555);
    assert_eq!(scene.fetch().await.unwrap(), scene.installed(), "its size and mode are right");
    let altered = verify().await.unwrap_err();
    expect![[r#"
        `<place>` is not the pinned agent CLI: 785d72f1cbab4e8afc5607aac06af30716f7ba238aff78f1be5896a34aaef33c is pinned, but it is 4581a84e0cf09d4ec1ef4f22643e558223da4f70d3c7a8f916fa0c9e8bb868c2
        Delete `<place>` and fetch it again; find out who changed it.
    "#]]
    .assert_eq(&told(&altered).replace(&scene.place().display().to_string(), "<place>"));
}

#[tokio::test]
async fn a_token_goes_to_the_registry_and_not_where_it_redirects() {
    let package = Package::good();
    let mirror = Registry::start(&package, vec![Reply::Package]).await;
    let target = package.pin().tarball_url(&mirror.url.parse().unwrap());
    let registry = Registry::start(&package, vec![Reply::RedirectTo(target.to_string())]).await;
    let cache = tempfile::tempdir().unwrap();
    let token = Secret::new("npm_made-up-token".to_owned());
    let settings =
        ToolchainSettings { registry_token: Some(token), ..settings(cache.path(), &registry.url) };
    let toolchain = Toolchain::new(settings).unwrap();
    toolchain.fetch_pin(package.pin(), &|_| ()).await.unwrap();
    let path = target.path().to_owned();
    let bearer = "Bearer npm_made-up-token".to_owned();
    assert_eq!(registry.requests(), [(path.clone(), Some(bearer))]);
    assert_eq!(mirror.requests(), [(path, None)]);
}

#[test]
fn settings_that_cannot_work_are_refused_without_being_shown() {
    let refused = |registry: &str, token: Option<&str>| {
        let settings = ToolchainSettings {
            registry_token: token.map(|token| Secret::new(token.to_owned())),
            ..settings(Path::new("/cache"), registry)
        };
        Toolchain::new(settings).map_err(|error| error.to_string()).err()
    };
    let good = "https://registry.npmjs.org/";
    assert_eq!(refused(good, Some("npm_made-up-token")), None);
    for (registry, token, expected) in [
        ("file:///npm", None, "the URL of the npm registry is neither http nor https"),
        (
            "https://me:made-up@npm.example/",
            None,
            "the URL of the npm registry holds a user name or a password",
        ),
        (
            "https://npm.example/?token=made-up",
            None,
            "the URL of the npm registry holds a `?` or a `#`",
        ),
        (
            good,
            Some("npm_made-up\n"),
            "the token of the npm registry holds a space, a line break or another such character",
        ),
    ] {
        assert_eq!(refused(registry, token).as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn an_extra_ca_bundle_without_certificates_is_refused() {
    let package = Package::good();
    let scene = Scene::new("http://127.0.0.1:9", package.pin());
    let bundle = scene.cache.path().join("ca.pem");
    let fetch = async || {
        let settings = ToolchainSettings {
            extra_ca: Some(bundle.clone()),
            ..settings(scene.cache.path(), "https://npm.example")
        };
        let toolchain = Toolchain::new(settings).unwrap();
        toolchain.fetch_pin(package.pin(), &|_| ()).await.unwrap_err()
    };
    assert!(matches!(fetch().await, ToolchainError::ExtraCa { path, .. } if path == bundle));
    fs::write(&bundle, "no certificate").unwrap();
    assert!(matches!(fetch().await, ToolchainError::EmptyExtraCa { path } if path == bundle));
    scene.put(EXECUTABLE, 0o555);
    assert_eq!(scene.fetch().await.unwrap(), scene.installed());
}

#[tokio::test]
async fn a_cold_cache_without_a_registry_says_what_to_do() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![]).await;
    let url = registry.url.clone();
    registry.stop().await;
    let scene = Scene::new(&url, package.pin());
    let error = scene.fetch().await.unwrap_err();
    let text = told(&error)
        .replace(url.trim_end_matches('/'), "<registry>")
        .replace(&scene.cache.path().display().to_string(), "<cache>");
    expect![[r#"
        could not download <registry>/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz: the registry could not be reached: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)
        Check the network, the proxy variables (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and, behind a proxy that opens TLS, the extra CA bundle. The registry in use is <registry>/ (npm_config_registry). Without it, put the file `package/claude` of the package at `<cache>/claude-code/2.1.126/linux-x64/claude`; its hash is checked.
    "#]].assert_eq(&text);
    scene.check_nothing_kept();
}

#[tokio::test]
async fn a_wrong_file_is_refused_at_once() {
    let cases = [
        ("other content", Package::good(), Reply::OtherContent),
        ("another length", Package::good(), Reply::OtherLength),
        ("more than is pinned", Package::good(), Reply::LongerWithoutLength),
    ];
    check_failures(cases, 1, expect![[r#"
        other content: could not download <url>: <pinned hash> is pinned, but this file is <other hash>
        another length: could not download <url>: a file of <all> bytes is pinned, but this one has 26
        more than is pinned: could not download <url>: a file of <all> bytes is pinned, but this one is longer
    "#]]).await;
}

#[tokio::test]
async fn an_answer_that_a_new_try_cannot_mend_ends_the_fetch() {
    let cases = [
        ("401", Package::good(), Reply::Status(401)),
        ("403", Package::good(), Reply::Status(403)),
        ("404", Package::good(), Reply::Status(404)),
        ("204", Package::good(), Reply::Status(204)),
    ];
    check_failures(
        cases,
        1,
        expect![[r#"
        401: could not download <url>: the registry refused access with HTTP 401
        403: could not download <url>: the registry refused access with HTTP 403
        404: could not download <url>: the registry does not have this package
        204: could not download <url>: the registry answered with HTTP 204
    "#]],
    )
    .await;
}

#[tokio::test]
async fn trouble_that_stays_ends_the_fetch_after_a_few_tries() {
    let cases = [
        ("500", Package::good(), Reply::Status(500)),
        ("truncated", Package::good(), Reply::Truncated),
        ("short", Package::good(), Reply::ShortWithoutLength),
        ("stalled", Package::good(), Reply::Stalled),
        ("silent", Package::good(), Reply::After(Arc::default())),
    ];
    check_failures(cases, 3, expect![[r#"
        500: could not download <url>: the registry failed with HTTP 500
        truncated: could not download <url>: the transfer broke off after <half> of <all> bytes: error decoding response body: request or response body error: request or response body error: error reading a body from connection: end of file before message length reached
        short: could not download <url>: the transfer broke off after <half> of <all> bytes
        stalled: could not download <url>: the transfer broke off after <half> of <all> bytes: error decoding response body: request or response body error: request or response body error: operation timed out
        silent: could not download <url>: the registry could not be reached: error sending request: operation timed out
    "#]]).await;
}

#[tokio::test]
async fn a_package_with_the_right_hash_and_a_strange_content_is_not_installed() {
    let cases = [
        ("symbolic link", Package::with_symlink()),
        ("hard link", Package::with_hard_link()),
        ("too large", Package::with_executable(b"made-up agent and more")),
        ("too small", Package::with_executable(b"made-up")),
        ("other content", Package::with_executable(b"MADE-UP AGENT")),
        ("elsewhere", Package::without_executable()),
        ("no tarball", Package::without_gzip()),
        ("a bomb beside it", Package::with_large_stranger()),
    ]
    .map(|(name, package)| (name, package, Reply::Package));
    check_failures(cases, 1, expect![[r#"
        symbolic link: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: it is not a regular file
        hard link: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: it is not a regular file
        too large: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: 13 bytes are pinned, but it has 22
        too small: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: 13 bytes are pinned, but it has 7
        other content: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: 785d72f1cbab4e8afc5607aac06af30716f7ba238aff78f1be5896a34aaef33c is pinned, but it is 4581a84e0cf09d4ec1ef4f22643e558223da4f70d3c7a8f916fa0c9e8bb868c2
        elsewhere: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: it is not in the tarball
        no tarball: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: the tarball cannot be read: invalid gzip header
        a bomb beside it: could not unpack `package/claude` of @anthropic-ai/claude-code-linux-x64 2.1.126: the tarball cannot be read: unexpected EOF during skip
    "#]]).await;
}

#[test]
fn a_full_disk_is_told_apart() {
    let told =
        |kind| told(&ToolchainError::cache(Path::new("/cache/x"), std::io::Error::from(kind)));
    expect![[r#"
        there is no space left for `/cache/x` in the cache of agent CLIs: no storage space
        Free about 400 MB there, or set another cache folder.
    "#]]
    .assert_eq(&told(std::io::ErrorKind::StorageFull));
    expect![[r#"
        could not use `/cache/x` in the cache of agent CLIs: permission denied
        Check that the user who runs this may read and write `/cache/x` and the folders above it.
    "#]]
    .assert_eq(&told(std::io::ErrorKind::PermissionDenied));
}
