//! What the Docker daemon is like, or why it does not answer, and what would mend it.

use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;

use bollard::Docker as Client;
use bollard::models::SystemInfo;
use bollard::query_parameters::ListImagesOptions;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::super::examine::{Look, Ready, Standing};
use super::super::host_folder::EngineKind;
use super::super::settings::{EngineSettings, state_mark};
use super::{Docker, HELLO_LIMIT, local_socket, status, unlimited};
use crate::run::Check;

/// The engine itself.
pub(in super::super) const CHECK: &str = "docker";
const IMAGE: &str = "image";

/// How many images are named. They are a reminder, not a list.
const MAX_NAMED: usize = 5;

/// Looks at the daemon and at the image that a run without one starts from.
pub(in super::super) async fn examine(settings: &EngineSettings) -> Look {
    let host = settings.docker_host.as_deref();
    let socket = match local_socket(host) {
        Ok(socket) => socket,
        Err(reason) => return down(reason, "unset DOCKER_HOST".to_owned()),
    };
    let image = settings.default_image.clone();
    let docker = match Docker::connect(host, &settings.owner, state_mark(settings), image).await {
        Ok(docker) => docker,
        Err(reason) => {
            let fault = knock(&socket).await;
            let mend = mend(&socket, fault, Standing::find());
            return down(found(&socket, fault, reason), mend);
        }
    };
    // It answered a moment ago, so an error here is one of this question alone.
    let info = in_time(docker.client.info()).await.unwrap_or_default();
    let check = described(&docker, &info, &socket, &settings.state_dir);
    let image = image_check(&docker.client, docker.default_image.as_deref()).await;
    let ready = Ready {
        kind: EngineKind::Docker,
        version: docker.version.clone(),
        unenforced: docker.unenforced.clone(),
        unlimited: unlimited(&info),
        mend_limits: mend_limits(&info),
    };
    Look { checks: vec![check, image], ready: Some(ready) }
}

fn down(reason: String, mend: String) -> Look {
    let image = Check::skipped(IMAGE, "only Docker starts from images");
    Look { checks: vec![Check::problem(CHECK, reason, mend), image], ready: None }
}

/// An answer within the time that a greeting may take; `None` for an error too.
async fn in_time<T>(asked: impl Future<Output = Result<T, bollard::errors::Error>>) -> Option<T> {
    timeout(HELLO_LIMIT, asked).await.ok()?.ok()
}

/// How the socket itself answers, without any protocol.
async fn knock(socket: &str) -> Option<ErrorKind> {
    let knocked = timeout(HELLO_LIMIT, UnixStream::connect(socket)).await;
    knocked.ok()?.err().map(|error| error.kind())
}

/// Why the daemon does not answer. The client's words do not tell these apart.
fn found(socket: &str, fault: Option<ErrorKind>, reason: String) -> String {
    if fault == Some(ErrorKind::NotFound) {
        format!("there is no socket at {socket}")
    } else if fault == Some(ErrorKind::PermissionDenied) {
        format!("this user may not open {socket}")
    } else if fault == Some(ErrorKind::ConnectionRefused) {
        format!("nobody listens at {socket}")
    } else {
        reason
    }
}

/// What to do about a daemon that does not answer.
fn mend(socket: &str, fault: Option<ErrorKind>, standing: Standing) -> String {
    let rootless = format!("/run/user/{}/docker.sock", rustix::process::geteuid().as_raw());
    if fault == Some(ErrorKind::PermissionDenied) {
        return "sudo usermod -aG docker \"$USER\", then log in again (the group is as powerful as root); or use Bubblewrap, which needs no such right."
            .to_owned();
    }
    if socket != rootless && Path::new(&rootless).exists() {
        return format!("export DOCKER_HOST=unix://{rootless} (a rootless Docker is there)");
    }
    if fault == Some(ErrorKind::NotFound) && standing.is_contained {
        return "This is a container: start a Docker daemon in it, or use Bubblewrap. The host's socket does not help, because its folders are others."
            .to_owned();
    }
    if fault == Some(ErrorKind::NotFound) {
        return "Install Docker (on Debian and Ubuntu `sudo apt-get install docker.io`) and start it (`sudo systemctl enable --now docker`); or use Bubblewrap."
            .to_owned();
    }
    if fault.is_some() {
        return "sudo systemctl restart docker (`journalctl -u docker` says why it stopped)"
            .to_owned();
    }
    "Somebody listens there and is no Docker daemon that can be used: see what `docker info` says, or restart it (`sudo systemctl restart docker`)."
        .to_owned()
}

fn described(docker: &Docker, info: &SystemInfo, socket: &str, state_dir: &Path) -> Check {
    let rights = match has_option(info, "name=rootless") {
        true => "rootless",
        false => "with root's rights",
    };
    let groups = info.cgroup_version.map(|v| format!(", control groups v{v}")).unwrap_or_default();
    let version = &docker.version;
    let found = format!("{version} answers at {socket}, {rights}{groups}");
    match shared_folders(info, state_dir) {
        Some((fault, mend)) => Check::warning(CHECK, format!("{found}; {fault}"), mend),
        None => Check::ok(CHECK, found),
    }
}

fn has_option(info: &SystemInfo, option: &str) -> bool {
    let options = info.security_options.iter().flatten();
    options.flat_map(|o| o.split(',')).any(|o| o == option)
}

