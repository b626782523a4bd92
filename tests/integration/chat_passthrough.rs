//! Chats that are passed on to a model: the clients, unmodified, the bytes, the key, the record.

use std::cell::Cell;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    FakeModel, Home, POLL, Ran, Server, WORDS, frames, run_tool, step, word_chunks,
};

/// Longer than anything takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// The key of the collection's service.
const KEY: &str = "sk-made-up-of-the-team";

/// A server whose collection `team` reaches a model of ours.
struct Bench {
    home: Home,
    server: Server,
    model: FakeModel,
    http: reqwest::Client,
    admin: String,
    team: String,
    other: String,
}

impl Bench {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A server with these settings.
    async fn with(settings: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let token = async |arguments: &[&str]| {
            let made = home.run(&[&["token", "create", "t"], arguments].concat()).await;
            assert_eq!(made.code, Some(0), "{made:?}");
            made.stdout.trim().to_owned()
        };
        let admin = token(&["--admin"]).await;
        let team = token(&["--collection", "team"]).await;
        let other = token(&["--collection", "other-team"]).await;
        let model = FakeModel::start().await;
        let server =
            Server::start(&home, &[&[("RUNBOOKD_UPSTREAM_PRIVATE", "1")], settings].concat()).await;
        // It is there already where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let bench = Self { home, server, model, http, admin, team, other };
        let variables = json!({ "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": bench.model.base_url() });
        bench.set(&variables).await;
        bench
    }

    async fn set(&self, variables: &Value) {
        let url = self.url("/api/v1/collections/team/environment");
        let body = json!({ "environment_variables": variables }).to_string();
        let sent = self.http.patch(url).bearer_auth(&self.team).body(body).send().await.unwrap();
        assert_eq!(sent.status().as_u16(), 200, "{}", sent.text().await.unwrap());
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    async fn chat(&self, token: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let url = self.url("/v1/chat/completions");
        self.http.post(url).bearer_auth(token).body(body).send().await.unwrap()
    }

    /// Asks, and gives the status and the body as JSON.
    async fn ask(&self, token: &str, body: &Value) -> (u16, Value) {
        let answer = self.chat(token, body.to_string()).await;
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        let sent = self.http.get(self.url(path)).bearer_auth(token).send().await.unwrap();
        let status = sent.status().as_u16();
        (status, serde_json::from_slice(&sent.bytes().await.unwrap()).unwrap())
    }

    /// The records of a task, newest first, once there are so many.
    async fn records(&self, task: &str, n: usize) -> Vec<Value> {
        let path = format!("/api/v1/db/trajectories/team/{task}?limit=100");
        found(async || {
            let (_, listed) = self.get(&path, &self.team).await;
            let listed = listed["trajectories"].as_array().cloned().unwrap_or_default();
            let is_whole = |one: &Value| !one["steps"]["completion"].is_null();
            (listed.len() >= n && listed.iter().all(is_whole)).then_some(listed)
        })
        .await
    }

    /// Tells a story of OpenAI's clients.
    async fn tell(&self, story: &str) -> Option<Ran> {
        run_tool(("openai-clients", &[story]), (&self.server.address, &self.team)).await
    }

    /// Stops the server. No key is anywhere but at the model.
    async fn stop(self) -> (Home, String) {
        self.server.signal(Signal::TERM);
        let (code, log) = self.server.ended().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains(KEY), "{log}");
        let mut folders = vec![self.home.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let bytes = std::fs::read(entry.path()).unwrap();
                    let found = memchr::memmem::find(&bytes, KEY.as_bytes());
                    assert!(found.is_none(), "the key is in {}", entry.path().display());
                }
            }
        }
        (self.home, log)
    }
}

/// Waits for a fact.
async fn found<T>(mut fact: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = fact().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    timeout(SOON, looking).await.unwrap()
}

fn say(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Say something." }] })
}

