//! Clients that hang up: what they had begun is done whole or leaves nothing.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tower::ServiceExt as _;

use super::runs::{Part, form_request, form_text, runnable, with_task};
use super::support::{Bench, new_year};

/// Longer than a removal takes on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Every file and folder below the collection's folder.
fn stored(bench: &Bench) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![bench.api.store.root().join("team")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            // What goes on may remove it meanwhile.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

fn of_requests(bench: &Bench) -> Vec<PathBuf> {
    let is_frame = |path: &PathBuf| {
        let name = path.strip_prefix(bench.api.store.root()).unwrap();
        ["team/_sandbox_uploads", "team/hello"].iter().any(|frame| name.as_os_str() == *frame)
    };
    stored(bench).into_iter().filter(|path| !is_frame(path)).collect()
}

/// Waits until everything that the API does by itself is done.
async fn settled(bench: &Bench) {
    bench.api.runs.intake.end().await;
    bench.api.runs.followers.end().await;
}

/// Waits until nothing is left of any request. A thread that still writes removes it at its end.
async fn nothing_is_left(bench: &Bench) {
    let removed = async {
        while !of_requests(bench).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let removed = tokio::time::timeout(SOON, removed).await;
    removed.unwrap_or_else(|_| panic!("left: {:?}", of_requests(bench)));
}

/// A body that sends this and then nothing more, without an end.
fn unfinished(bytes: Vec<u8>) -> Body {
    let sent = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]);
    Body::from_stream(sent.chain(futures_util::stream::pending()))
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_sends_leaves_nothing() {
    let large = vec![7; 700 << 10];
    let parts: [Part<'_>; 2] = [("files", Some("a.txt"), b"one"), ("files", Some("b.bin"), &large)];
    let whole = form_text(&parts);
    for (path, n_bytes, n_files) in [
        ("/api/v1/run/team/hello", whole.len() - 9, 2),
        ("/api/v1/run-sync/team/hello", whole.len() / 2, 2),
        ("/api/v1/sandbox/upload", whole.len() / 2, 2),
    ] {
        let bench = Bench::new().await;
        with_task(&bench, runnable()).await;
        let request = form_request(&bench.team, path, unfinished(whole[..n_bytes].to_vec()));
        {
            let mut answer = pin!(bench.router().oneshot(request));
            // The batch's folder, the first file, and the second one in the making.
            while of_requests(&bench).len() < 1 + n_files {
                assert!(answer.as_mut().now_or_never().is_none(), "it was answered");
                tokio::task::yield_now().await;
            }
        }
        nothing_is_left(&bench).await;
    }
}

#[tokio::test]
async fn whenever_a_client_hangs_up_there_is_a_whole_run_or_nothing() {
    let mut packer = crate::archive::Packer::new(Vec::new());
    packer.add("skill/SKILL.md", 2, &b"# "[..]).unwrap();
    let zip = packer.finish().unwrap();
    let parts: [Part<'_>; 2] =
        [("files", Some("a.txt"), b"one"), ("files", Some("skill.zip"), &zip)];
    for n_polls in 1.. {
        let bench = Bench::new().await;
        with_task(&bench, runnable()).await;
        let body = Body::from(form_text(&parts));
        let request = form_request(&bench.team, "/api/v1/run/team/hello", body);
        let (mut is_answered, mut is_begun) = (false, false);
        {
            let mut answer = pin!(bench.router().oneshot(request));
            let mut n_woken = 0;
            std::future::poll_fn(|context| {
                n_woken += 1;
                is_answered = answer.as_mut().poll(context).is_ready();
                // It is begun in a task, which cannot have ended before this one lets it.
                is_begun = !bench.api.runs.intake.tasks.is_empty();
                let is_enough = is_answered || is_begun || n_woken == n_polls;
                if is_enough { ().into() } else { std::task::Poll::Pending }
            })
            .await;
        }
        settled(&bench).await;
        assert!(!is_answered, "the request was taken in elsewhere");
        let n_runs = bench.api.queue.depth(new_year()).await.unwrap().due;
        let list = "/api/v1/list-files?prefix=team/hello";
        let files = bench.ask(&bench.team, "GET", list, "").await.json();
        let n_files = files["files"].as_array().unwrap().len();
        if is_begun {
            assert_eq!((n_runs, n_files), (1, 3), "{n_polls}: {files}");
            assert!(n_polls > 1, "nothing was received before it was begun");
            break;
        }
        assert_eq!(n_runs, 0, "{n_polls}");
        nothing_is_left(&bench).await;
    }
}

#[tokio::test]
async fn a_record_that_is_handed_in_is_kept_whole_when_its_client_hangs_up() {
    for n_polls in 1.. {
        let bench = Bench::new().await;
        let body = json!({"trajectory_id": "x1", "input": 1, "output": 2}).to_string();
        let request = Request::post("/api/v1/trajectories/team/t/ingest")
            .header("authorization", format!("Bearer {}", bench.team.expose()))
            .body(Body::from(body));
        let mut is_answered = false;
        {
            let mut answer = pin!(bench.router().oneshot(request.unwrap()));
            let mut n_woken = 0;
            std::future::poll_fn(|context| {
                n_woken += 1;
                if n_woken <= n_polls {
                    is_answered = answer.as_mut().poll(context).is_ready();
                }
                if is_answered || n_woken > n_polls { ().into() } else { std::task::Poll::Pending }
            })
            .await;
        }
        settled(&bench).await;
        let seen = bench.ask(&bench.team, "GET", "/api/v1/db/trajectory/team/t/x1", "").await;
        match seen.status {
            404 => assert!(!is_answered),
            _ => assert_eq!(seen.json()["steps"]["eval"]["outputs"], json!({"output": 2})),
        }
        if is_answered {
            break;
        }
    }
}