/// Why the daemon may not see the folders that a sandbox shares with it.
fn shared_folders(info: &SystemInfo, state_dir: &Path) -> Option<(String, String)> {
    let is_snap = info.docker_root_dir.as_deref().is_some_and(|dir| dir.starts_with("/var/snap/"));
    let is_hidden = state_dir.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
    if is_snap && (is_hidden || state_dir.starts_with("/tmp")) {
        return Some((
            format!("it is a snap, which does not see {}", state_dir.display()),
            "Set RUNBOOKD_STATE and RUNBOOKD_CACHE to folders below your home that do not begin with a dot, or install Docker from its own packages.".to_owned(),
        ));
    }
    let its = info.name.as_deref()?;
    let uname = rustix::system::uname();
    let ours = uname.nodename().to_str().ok()?;
    // A daemon in a virtual machine, or the host's, seen from a container.
    (its != ours).then(|| {
        (
            format!("it calls its machine `{its}`, and this one is `{ours}`"),
            format!(
                "See to it that {} is the same folder for both (`docker run --rm -v {}:/x IMAGE ls /x`), or use Bubblewrap.",
                state_dir.display(),
                state_dir.display()
            ),
        )
    })
}

async fn image_check(client: &Client, image: Option<&str>) -> Check {
    let Some(image) = image else {
        let found =
            "none is set: a run that names none starts from a snapshot, which is built first";
        return Check::skipped(IMAGE, found);
    };
    match timeout(HELLO_LIMIT, client.inspect_image(image)).await {
        Ok(Ok(_)) => {
            return Check::ok(IMAGE, format!("{image} is here, for a run that names none"));
        }
        Ok(Err(error)) if status(&error) == Some(404) => {}
        Ok(Err(error)) => {
            return Check::warning(IMAGE, format!("{image}: {error}"), "Set RUNBOOKD_IMAGE.");
        }
        Err(_) => {
            let seconds = HELLO_LIMIT.as_secs();
            let found = format!("{image}: no answer from Docker within {seconds} s");
            return Check::warning(IMAGE, found, "sudo systemctl restart docker");
        }
    }
    let listed = in_time(client.list_images(None::<ListImagesOptions>)).await.unwrap_or_default();
    let mut tags: Vec<String> = listed.into_iter().flat_map(|image| image.repo_tags).collect();
    tags.retain(|tag| !tag.starts_with("<none>"));
    tags.sort();
    tags.truncate(MAX_NAMED);
    let local = match tags.as_slice() {
        [] => "no image is here".to_owned(),
        tags => format!("here are, among others: {}", tags.join(", ")),
    };
    Check::warning(
        IMAGE,
        format!("{image} is not here and is pulled by the first run ({local})"),
        format!(
            "docker pull {image}; or set RUNBOOKD_IMAGE to one that is here and has `setpriv` (package util-linux)."
        ),
    )
}

fn mend_limits(info: &SystemInfo) -> String {
    if has_option(info, "name=rootless") {
        return "Delegate the controllers: write `[Service]` and `Delegate=cpu cpuset io memory pids` to /etc/systemd/system/user@.service.d/delegate.conf, then `sudo systemctl daemon-reload` and log in again."
            .to_owned();
    }
    "Boot the kernel with `cgroup_enable=memory swapaccount=1`; `docker info` shows what is missing."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const AT_HOME: Standing = Standing { is_root: false, is_contained: false };

    #[test]
    fn each_way_not_to_answer_has_a_mend_of_its_own() {
        let mut text = String::new();
        for (fault, standing) in [
            (Some(ErrorKind::PermissionDenied), AT_HOME),
            (Some(ErrorKind::NotFound), AT_HOME),
            (Some(ErrorKind::NotFound), Standing { is_contained: true, ..AT_HOME }),
            (Some(ErrorKind::ConnectionRefused), AT_HOME),
            (None, AT_HOME),
        ] {
            text.push_str(&mend("/var/run/docker.sock", fault, standing));
            text.push('\n');
        }
        expect![[r#"
            sudo usermod -aG docker "$USER", then log in again (the group is as powerful as root); or use Bubblewrap, which needs no such right.
            Install Docker (on Debian and Ubuntu `sudo apt-get install docker.io`) and start it (`sudo systemctl enable --now docker`); or use Bubblewrap.
            This is a container: start a Docker daemon in it, or use Bubblewrap. The host's socket does not help, because its folders are others.
            sudo systemctl restart docker (`journalctl -u docker` says why it stopped)
            Somebody listens there and is no Docker daemon that can be used: see what `docker info` says, or restart it (`sudo systemctl restart docker`).
        "#]].assert_eq(&text);
    }

    #[test]
    fn a_daemon_that_may_not_see_our_folders_is_told() {
        let snap = SystemInfo {
            docker_root_dir: Some("/var/snap/docker/common/var-lib-docker".to_owned()),
            ..SystemInfo::default()
        };
        let fault = |info: &SystemInfo, dir: &str| shared_folders(info, Path::new(dir));
        assert!(fault(&snap, "/home/a/.local/state/runbookd").is_some());
        assert!(fault(&snap, "/home/a/state").is_none());
        let uname = rustix::system::uname();
        let ours = uname.nodename().to_str().unwrap().to_owned();
        let here = SystemInfo { name: Some(ours), ..SystemInfo::default() };
        assert!(fault(&here, "/home/a/.local").is_none());
        let desktop = SystemInfo { name: Some("docker-desktop".to_owned()), ..here };
        let (found, _) = fault(&desktop, "/home/a").unwrap();
        assert!(found.contains("`docker-desktop`"), "{found}");
    }
}
