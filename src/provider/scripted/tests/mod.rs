//! Stories over real sockets: what a client sees, and what the ledger says about it.

mod wires;

use std::fmt::Write as _;
use std::time::Duration;

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::{Expect, expect};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use super::{Delivery, Listen, ListenError, Place, Script, ScriptedProvider, SentUsage};

/// Longest wait for something that is bound to happen.
const LIMIT: Duration = Duration::from_secs(10);

async fn start(yaml: &str) -> ScriptedProvider {
    let script = Script::parse(yaml).unwrap();
    ScriptedProvider::start(script, Listen::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap()
}

fn client() -> Client {
    // Reqwest wants one even where nothing is encrypted; a second installation is refused.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(LIMIT).build().unwrap()
}

fn url(provider: &ScriptedProvider, path: &str) -> String {
    match provider.address() {
        Listen::Tcp(address) => format!("http://{address}{path}"),
        Listen::Unix(_) => format!("http://localhost{path}"),
    }
}

/// A request of the main loop that carries `n_done` answers.
fn request(n_done: usize, stream: bool) -> Value {
    let mut messages = vec![json!({ "role": "user", "content": "go" })];
    for _ in 0..n_done {
        messages.push(json!({ "role": "assistant", "content": "…" }));
        messages.push(json!({ "role": "user", "content": "go on" }));
    }
    json!({
        "model": "claude-made-up",
        "stream": stream,
        "tools": [{ "name": "Agent", "input_schema": {} }],
        "messages": messages,
    })
}

async fn ask(provider: &ScriptedProvider, body: &Value) -> reqwest::Result<Response> {
    client().post(url(provider, "/v1/messages?beta=true")).json(body).send().await
}

/// What a client sees of a reply: status, headers, the events or the body, and how it ended.
async fn scene(reply: reqwest::Result<Response>) -> String {
    let Ok(mut reply) = reply else { return "no reply".to_owned() };
    let header = |name: &str| reply.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    let mut scene = format!("{}", reply.status().as_u16());
    let names =
        ["content-type", "request-id", "x-amzn-requestid", "x-amzn-errortype", "retry-after"];
    for name in names {
        match header(name) {
            Some(value) if name.starts_with("x-") => write!(scene, " {name}={value}").unwrap(),
            Some(value) => write!(scene, " {value}").unwrap(),
            None => {}
        }
    }
    let kind = header("content-type").unwrap_or_default();
    let mut body = Vec::new();
    let ending = loop {
        match reply.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break "",
            Err(_) => break " CUT",
        }
    };
    if kind == "application/vnd.amazon.eventstream" {
        return scene + &aws_frames(&body) + ending;
    }
    let body = String::from_utf8(body).unwrap();
    if kind.contains("event-stream") {
        for name in body.lines().filter_map(|line| line.strip_prefix("event: ")) {
            write!(scene, "\n  {name}").unwrap();
        }
    } else if !body.is_empty() {
        write!(scene, "\n  {body}").unwrap();
    }
    scene + ending
}

/// The frames of AWS in a body, one a line: what an event is called, or an exception and what it
/// says. What is no frame fails the test.
fn aws_frames(body: &[u8]) -> String {
    let mut decoder = MessageFrameDecoder::new();
    let mut rest = body;
    let mut frames = String::new();
    while let DecodedFrame::Complete(message) = decoder.decode_frame(&mut rest).unwrap() {
        let header = |name: &str| {
            let header = message.headers().iter().find(|header| header.name().as_str() == name);
            header.map(|header| header.value().as_string().unwrap().as_str().to_owned())
        };
        assert_eq!(header(":content-type").unwrap(), "application/json");
        match header(":message-type").unwrap().as_str() {
            "event" => {
                assert_eq!(header(":event-type").unwrap(), "chunk");
                let chunk: Value = serde_json::from_slice(message.payload()).unwrap();
                let event = STANDARD.decode(chunk["bytes"].as_str().unwrap()).unwrap();
                let event: Value = serde_json::from_slice(&event).unwrap();
                write!(frames, "\n  {}", event["type"].as_str().unwrap()).unwrap();
            }
            "exception" => {
                let said = str::from_utf8(message.payload()).unwrap();
                write!(frames, "\n  {} {said}", header(":exception-type").unwrap()).unwrap();
            }
            other => panic!("a message of the type {other}"),
        }
    }
    assert!(rest.is_empty(), "{} bytes are half a frame", rest.len());
    frames
}

