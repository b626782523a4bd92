//! Routines and webhooks: made, changed, fired, told.

use serde_json::{Value, json};

use super::runs::{runnable, with_task};
use super::support::{Bench, new_year};
use crate::catalog::DeliveryState;
use crate::queue::Ended;
use crate::routines::{Fired, Scheduler};
use crate::run::{RunId, RunName, Slug};
use crate::webhook::{News, Outbox};

const ROUTINES: &str = "/api/v1/routines/team/hello";

async fn with_routine(bench: &Bench, body: Value) -> Value {
    let made = bench.ask(&bench.team, "POST", ROUTINES, &body.to_string()).await;
    assert_eq!(made.status, 200, "{made:?}");
    made.json()
}

fn hourly() -> Value {
    json!({
        "name": "tick", "cadence": {"type": "hourly", "minute_utc": 30},
        "init_params_overrides": {"vars": {"word": "tick"}},
        "secret_params": {"KEY": "made-up-secret"},
    })
}

fn scheduler(bench: &Bench) -> Scheduler {
    let (catalog, intake) = (bench.api.catalog.clone(), bench.api.runs.intake.clone());
    Scheduler { catalog, intake }
}

fn submitted(fired: &[(crate::catalog::Fire, Fired)]) -> Vec<RunName> {
    fired
        .iter()
        .filter_map(|(_, fired)| match fired {
            Fired::Submitted(name) => Some(name.clone()),
            Fired::Before(_) => None,
            Fired::Refused(error) | Fired::Later(error) => panic!("{error}"),
        })
        .collect()
}

#[tokio::test]
async fn a_routine_is_made_changed_and_removed() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let made = with_routine(&bench, hourly()).await;
    assert_eq!(
        json!([made["next_run_at"], made["paused"], made["has_secret_params"]]),
        json!(["2026-01-01T00:30:00Z", false, true])
    );
    assert!(!made.to_string().contains("made-up"));
    let one = format!("{ROUTINES}/tick");
    let paused = bench.ask(&bench.team, "POST", &format!("{one}/pause"), "").await.json();
    assert_eq!(json!([paused["paused"], paused["next_run_at"]]), json!([true, null]));
    let resumed = bench.ask(&bench.team, "POST", &format!("{one}/resume"), "").await.json();
    assert_eq!(resumed["next_run_at"], "2026-01-01T00:30:00Z");
    let daily = r#"{"cadence": {"type": "daily", "hour_utc": 6}}"#;
    let changed = bench.ask(&bench.team, "PATCH", &one, daily).await.json();
    assert_eq!(changed["next_run_at"], "2026-01-01T06:00:00Z");
    let listed = bench.ask(&bench.team, "GET", "/api/v1/routines/team", "").await.json();
    assert_eq!(listed["routines"][0]["name"], "tick");
    let gone = bench.ask(&bench.team, "DELETE", &one, "").await;
    assert_eq!(gone.json(), json!({"message": "Routine deleted successfully"}));
    assert_eq!(bench.ask(&bench.team, "GET", &one, "").await.status, 404);
}

#[tokio::test]
async fn a_routine_that_could_not_run_is_refused_with_the_reason() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let hourly = json!({"type": "hourly"});
    for (body, status, words) in [
        (json!({"cadence": hourly}), 422, "Field required"),
        (json!({"name": "a", "cadence": {"type": "daily"}}), 400, "hour_utc"),
        (json!({"name": "a", "cadence": {"type": "weekly", "hour_utc": 1}}), 400, "day_of_week"),
        (json!({"name": "a", "cadence": {"type": "manual", "hour_utc": 1}}), 400, "hour_utc"),
        (json!({"name": "a", "cadence": hourly, "init_params_overrides": {"no": 1}}), 400, "no"),
        (json!({"name": "a", "cadence": hourly, "webhook_url": "http://10.0.0.1"}), 400, "private"),
        (json!({"name": "a", "cadence": hourly, "colour": 1}), 400, "`colour` is not known"),
    ] {
        let answer = bench.ask(&bench.team, "POST", ROUTINES, &body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.text.contains(words), "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn each_slot_makes_one_run_with_two_schedulers_and_over_restarts() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    with_routine(&bench, hourly()).await;
    let minutes = |n: i64| new_year() + jiff::SignedDuration::from_mins(n);
    let mut runs = Vec::new();
    for n in [0, 29, 30, 31, 60, 89, 90, 91, 95] {
        let (one, other) = (scheduler(&bench), scheduler(&bench));
        let (a, b) = tokio::join!(one.fire_due(minutes(n)), other.fire_due(minutes(n)));
        runs.extend(submitted(&a.unwrap()));
        runs.extend(submitted(&b.unwrap()));
    }
    assert_eq!(runs.len(), 2, "{runs:?}");
    // Six slots pass while nobody watches: the last one is made up for, and no other.
    let late = scheduler(&bench).fire_due(minutes(90 + 6 * 60 + 5)).await.unwrap();
    assert_eq!(late[0].0.slot, minutes(90 + 6 * 60));
    assert_eq!(submitted(&late).len(), 1);
    let listed = bench.ask(&bench.team, "GET", &format!("{ROUTINES}/tick/runs"), "").await.json();
    assert_eq!(listed["total"], 3);
    let run = &listed["trajectories"][0];
    assert_eq!(run["init_params"]["vars"], json!({"word": "tick"}));
    assert!(run["triggered_by_routine_id"].is_string(), "{run}");
}

#[tokio::test]
async fn a_scheduler_that_dies_between_the_run_and_the_slot_makes_no_second_run() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    with_routine(&bench, hourly()).await;
    let now = new_year() + jiff::SignedDuration::from_mins(31);
    let due = bench.api.catalog.due(now).await.unwrap();
    let fire = &due.fires[0];
    let wish = crate::routines::wish_of(&bench.api.catalog, &fire.routine).await.unwrap();
    let wish = crate::intake::Submission { idempotency_key: Some(fire.idempotency_key()), ..wish };
    bench.api.runs.intake.submit(wish, now).await.unwrap();
    let fired = scheduler(&bench).fire_due(now).await.unwrap();
    assert!(matches!(fired[0].1, Fired::Before(_)), "{fired:?}");
    assert_eq!(bench.api.queue.depth(now).await.unwrap().due, 1);
    assert!(scheduler(&bench).fire_due(now).await.unwrap().is_empty());
}

