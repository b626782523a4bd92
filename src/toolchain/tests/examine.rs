//! What is said about the cache and the registry before a run.

use std::fs;

use expect_test::expect;

use super::super::*;
use super::registry::{EXECUTABLE, Package, Registry, Reply};
use super::{Scene, settings};
use crate::run::Check;

/// The checks as lines, with what differs from one test to the next taken out.
fn told(scene: &Scene, url: &str, checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, status, found, mend, notes: _ } in checks {
        text.push_str(&format!("{name} {status:?}: {found}\n"));
        text.extend(mend.iter().map(|mend| format!("  {mend}\n")));
    }
    text.replace(scene.cache.path().to_str().unwrap(), "CACHE").replace(url, "REGISTRY/")
}

async fn examined(scene: &Scene, url: &str) -> String {
    told(scene, url, &scene.toolchain.examine_pin(scene.pin.clone()).await)
}

#[tokio::test]
async fn what_lies_in_the_cache_decides_what_the_next_run_does() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Package]).await;
    let scene = Scene::new(&registry.url, package.pin());
    let mut text = format!("nothing\n{}", examined(&scene, &registry.url).await);
    assert_eq!(scene.files(), [""; 0], "looking writes nothing");
    scene.put(b"cut", 0o555);
    text.push_str(&format!("cut short\n{}", examined(&scene, &registry.url).await));
    let other = vec![b'x'; EXECUTABLE.len()];
    fs::remove_file(scene.place()).unwrap();
    scene.put(&other, 0o555);
    text.push_str(&format!("another\n{}", examined(&scene, &registry.url).await));
    fs::remove_file(scene.place()).unwrap();
    scene.put(EXECUTABLE, 0o555);
    text.push_str(&format!("intact\n{}", examined(&scene, &registry.url).await));
    expect![[r#"
        nothing
        agent-cli Warning: the agent CLI is not installed at `CACHE/claude-code/2.1.126/linux-x64/claude`
          Nothing to do: the first run downloads claude-code 2.1.126 (1 MB, 1 MB unpacked); `runbookd demo` is one.
        registry Ok: REGISTRY/ answers and has claude-code 2.1.126 (certificates: the system's)
        cut short
        agent-cli Warning: `CACHE/claude-code/2.1.126/linux-x64/claude` is not the pinned agent CLI: 785d72f1cbab4e8afc5607aac06af30716f7ba238aff78f1be5896a34aaef33c is pinned, but it is 378bfce5cda2599a6cda399f1cacef861e4e575ec794744dcf0e55e9c4780633
          Nothing to do: the first run downloads claude-code 2.1.126 (1 MB, 1 MB unpacked); `runbookd demo` is one.
        registry Ok: REGISTRY/ answers and has claude-code 2.1.126 (certificates: the system's)
        another
        agent-cli Problem: `CACHE/claude-code/2.1.126/linux-x64/claude` is not the pinned agent CLI: 785d72f1cbab4e8afc5607aac06af30716f7ba238aff78f1be5896a34aaef33c is pinned, but it is ea156a2c16eb8f24fe98ec6a36b3cb23229dfdb192c100f49828704fed25e43e
          Delete `CACHE/claude-code/2.1.126/linux-x64/claude` and fetch it again; find out who changed it.
        registry Ok: REGISTRY/ answers and has claude-code 2.1.126 (certificates: the system's)
        intact
        agent-cli Ok: claude-code 2.1.126 (linux-x64) is intact at CACHE/claude-code/2.1.126/linux-x64/claude (1 MB)
        registry Ok: REGISTRY/ answers and has claude-code 2.1.126 (certificates: the system's)
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn a_registry_is_needed_only_where_the_cache_is_empty() {
    let mut text = String::new();
    for reply in [Reply::Status(403), Reply::Status(404), Reply::Status(503), Reply::OtherLength] {
        let package = Package::good();
        let registry = Registry::start(&package, vec![reply.clone()]).await;
        let scene = Scene::new(&registry.url, package.pin());
        let line =
            |text: &str| text.lines().find(|l| l.starts_with("registry")).unwrap().to_owned();
        let length = package.pin().tarball.n_bytes;
        let cold = line(&examined(&scene, &registry.url).await);
        let cold = cold.replace(&format!("{length} bytes"), "<all> bytes");
        scene.put(EXECUTABLE, 0o555);
        let warm = line(&examined(&scene, &registry.url).await);
        assert!(warm.starts_with("registry Warning"), "{warm}");
        text.push_str(&format!("{cold}\n"));
        assert_eq!(registry.requests().len(), 2, "each look asks once");
    }
    expect![[r#"
        registry Problem: could not download REGISTRY/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz: the registry refused access with HTTP 403 (certificates: the system's)
        registry Problem: could not download REGISTRY/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz: the registry does not have this package (certificates: the system's)
        registry Problem: could not download REGISTRY/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz: the registry failed with HTTP 503 (certificates: the system's)
        registry Problem: could not download REGISTRY/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz: a file of <all> bytes is pinned, but this one has 26 (certificates: the system's)
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn nobody_at_the_registry_and_a_broken_bundle_are_told_apart() {
    let package = Package::good();
    let registry = Registry::start(&package, vec![Reply::Package]).await;
    let mut scene = Scene::new(&registry.url, package.pin());
    let bundle = scene.cache.path().join("bundle.pem");
    fs::write(&bundle, "no certificate").unwrap();
    let given =
        ToolchainSettings { extra_ca: Some(bundle), ..settings(scene.cache.path(), &registry.url) };
    scene.toolchain = Toolchain::new(given).unwrap();
    let mut text = examined(&scene, &registry.url).await;
    assert_eq!(registry.stop().await, [], "without its bundle nobody is asked");
    let dead = "http://127.0.0.1:1/";
    let scene = Scene::new(dead, package.pin());
    text.push_str(&examined(&scene, dead).await);
    expect![[r#"
        agent-cli Warning: the agent CLI is not installed at `CACHE/claude-code/2.1.126/linux-x64/claude`
          Nothing to do: the first run downloads claude-code 2.1.126 (1 MB, 1 MB unpacked); `runbookd demo` is one.
        registry Problem: the extra CA bundle `CACHE/bundle.pem` holds no certificate (certificates: the system's and those of CACHE/bundle.pem)
          Put PEM certificates into `CACHE/bundle.pem`, or take the setting away.
        agent-cli Warning: the agent CLI is not installed at `CACHE/claude-code/2.1.126/linux-x64/claude`
          Nothing to do: the first run downloads claude-code 2.1.126 (1 MB, 1 MB unpacked); `runbookd demo` is one.
        registry Problem: could not download REGISTRY/@anthropic-ai/claude-code-linux-x64/-/claude-code-linux-x64-2.1.126.tgz: the registry could not be reached: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111) (certificates: the system's)
          Check the network, the proxy variables (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) and, behind a proxy that opens TLS, the extra CA bundle. The registry in use is REGISTRY/ (npm_config_registry). Without it, put the file `package/claude` of the package at `CACHE/claude-code/2.1.126/linux-x64/claude`; its hash is checked.
    "#]].assert_eq(&text);
}