/// Plays `n_requests` requests for the first turn, and compares what the client saw and, below
/// it, what the ledger says.
async fn check(turns: &str, stream: bool, n_requests: usize, expected: Expect) {
    let provider = start(&format!("turns:\n{turns}")).await;
    let mut story = String::new();
    for _ in 0..n_requests {
        let seen = scene(ask(&provider, &request(0, stream)).await).await;
        writeln!(story, "{seen}").unwrap();
    }
    for entry in provider.stop().await {
        let usage = entry.usage.map(|usage| (usage.input, usage.output));
        writeln!(story, "{} {:?} {:?} {usage:?}", entry.place, entry.status, entry.delivery)
            .unwrap();
    }
    expected.assert_eq(&story);
}

/// Waits for a fact.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let all = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("it happens in time");
}

const ANSWER: &str = "
  - text: I will write the file, and I will do so in more than one delta.
    tools: [ { Bash: { command: ls } } ]
    usage: { input: 100, output: 17 }
";

#[tokio::test]
async fn an_answer_is_the_same_however_often_it_is_asked_for() {
    check(
        ANSWER,
        true,
        2,
        expect![[r#"
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta
          content_block_delta
          content_block_stop
          content_block_start
          content_block_delta
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        200 text/event-stream; charset=utf-8 req_scripted_2
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta
          content_block_delta
          content_block_stop
          content_block_start
          content_block_delta
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        turn 1 of the main loop Some(200) Complete Some((100, 17))
        turn 1 of the main loop Some(200) Complete Some((100, 17))
    "#]],
    )
    .await;
    check(ANSWER, false, 2, expect![[r#"
        200 application/json req_scripted_1
          {"id":"msg_main_1","type":"message","role":"assistant","model":"claude-made-up","content":[{"type":"text","text":"I will write the file, and I will do so in more than one delta."},{"type":"tool_use","id":"toolu_main_1_1","name":"Bash","input":{"command":"ls"}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        200 application/json req_scripted_2
          {"id":"msg_main_1_again_1","type":"message","role":"assistant","model":"claude-made-up","content":[{"type":"text","text":"I will write the file, and I will do so in more than one delta."},{"type":"tool_use","id":"toolu_main_1_again_1_1","name":"Bash","input":{"command":"ls"}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        turn 1 of the main loop Some(200) Complete Some((100, 17))
        turn 1 of the main loop Some(200) Complete Some((100, 17))
    "#]]).await;
}

#[tokio::test]
async fn a_failure_has_anthropics_shape_and_ends_after_its_times() {
    let fail = "
  - fail: { status: 429, type: rate_limit_error, message: slow down, retry_after: 1, times: 2 }";
    check(&format!("{fail}{ANSWER}"), true, 3, expect![[r#"
        429 application/json req_scripted_1 1
          {"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_scripted_1"}
        429 application/json req_scripted_2 1
          {"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_scripted_2"}
        200 text/event-stream; charset=utf-8 req_scripted_3
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta
          content_block_delta
          content_block_stop
          content_block_start
          content_block_delta
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        turn 1 of the main loop Some(429) Complete None
        turn 1 of the main loop Some(429) Complete None
        turn 1 of the main loop Some(200) Complete Some((100, 17))
    "#]]).await;
    check("\n  - fail: { status: 529 }", false, 1, expect![[r#"
        529 application/json req_scripted_1
          {"type":"error","error":{"type":"overloaded_error","message":"scripted failure (overloaded_error)"},"request_id":"req_scripted_1"}
        turn 1 of the main loop Some(529) Complete None
    "#]]).await;
}

#[tokio::test]
async fn a_failure_inside_a_stream_is_an_event() {
    let fail = "\n  - fail: { status: 529, inside: after_headers }
  - fail: { status: 529, inside: after_block }";
    check(
        &format!("{fail}{ANSWER}"),
        true,
        2,
        expect![[r#"
        200 text/event-stream; charset=utf-8 req_scripted_1
          error
        200 text/event-stream; charset=utf-8 req_scripted_2
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta
          content_block_delta
          content_block_stop
          error
        turn 1 of the main loop Some(200) Failed None
        turn 1 of the main loop Some(200) Failed Some((100, 1))
    "#]],
    )
    .await;
    check(&format!("{fail}{ANSWER}"), false, 1, expect![[r#"
        529 application/json req_scripted_1
          {"type":"error","error":{"type":"overloaded_error","message":"scripted failure (overloaded_error)"},"request_id":"req_scripted_1"}
        turn 1 of the main loop Some(529) Complete None
    "#]]).await;
}

#[tokio::test]
async fn a_stream_is_cut_at_each_point() {
    let drops = "
  - drop: before
  - drop: after_headers
  - drop: mid_block
  - drop: after_block
  - drop: after_tool_block";
    check(
        &format!("{drops}{ANSWER}"),
        true,
        5,
        expect![[r#"
        no reply
        200 text/event-stream; charset=utf-8 req_scripted_2 CUT
        200 text/event-stream; charset=utf-8 req_scripted_3
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta CUT
        200 text/event-stream; charset=utf-8 req_scripted_4
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta
          content_block_delta
          content_block_stop CUT
        200 text/event-stream; charset=utf-8 req_scripted_5
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_delta
          content_block_delta
          content_block_stop
          content_block_start
          content_block_delta
          content_block_delta
          content_block_stop CUT
        turn 1 of the main loop None Cut None
        turn 1 of the main loop Some(200) Cut None
        turn 1 of the main loop Some(200) Cut Some((100, 1))
        turn 1 of the main loop Some(200) Cut Some((100, 1))
        turn 1 of the main loop Some(200) Cut Some((100, 1))
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_reply_that_is_not_streamed_is_cut_in_its_bytes() {
    let drops = "
  - drop: before
  - drop: after_headers
  - drop: mid_block";
    check(&format!("{drops}{ANSWER}"), false, 3, expect![[r#"
        no reply
        200 application/json req_scripted_2 CUT
        200 application/json req_scripted_3
          {"id":"msg_main_1_again_2","type":"message","role":"assistant","model":"claude-made-up","content":[{"type":"text","text":"I will write the file, and I will do so in more than one delta."},{"type":"tool_use","id":"toolu_main_1_again_2_1","name":"Bash","input":{"command CUT
        turn 1 of the main loop None Cut None
        turn 1 of the main loop Some(200) Cut None
        turn 1 of the main loop Some(200) Cut None
    "#]]).await;
}

#[tokio::test]
async fn a_raw_reply_is_sent_as_it_stands() {
    let raw = "
  - raw: { content_type: text/html, body: <html>hello</html> }
  - raw: { status: 502 }";
    check(
        &format!("{raw}{ANSWER}"),
        true,
        2,
        expect![[r#"
            200 text/html req_scripted_1
              <html>hello</html>
            502 text/plain req_scripted_2
            turn 1 of the main loop Some(200) Complete None
            turn 1 of the main loop Some(502) Complete None
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_request_that_hangs_is_abandoned_when_its_client_leaves() {
    let provider = start(&format!("turns:\n  - hang: true{ANSWER}")).await;
    let body = request(0, true);
    let asking = ask(&provider, &body);
    let asked = until(async || provider.ledger().len() == 1);
    tokio::select! {
        reply = asking => panic!("{reply:?}"),
        () = asked => {}
    }
    until(async || provider.ledger()[0].delivery == Delivery::Abandoned).await;
    assert_eq!(provider.ledger()[0].status, None);
}

#[tokio::test]
async fn stopping_ends_what_hangs_and_takes_no_more() {
    let provider = start("turns:\n  - hang: true").await;
    let (url, body) = (url(&provider, "/v1/messages"), request(0, true));
    let asking = client().post(&url).json(&body).send();
    let stopping = async {
        until(async || provider.ledger().len() == 1).await;
        provider.stop().await
    };
    let (reply, ledger) = tokio::join!(asking, stopping);
    assert!(reply.is_err());
    assert_eq!(ledger[0].delivery, Delivery::Abandoned);
    assert!(client().post(&url).json(&body).send().await.is_err());
}

#[tokio::test]
async fn a_running_reply_may_end_while_the_provider_stops() {
    let provider = start("turns: [{ text: slow, delay_ms: 300 }]").await;
    let (url, body) = (url(&provider, "/v1/messages"), request(0, false));
    let asking = client().post(&url).json(&body).send();
    let stopping = async {
        until(async || provider.ledger().len() == 1).await;
        provider.stop().await
    };
    let (reply, ledger) = tokio::join!(asking, stopping);
    assert_eq!(reply.unwrap().status(), 200);
    assert_eq!(ledger[0].delivery, Delivery::Complete);
}

#[tokio::test]
async fn a_dropped_provider_listens_no_more() {
    let provider = start("turns: [{ text: a }]").await;
    let url = url(&provider, "/");
    drop(provider);
    until(async || client().head(&url).send().await.is_err()).await;
}

#[tokio::test]
async fn the_small_endpoints_answer() {
    let provider = start("model: claude-made-up\nturns: [{ text: a }]").await;
    let requests = [
        (Method::HEAD, "/", ""),
        (Method::GET, "/v1/models?limit=1000", ""),
        (Method::POST, "/v1/messages/count_tokens", r#"{"messages":[]}"#),
        (Method::POST, "/v1/messages", "{"),
        (Method::GET, "/v1/messages", ""),
        (Method::POST, "/api/v1/messages", "{}"),
        (Method::HEAD, "/elsewhere", ""),
    ];
    let mut story = String::new();
    for (method, path, body) in requests {
        let sent = client().request(method.clone(), url(&provider, path)).body(body).send();
        writeln!(story, "{method} {path} {}", scene(sent.await).await).unwrap();
    }
    for entry in provider.stop().await {
        writeln!(story, "{} {} {:?}", entry.place, entry.unexpected, entry.delivery).unwrap();
    }
    expect![[r#"
        HEAD / 200 text/plain req_scripted_1
        GET /v1/models?limit=1000 200 application/json req_scripted_2
          {"data":[{"type":"model","id":"claude-made-up","display_name":"claude-made-up","created_at":"2026-01-01T00:00:00Z"}],"has_more":false,"first_id":"claude-made-up","last_id":"claude-made-up"}
        POST /v1/messages/count_tokens 200 application/json req_scripted_3
          {"input_tokens":3}
        POST /v1/messages 400 application/json req_scripted_4
          {"type":"error","error":{"type":"invalid_request_error","message":"the request body is not valid JSON: EOF while parsing an object at line 1 column 1"},"request_id":"req_scripted_4"}
        GET /v1/messages 404 application/json req_scripted_5
          {"type":"error","error":{"type":"not_found_error","message":"GET /v1/messages not found"},"request_id":"req_scripted_5"}
        POST /api/v1/messages 400 application/json req_scripted_6
          {"type":"error","error":{"type":"invalid_request_error","message":"model: Field required"},"request_id":"req_scripted_6"}
        HEAD /elsewhere 404 application/json req_scripted_7
        the look whether the service is there false Complete
        the list of models false Complete
        a token count false Complete
        no part of the script true Complete
        no part of the script true Complete
        no part of the script true Complete
        no part of the script true Complete
    "#]].assert_eq(&story);
}

#[tokio::test]
async fn the_ledger_says_what_was_asked_but_no_credential() {
    let provider = start("turns: [{ text: a }, { text: b }]").await;
    for (headers, n_done) in [
        (vec![], 0),
        (vec![("x-api-key", "sk-ant-made-up-1")], 1),
        (vec![("authorization", "Bearer sk-ant-made-up-2")], 2),
        (vec![("x-api-key", "sk-ant-made-up-1"), ("authorization", "Bearer x")], 0),
    ] {
        let mut asking = client().post(url(&provider, "/v1/messages?beta=true"));
        for (name, value) in headers {
            asking = asking.header(name, value);
        }
        asking.json(&request(n_done, false)).send().await.unwrap();
    }
    let ledger = provider.stop().await;
    assert_eq!(ledger[1].json(), Some(request(1, false)));
    let lines: Vec<String> = ledger
        .into_iter()
        .map(|e| format!("{:?}\n", super::LedgerEntry { body: None, ..e }))
        .collect();
    expect![[r#"
        LedgerEntry { request_id: "req_scripted_1", method: "POST", path: "/v1/messages", wire: Anthropic, auth: Auth { api_key: None, authorization: None }, model: Some("claude-made-up"), stream: false, n_messages: 1, n_request_bytes: 130, place: Main { turn: 1 }, unexpected: false, status: Some(200), usage: Some(SentUsage { input: 100, output: 1, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 }), delivery: Complete, body: None }
        LedgerEntry { request_id: "req_scripted_2", method: "POST", path: "/v1/messages", wire: Anthropic, auth: Auth { api_key: Some(Fingerprint("ff247e4e714baecc")), authorization: None }, model: Some("claude-made-up"), stream: false, n_messages: 3, n_request_bytes: 201, place: Main { turn: 2 }, unexpected: false, status: Some(200), usage: Some(SentUsage { input: 100, output: 1, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 }), delivery: Complete, body: None }
        LedgerEntry { request_id: "req_scripted_3", method: "POST", path: "/v1/messages", wire: Anthropic, auth: Auth { api_key: None, authorization: Some(Bearer { token: Fingerprint("9b7844166f62838f") }) }, model: Some("claude-made-up"), stream: false, n_messages: 5, n_request_bytes: 272, place: Main { turn: 3 }, unexpected: true, status: Some(200), usage: Some(SentUsage { input: 100, output: 1, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 }), delivery: Complete, body: None }
        LedgerEntry { request_id: "req_scripted_4", method: "POST", path: "/v1/messages", wire: Anthropic, auth: Auth { api_key: Some(Fingerprint("ff247e4e714baecc")), authorization: Some(Bearer { token: Fingerprint("2d711642b726b044") }) }, model: Some("claude-made-up"), stream: false, n_messages: 1, n_request_bytes: 130, place: Main { turn: 1 }, unexpected: false, status: Some(200), usage: Some(SentUsage { input: 100, output: 1, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0 }), delivery: Complete, body: None }
    "#]].assert_eq(&lines.concat());
}

#[tokio::test]
async fn usage_is_summed_by_model_over_whole_replies() {
    let provider = start(
        "
turns:
  - drop: after_block
  - fail: { status: 500 }
  - { text: a, usage: { input: 1, output: 20, cache_read: 300, cache_write_5m: 4, cache_write_1h: 5 } }
  - { text: b, usage: { input: 1, output: 20, cache_read: 300, cache_write_5m: 4, cache_write_1h: 5 } }
side: { text: A title, usage: { input: 11, output: 3 } }
",
    )
    .await;
    for n_done in [0, 0, 0, 1] {
        scene(ask(&provider, &request(n_done, true)).await).await;
    }
    let side = json!({
        "model": "claude-small", "tools": [], "messages": [{ "role": "user", "content": "go" }],
    });
    scene(ask(&provider, &side).await).await;
    let expected = [
        (
            "claude-made-up".to_owned(),
            SentUsage {
                input: 2,
                output: 40,
                cache_read: 600,
                cache_write_5m: 8,
                cache_write_1h: 10,
            },
        ),
        ("claude-small".to_owned(), SentUsage { input: 11, output: 3, ..SentUsage::default() }),
    ];
    assert_eq!(provider.usage_by_model(), expected.into());
}

#[tokio::test]
async fn a_long_text_arrives_whole() {
    let provider = start("turns: [{ text_repeat: { text: abcdefgh, times: 1000000 } }]").await;
    let reply = ask(&provider, &request(0, false)).await.unwrap();
    let body: Value = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
    let text = body["content"][0]["text"].as_str().unwrap();
    assert_eq!(text.len(), 8_000_000);
    let streamed = ask(&provider, &request(0, true)).await.unwrap().text().await.unwrap();
    let joined: String = streamed
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|event| Some(event["delta"]["text"].as_str()?.to_owned()))
        .collect();
    assert!(joined == text, "{} bytes were streamed", joined.len());
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let script = || Script::parse("turns: [{ text: a }]").unwrap();
    let provider = ScriptedProvider::start(script(), Listen::Unix(path.clone())).await.unwrap();
    let taken = ScriptedProvider::start(script(), Listen::Unix(path.clone())).await;
    assert!(matches!(taken, Err(ListenError::Unix { .. })), "{taken:?}");

    let client = {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder().unix_socket(path.clone()).timeout(LIMIT).build().unwrap()
    };
    let reply =
        client.post("http://localhost/v1/messages").json(&request(0, true)).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    reply.bytes().await.unwrap();
    let ledger = provider.stop().await;
    assert_eq!(ledger[0].place, Place::Main { turn: 1 });
    assert!(!path.exists());
}