#[tokio::test]
async fn run_now_makes_a_run_beside_the_cadence() {
    let bench = Bench::new().await;
    with_task(&bench, runnable()).await;
    let manual = json!({"name": "by-hand", "cadence": {"type": "manual"}});
    with_routine(&bench, manual).await;
    let path = format!("{ROUTINES}/by-hand/run-now");
    let answer = bench.ask(&bench.team, "POST", &path, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["workflow_id"].as_str().unwrap().starts_with("team-hello--"));
}

#[tokio::test]
async fn the_end_of_a_run_is_told_once_and_signed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let bench = Bench::new().await;
    let body = r#"{"trajectory_id": "x1", "input": 1, "output": 2}"#;
    bench.ask(&bench.team, "POST", "/api/v1/trajectories/team/t/ingest", body).await;
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=made-up", receiver.local_addr().unwrap());
    let secret = crate::secret::Secret::new("made-up-secret".to_owned());
    let run = RunName {
        collection: Slug::new("team").unwrap(),
        task: Slug::new("t").unwrap(),
        id: RunId::new("x1").unwrap(),
    };
    let (catalog, records) = (bench.api.catalog.clone(), bench.api.runs.records.clone());
    let outbox = Outbox { catalog, records };
    for _ in 0..2 {
        let secret = Some(secret.clone());
        let news = News { run: &run, ended: Ended::Completed, url: &url, secret };
        outbox.enqueue(news, new_year()).await.unwrap();
    }
    let post = crate::webhook::Post::new(crate::reach::Reach::Private).unwrap();
    let sender = crate::webhook::Sender { catalog: bench.api.catalog.clone(), post };
    let drain = tokio_util::sync::CancellationToken::new();
    let receive = async {
        let (mut stream, _) = receiver.accept().await.unwrap();
        let mut bytes = Vec::new();
        let (head, length) = loop {
            let mut chunk = [0; 4096];
            let n = stream.read(&mut chunk).await.unwrap();
            bytes.extend_from_slice(&chunk[..n]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = header(head, "content-length").parse::<usize>().unwrap();
                if body.len() >= length {
                    break (head.to_owned(), length);
                }
            }
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let body = bytes[bytes.len() - length..].to_vec();
        while bench.api.catalog.delivery_state(&run).await.unwrap() != DeliveryState::Delivered {
            tokio::task::yield_now().await;
        }
        drain.cancel();
        (head, body)
    };
    let ((head, body), ()) = tokio::join!(receive, sender.run(new_year, drain.clone()));
    let timestamp = header(&head, "x-mise-timestamp").parse().unwrap();
    assert_eq!(
        header(&head, "x-mise-signature"),
        crate::webhook::signature(&secret, timestamp, &body)
    );
    assert_eq!(header(&head, "x-mise-trajectory-id"), "x1");
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(told["steps"]["eval"]["outputs"], json!({"output": 2}));
    let state = bench.ask(&bench.team, "GET", "/api/v1/trajectory/team/t/x1/webhook", "").await;
    assert_eq!(state.json()["status"], "delivered");
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map_or("", |(_, value)| value)
}