fn say_slowly(model: &str) -> Value {
    let mut body = say(model);
    body["stream"] = true.into();
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_for_python_speak_with_a_model() {
    let bench = Bench::new().await;
    if let Some(ran) = bench.tell("passthrough.py").await {
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    }
    let asked = bench.model.asked();
    assert!(asked.iter().all(|one| one.header("authorization") == Some(&format!("Bearer {KEY}"))));
    assert!(asked.iter().all(|one| one.path == "/v1/chat/completions"), "no redirect is followed");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_for_javascript_speaks_with_a_model() {
    let bench = Bench::new().await;
    if let Some(ran) = bench.tell("passthrough.mjs").await {
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
        // One that did not wait, and one that had heard enough.
        timeout(SOON, bench.model.gone(2)).await.unwrap();
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_question_and_answer_are_those_that_were_sent() {
    let bench = Bench::new().await;
    let odd = "{ \"stream\":true ,\n \"model\": \"gpt-say\", \"messages\":[], \"seed\": 1.0e2, \"x\":\"\\u00e9\" }";
    let answer = bench
        .http
        .post(bench.url("/chat/completions"))
        .bearer_auth(&bench.team)
        .header("openai-beta", "made-up")
        .header("cookie", "made-up")
        .header("x-forwarded-for", "192.0.2.1")
        .header("idempotency-key", "made-up")
        .body(odd)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(!answer.headers().contains_key("set-cookie"));
    let expected = frames(&word_chunks(&Value::Null));
    assert_eq!(answer.text().await.unwrap(), expected);
    let asked = bench.model.asked().pop().unwrap();
    assert_eq!(asked.body, odd.as_bytes());
    let mut names: Vec<&str> = asked.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "openai-beta",
            "user-agent"
        ]
    );
    // Only our own part is left out.
    let mut ours = say("gpt-say");
    ours["jetty"] = json!({ "task": "apart", "model_provider": "openai" });
    assert_eq!(bench.ask(&bench.team, &ours).await.0, 200);
    assert_eq!(bench.model.asked().pop().unwrap().json(), say("gpt-say"));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_of_a_stream_comes_when_it_was_said() {
    let bench = Bench::new().await;
    let mut answer = bench.chat(&bench.team, say_slowly("gpt-step").to_string()).await;
    for n in 0..WORDS.len() {
        // The model says the next word only when the one before has been heard.
        bench.model.step();
        let piece = timeout(SOON, answer.chunk()).await.unwrap().unwrap();
        assert_eq!(piece, Some(step(n)), "{n}");
    }
    assert_eq!(answer.chunk().await.unwrap(), None);
    let [told] = &bench.records("_chat", 1).await[..] else { panic!("one record") };
    let outputs = &told["steps"]["completion"]["outputs"];
    assert_eq!((&told["status"], &outputs["text"]), (&json!("completed"), &json!(WORDS.concat())));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_the_call_and_is_recorded() {
    let bench = Bench::new().await;
    // Before the answer begins.
    let waiting = bench.chat(&bench.team, say("gpt-hang").to_string());
    assert!(timeout(Duration::from_secs(1), waiting).await.is_err());
    timeout(SOON, bench.model.gone(1)).await.unwrap();
    // In the middle of it.
    let mut answer = bench.chat(&bench.team, say_slowly("gpt-step").to_string()).await;
    bench.model.step();
    assert_eq!(answer.chunk().await.unwrap(), Some(step(0)));
    drop(answer);
    timeout(SOON, bench.model.gone(2)).await.unwrap();
    let told = bench.records("_chat", 2).await;
    let seen: Vec<[&Value; 2]> = told
        .iter()
        .map(|one| [&one["status"], &one["steps"]["completion"]["outputs"]["text"]])
        .collect();
    let cancelled = json!("cancelled");
    assert_eq!(seen, [[&cancelled, &json!(WORDS[0])], [&cancelled, &Value::Null]]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_holds_the_model_up() {
    let bench = Bench::new().await;
    let mut answer = bench.chat(&bench.team, say_slowly("gpt-endless").to_string()).await;
    assert!(answer.chunk().await.unwrap().is_some());
    // What is on its way fills the buffers between, and then nothing more is said.
    let before = Cell::new(0);
    found(async || (before.replace(bench.model.said()) == bench.model.said()).then_some(())).await;
    assert!(bench.model.said() < 64 << 20, "{}", bench.model.said());
    drop(answer);
    timeout(SOON, bench.model.gone(1)).await.unwrap();
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_belong_to_their_collection() {
    let bench = Bench::new().await;
    let mut named = say("gpt-say");
    named["jetty"] = json!({ "collection": "team" });
    // Another collection's token opens neither the key nor the records.
    let (status, refused) = bench.ask(&bench.other, &named).await;
    assert_eq!((status, &refused["error"]["type"]), (403, &json!("permission_error")));
    let (status, refused) = bench.ask(&bench.other, &say("gpt-say")).await;
    assert_eq!(status, 400);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("set `OPENAI_API_KEY` in the collection's environment"), "{message}");
    assert_eq!(bench.get("/v1/models?collection=team", &bench.other).await.0, 403);
    assert!(bench.model.asked().is_empty());
    // An admin names one.
    assert_eq!(bench.ask(&bench.admin, &say("gpt-say")).await.0, 400);
    assert_eq!(bench.get("/v1/models", &bench.admin).await.0, 400);
    assert_eq!(bench.ask(&bench.admin, &named).await.0, 200);
    assert_eq!(bench.records("_chat", 1).await.len(), 1);
    assert_eq!(bench.get("/api/v1/db/trajectories/team/_chat", &bench.other).await.0, 403);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_asked_where_the_collection_says_and_the_record_hides_what_it_wants() {
    let bench = Bench::new().await;
    let base = format!("http://{}", bench.model.address);
    let variables = json!({
        "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": base, "OPENROUTER_API_KEY": KEY,
        "OPENROUTER_BASE_URL": format!("{base}/api/v1"), "GEMINI_API_KEY": KEY,
        "GEMINI_BASE_URL": format!("{base}/v1beta/openai"),
    });
    bench.set(&variables).await;
    let hide = json!({ "redacted_param_keys": ["patient"] }).to_string();
    let url = bench.url("/api/v1/collections/team");
    let hidden = bench.http.patch(url).bearer_auth(&bench.admin).body(hide).send().await.unwrap();
    assert_eq!(hidden.status().as_u16(), 200, "{}", hidden.text().await.unwrap());
    for (model, path) in [
        ("claude-sonnet-4-6", "/v1/chat/completions"),
        ("made/up", "/api/v1/chat/completions"),
        ("gemini-3-pro", "/v1beta/openai/chat/completions"),
        ("gpt-say", "/v1/chat/completions"),
    ] {
        let mut body = say(model);
        body["metadata"] = json!({ "patient": "Made Up", "ward": "3" });
        body["jetty"] = json!({ "task": model.replace('/', ".") });
        assert_eq!(bench.ask(&bench.team, &body).await.0, 200);
        assert_eq!(bench.model.asked().pop().unwrap().path, path);
        let [told] = &bench.records(&model.replace('/', "."), 1).await[..] else { panic!("one") };
        let step = &told["steps"]["completion"];
        let metadata = json!({ "patient": "[redacted]", "ward": "3" });
        assert_eq!(step["inputs"]["parameters"]["metadata"], metadata);
        let is_known = model.starts_with("claude");
        let basis = if is_known { "estimated" } else { "unknown" };
        assert_eq!(step["outputs"]["usage"]["cost_basis"], basis, "{step}");
    }
    let (_, listed) = bench.get("/v1/models", &bench.team).await;
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
    for id in ["claude-sonnet-4-6", "anthropic/claude-sonnet-4.6", "claude-code"] {
        assert!(ids.contains(&id), "{ids:?}");
        let path = format!("/v1/models/{id}");
        assert_eq!(bench.get(&path, &bench.team).await.1["id"], id);
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_records_chats_cannot_be_run_and_says_so() {
    let bench = Bench::new().await;
    assert_eq!(bench.ask(&bench.team, &say("gpt-say")).await.0, 200);
    let run = bench.http.post(bench.url("/api/v1/run/team/_chat")).bearer_auth(&bench.team);
    let refused = run.body("{}").header("content-type", "application/json").send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 400);
    let text = refused.text().await.unwrap();
    assert!(text.contains("records chat requests and cannot be run"), "{text}");
    let (status, task) = bench.get("/api/v1/tasks/team/_chat", &bench.team).await;
    assert_eq!((status, &task["workflow"]["steps"]), (200, &json!(["completion"])));
    bench.stop().await;
}

/// A card's number, a key that the collection knows, and one that nobody knows but its shape tells.
const FOUND: [&str; 3] = [
    "4111 1111 1111 1111",
    "made-up-and-known-0123456789",
    "ghp_MadeUp0123456789MadeUp0123456789Made",
];

/// What stands in their places.
const MASKS: [&str; 3] =
    ["[redacted:payment_card]", "[redacted:known_secret]", "[redacted:github_token]"];

/// Asks with all that guardrails look for, in an odd spelling that must stay.
fn telling(is_stream: bool) -> String {
    let [card, known, shape] = FOUND;
    format!(
        "{{ \"model\":\"gpt-say\" ,\n \"stream\": {is_stream}, \"seed\": 1.0e2, \"messages\": [\
         {{\"role\":\"system\",\"content\":\"The key is {known}.\"}},\
         {{\"role\":\"user\",\"content\":[{{\"type\":\"text\",\"text\":\"Gr\\u00fc\u{df}e\"}},{{\"type\":\"text\",\"text\":\"Pay with {card}; {shape}\"}}]}}] }}"
    )
}

/// What a model gets of a text.
fn masked(text: &str) -> String {
    let pairs = FOUND.into_iter().zip(MASKS);
    pairs.fold(text.to_owned(), |text, (found, mask)| text.replace(found, mask))
}

#[tokio::test(flavor = "multi_thread")]
async fn guardrails_mask_what_must_not_leave_and_change_nothing_else() {
    let bench = Bench::with(&[("RUNBOOKD_GUARD_PII", "mask")]).await;
    // A collection wants more of secrets, and gets no less of the rest.
    let wanted = json!({
        "RUNBOOKD_GUARD_SECRETS": "mask", "RUNBOOKD_GUARD_PII": "off", "SHOP_TOKEN": FOUND[1],
    });
    bench.set(&wanted).await;
    for (n, is_stream) in [(1, false), (2, true)] {
        let answer = bench.chat(&bench.team, telling(is_stream)).await;
        assert_eq!(answer.status().as_u16(), 200);
        let text = answer.text().await.unwrap();
        if is_stream {
            assert_eq!(text, frames(&word_chunks(&Value::Null)));
        } else {
            let said: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(said["choices"][0]["message"]["content"], WORDS.concat());
        }
        let asked = bench.model.asked().pop().unwrap();
        assert_eq!(String::from_utf8_lossy(&asked.body), masked(&telling(is_stream)));
        let told = bench.records("_chat", n).await.swap_remove(0);
        let found: Vec<String> = told["guard"]
            .as_array()
            .unwrap_or_else(|| panic!("{told:#}"))
            .iter()
            .map(|one| format!("{} {} {}", one["kind"], one["count"], one["action"]))
            .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.contains(&r#""payment_card" 1 "mask""#.to_owned()), "{found:?}");
        for found in FOUND {
            assert!(!told.to_string().contains(found), "{told:#}");
        }
    }
    let (home, _) = bench.stop().await;
    drop(home);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_guardrails_block_reaches_no_model() {
    let bench = Bench::with(&[("RUNBOOKD_GUARD_PII", "mask")]).await;
    bench.set(&json!({ "RUNBOOKD_GUARD_PII": "block" })).await;
    for is_stream in [false, true] {
        let answer = bench.chat(&bench.team, telling(is_stream)).await;
        // In the shape of an error, for who asked for a stream too.
        assert_eq!(answer.status().as_u16(), 400);
        assert_eq!(answer.headers()["content-type"], "application/json");
        let refused: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let error = &refused["error"];
        assert_eq!(error["param"], "messages", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("blocked by policy"), "{message}");
        assert!(message.contains("payment card") && !message.contains(FOUND[0]), "{message}");
    }
    assert!(bench.model.asked().is_empty());
    // Where nothing is found, the same collection speaks with its model.
    for body in [say("gpt-say"), say_slowly("gpt-say")] {
        let answer = bench.chat(&bench.team, body.to_string()).await;
        assert_eq!(answer.status().as_u16(), 200);
        answer.bytes().await.unwrap();
    }
    assert_eq!(bench.model.asked().len(), 2);
    let told = bench.records("_chat", 2).await;
    assert!(told.iter().all(|one| one["guard"].is_null()), "{told:#?}");
    assert_eq!(told.len(), 2, "what was blocked is no chat");
    let (home, log) = bench.stop().await;
    assert!(!log.contains(FOUND[0]), "{log}");
    drop(home);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_said_and_recorded() {
    let bench = Bench::new().await;
    // Nobody listens there.
    let nobody = json!({ "OPENAI_BASE_URL": "http://127.0.0.1:9/v1" });
    bench.set(&nobody).await;
    let (status, refused) = bench.ask(&bench.team, &say("gpt-say")).await;
    assert_eq!((status, &refused["error"]["code"]), (502, &json!("upstream_unreachable")));
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("could not reach 127.0.0.1"), "{message}");
    let [told] = &bench.records("_chat", 1).await[..] else { panic!("one record") };
    assert_eq!((&told["status"], &told["error"]), (&json!("failed"), &json!(message)));
    let mut no_model = say("x");
    no_model["model"] = Value::Null;
    let (status, refused) = bench.ask(&bench.team, &no_model).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("model")));
    // Whoever reads the first and whoever reads the last must not mean different things by it.
    for (body, param) in [
        (r#"{"model": "gpt-say", "messages": [], "n": 1, "n": 128}"#, "max_tokens"),
        (
            r#"{"model": "gpt-say", "messages": [], "max_tokens": 18446744073709551615}"#,
            "max_tokens",
        ),
        (r#"{"model": "gpt-say", "messages": [], "n": 1000}"#, "n"),
    ] {
        let answer = bench.chat(&bench.team, body).await;
        let status = answer.status().as_u16();
        let refused: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!((status, &refused["error"]["param"]), (400, &json!(param)), "{refused:#}");
    }
    bench.set(&json!({ "OPENAI_BASE_URL": "https://localhost:1" })).await;
    assert_eq!(
        bench.ask(&bench.team, &say("gpt-say")).await.0,
        502,
        "private names are allowed here"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_that_go_on_when_the_server_stops_are_cut_and_recorded() {
    let bench = Bench::new().await;
    let mut answer = bench.chat(&bench.team, say_slowly("gpt-step").to_string()).await;
    bench.model.step();
    assert_eq!(answer.chunk().await.unwrap(), Some(step(0)));
    bench.server.signal(Signal::TERM);
    assert!(timeout(SOON, answer.chunk()).await.unwrap().is_err(), "it is not a whole answer");
    let (home, log) = bench.stop().await;
    let results = home.state().join("results/team/_chat");
    let [told] = &std::fs::read_dir(results).unwrap().flatten().collect::<Vec<_>>()[..] else {
        panic!("one record: {log}")
    };
    let told = std::fs::read(told.path().join("trajectory.json")).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["failure"]["code"], "server_stopped");
}
