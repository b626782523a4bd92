//! The same script on every wire: paths, frames, errors, and what the ledger says of each.

use super::*;
use crate::provider::scripted::{Auth, Authorization, Fingerprint, LedgerEntry, Wire};

const BEDROCK: &str = "/model/us.anthropic.made-up-v1:0";
const VERTEX: &str =
    "/v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1";

/// The path of a message on each wire.
fn paths(stream: bool) -> [String; 5] {
    let (invoke, predict) = match stream {
        true => ("invoke-with-response-stream", "streamRawPredict"),
        false => ("invoke", "rawPredict"),
    };
    [
        "/v1/messages".to_owned(),
        "/anthropic/v1/messages".to_owned(),
        "/api/v1/messages".to_owned(),
        format!("{BEDROCK}/{invoke}"),
        format!("{VERTEX}:{predict}"),
    ]
}

/// The body that goes with a path: where the path names the model, the body names the version.
fn body(path: &str, n_done: usize, stream: bool) -> Value {
    let mut body = request(n_done, stream);
    if path.starts_with(BEDROCK) || path.starts_with(VERTEX) {
        let fields = body.as_object_mut().unwrap();
        fields.remove("model");
        fields.remove("stream");
        fields.insert("anthropic_version".to_owned(), json!("made-up-2023"));
    }
    body
}

async fn post(provider: &ScriptedProvider, path: &str, body: &Value) -> String {
    scene(client().post(url(provider, path)).json(body).send().await).await
}

/// A line of the ledger, as far as the wires differ.
fn line(entry: &LedgerEntry) -> String {
    let LedgerEntry { wire, model, stream, place, status, delivery, unexpected, .. } = entry;
    let usage = entry.usage.map(|usage| (usage.input, usage.output));
    let mark = if *unexpected { "!" } else { "" };
    let model = model.as_deref().unwrap_or("-");
    format!("{mark}{wire:?} {model} {stream} {place}: {status:?} {delivery:?} {usage:?}")
}

/// Asks for the first turn once on each wire, and compares what was seen and what was noted.
async fn check(turns: &str, stream: bool, expected: Expect) {
    let mut story = String::new();
    for path in paths(stream) {
        let provider = start(&format!("turns:\n{turns}")).await;
        let seen = post(&provider, &path, &body(&path, 0, stream)).await;
        let noted = line(&provider.stop().await[0]);
        writeln!(story, "{path}\n{seen}\n{noted}").unwrap();
    }
    expected.assert_eq(&story);
}

const SAID: &str = "
  - text: Hello.
    usage: { input: 100, output: 17 }
";

#[tokio::test]
async fn an_answer_is_streamed_on_every_wire() {
    check(SAID, true, expect![[r#"
        /v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /anthropic/v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /api/v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        OpenRouter claude-made-up true turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /model/us.anthropic.made-up-v1:0/invoke-with-response-stream
        200 application/vnd.amazon.eventstream x-amzn-requestid=req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        Bedrock us.anthropic.made-up-v1:0 true turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:streamRawPredict
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop
          message_delta
          message_stop
        Vertex made-up@1 true turn 1 of the main loop: Some(200) Complete Some((100, 17))
    "#]]).await;
}

#[tokio::test]
async fn an_answer_is_sent_whole_on_every_wire() {
    check(SAID, false, expect![[r#"
        /v1/messages
        200 application/json req_scripted_1
          {"id":"msg_main_1","type":"message","role":"assistant","model":"claude-made-up","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        Anthropic claude-made-up false turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /anthropic/v1/messages
        200 application/json req_scripted_1
          {"id":"msg_main_1","type":"message","role":"assistant","model":"claude-made-up","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        Anthropic claude-made-up false turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /api/v1/messages
        200 application/json req_scripted_1
          {"id":"msg_main_1","type":"message","role":"assistant","model":"claude-made-up","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        OpenRouter claude-made-up false turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /model/us.anthropic.made-up-v1:0/invoke
        200 application/json x-amzn-requestid=req_scripted_1
          {"id":"msg_main_1","type":"message","role":"assistant","model":"us.anthropic.made-up-v1:0","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        Bedrock us.anthropic.made-up-v1:0 false turn 1 of the main loop: Some(200) Complete Some((100, 17))
        /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:rawPredict
        200 application/json req_scripted_1
          {"id":"msg_main_1","type":"message","role":"assistant","model":"made-up@1","content":[{"type":"text","text":"Hello."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":17,"service_tier":"standard"}}
        Vertex made-up@1 false turn 1 of the main loop: Some(200) Complete Some((100, 17))
    "#]]).await;
}

#[tokio::test]
async fn a_failure_has_the_shape_of_its_wire() {
    let fail = "\n  - fail: { status: 429, message: slow down, retry_after: 1 }";
    check(fail, true, expect![[r#"
        /v1/messages
        429 application/json req_scripted_1 1
          {"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_scripted_1"}
        Anthropic claude-made-up true turn 1 of the main loop: Some(429) Complete None
        /anthropic/v1/messages
        429 application/json req_scripted_1 1
          {"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_scripted_1"}
        Anthropic claude-made-up true turn 1 of the main loop: Some(429) Complete None
        /api/v1/messages
        429 application/json req_scripted_1 1
          {"type":"error","error":{"type":"rate_limit_error","message":"slow down"},"request_id":"req_scripted_1"}
        OpenRouter claude-made-up true turn 1 of the main loop: Some(429) Complete None
        /model/us.anthropic.made-up-v1:0/invoke-with-response-stream
        429 application/json x-amzn-requestid=req_scripted_1 x-amzn-errortype=ThrottlingException 1
          {"message":"slow down"}
        Bedrock us.anthropic.made-up-v1:0 true turn 1 of the main loop: Some(429) Complete None
        /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:streamRawPredict
        429 application/json req_scripted_1 1
          {"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}
        Vertex made-up@1 true turn 1 of the main loop: Some(429) Complete None
    "#]]).await;
}

#[tokio::test]
async fn a_failure_inside_a_stream_has_the_shape_of_its_wire() {
    let fail = "\n  - fail: { status: 429, message: slow down, inside: mid_block }";
    check(&format!("{fail}{SAID}"), true, expect![[r#"
        /v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          error
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Failed Some((100, 1))
        /anthropic/v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          error
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Failed Some((100, 1))
        /api/v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          error
        OpenRouter claude-made-up true turn 1 of the main loop: Some(200) Failed Some((100, 1))
        /model/us.anthropic.made-up-v1:0/invoke-with-response-stream
        200 application/vnd.amazon.eventstream x-amzn-requestid=req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          throttlingException {"message":"slow down"}
        Bedrock us.anthropic.made-up-v1:0 true turn 1 of the main loop: Some(200) Failed Some((100, 1))
        /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:streamRawPredict
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          error
        Vertex made-up@1 true turn 1 of the main loop: Some(200) Failed Some((100, 1))
    "#]]).await;
}

#[tokio::test]
async fn a_stream_is_cut_between_two_frames() {
    check(&format!("\n  - drop: after_block{SAID}"), true, expect![[r#"
        /v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop CUT
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Cut Some((100, 1))
        /anthropic/v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop CUT
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Cut Some((100, 1))
        /api/v1/messages
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop CUT
        OpenRouter claude-made-up true turn 1 of the main loop: Some(200) Cut Some((100, 1))
        /model/us.anthropic.made-up-v1:0/invoke-with-response-stream
        200 application/vnd.amazon.eventstream x-amzn-requestid=req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop CUT
        Bedrock us.anthropic.made-up-v1:0 true turn 1 of the main loop: Some(200) Cut Some((100, 1))
        /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:streamRawPredict
        200 text/event-stream; charset=utf-8 req_scripted_1
          message_start
          content_block_start
          ping
          content_block_delta
          content_block_stop CUT
        Vertex made-up@1 true turn 1 of the main loop: Some(200) Cut Some((100, 1))
    "#]]).await;
}

#[tokio::test]
async fn the_turns_go_on_from_wire_to_wire() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::parse(
        "
turns: [{ text: a }, { text: b }, { text: c }, { text: d }, { text: e }]
after_end: refuse
",
    );
    let socket = Listen::Unix(folder.path().join("api.sock"));
    let provider = ScriptedProvider::start(script.unwrap(), socket.clone()).await.unwrap();
    let Listen::Unix(socket) = socket else { unreachable!("it was made as one") };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().unix_socket(socket).timeout(LIMIT).build().unwrap();
    for (n_done, path) in paths(true).iter().enumerate() {
        let asking = client.post(url(&provider, path)).json(&body(path, n_done, true)).send();
        assert!(scene(asking.await).await.starts_with("200 "), "{path}");
    }
    let lines: Vec<String> = provider.stop().await.iter().map(line).collect();
    expect![[r#"
        Anthropic claude-made-up true turn 1 of the main loop: Some(200) Complete Some((100, 1))
        Anthropic claude-made-up true turn 2 of the main loop: Some(200) Complete Some((100, 1))
        OpenRouter claude-made-up true turn 3 of the main loop: Some(200) Complete Some((100, 1))
        Bedrock us.anthropic.made-up-v1:0 true turn 4 of the main loop: Some(200) Complete Some((100, 1))
        Vertex made-up@1 true turn 5 of the main loop: Some(200) Complete Some((100, 1))"#]].assert_eq(&lines.join("\n"));
}

#[tokio::test]
async fn side_calls_and_sub_agents_are_known_on_every_wire() {
    let script = "
turns: [{ text: a }]
subagents: [{ when: count the files, turns: [{ text: b }] }]
side: { text: A title }
";
    let mut story = String::new();
    for path in paths(false) {
        let provider = start(script).await;
        let mut title = body(&path, 0, false);
        title["tools"] = json!([]);
        title["system"] =
            json!([{ "type": "text", "text": "Return JSON with a single \"title\" field." }]);
        let mut subagent = body(&path, 0, false);
        subagent["tools"] = json!([{ "name": "Bash", "input_schema": {} }]);
        subagent["messages"] = json!([{ "role": "user", "content": "count the files" }]);
        let seen = post(&provider, &path, &title).await;
        let (_, message) = seen.split_once("\n  ").unwrap();
        let message: Value = serde_json::from_str(message).unwrap();
        assert_eq!(message["content"][0]["text"], r#"{"title":"A title"}"#);
        post(&provider, &path, &subagent).await;
        for entry in provider.stop().await {
            writeln!(story, "{}", line(&entry)).unwrap();
        }
    }
    expect![[r#"
        Anthropic claude-made-up false a side call: Some(200) Complete Some((100, 1))
        Anthropic claude-made-up false turn 1 of sub-agent 1: Some(200) Complete Some((100, 1))
        Anthropic claude-made-up false a side call: Some(200) Complete Some((100, 1))
        Anthropic claude-made-up false turn 1 of sub-agent 1: Some(200) Complete Some((100, 1))
        OpenRouter claude-made-up false a side call: Some(200) Complete Some((100, 1))
        OpenRouter claude-made-up false turn 1 of sub-agent 1: Some(200) Complete Some((100, 1))
        Bedrock us.anthropic.made-up-v1:0 false a side call: Some(200) Complete Some((100, 1))
        Bedrock us.anthropic.made-up-v1:0 false turn 1 of sub-agent 1: Some(200) Complete Some((100, 1))
        Vertex made-up@1 false a side call: Some(200) Complete Some((100, 1))
        Vertex made-up@1 false turn 1 of sub-agent 1: Some(200) Complete Some((100, 1))
    "#]].assert_eq(&story);
}

/// Sends each request, and compares what was seen and, below it, what was noted.
async fn check_small(requests: &[(Method, &str, &str)], expected: Expect) {
    let provider = start("model: claude-made-up\nturns: [{ text: a }]").await;
    let mut story = String::new();
    for &(ref method, path, body) in requests {
        let sent = client().request(method.clone(), url(&provider, path)).body(body.to_owned());
        writeln!(story, "{method} {path}\n{}", scene(sent.send().await).await).unwrap();
    }
    for entry in provider.stop().await {
        writeln!(story, "{}", line(&entry)).unwrap();
    }
    expected.assert_eq(&story);
}

#[tokio::test]
async fn the_small_endpoints_stand_below_their_base() {
    let requests = [
        (Method::HEAD, "/anthropic", ""),
        (Method::GET, "/anthropic/v1/models?limit=1000", ""),
        (Method::HEAD, "/api", ""),
        (Method::GET, "/api/v1/models", ""),
        (Method::POST, "/api/v1/messages", "{}"),
        (Method::POST, "/api/v1/v1/messages", "{}"),
    ];
    check_small(&requests, expect![[r#"
        HEAD /anthropic
        200 text/plain req_scripted_1
        GET /anthropic/v1/models?limit=1000
        200 application/json req_scripted_2
          {"data":[{"type":"model","id":"claude-made-up","display_name":"claude-made-up","created_at":"2026-01-01T00:00:00Z"}],"has_more":false,"first_id":"claude-made-up","last_id":"claude-made-up"}
        HEAD /api
        200 text/plain req_scripted_3
        GET /api/v1/models
        200 application/json req_scripted_4
          {"data":[{"type":"model","id":"claude-made-up","display_name":"claude-made-up","created_at":"2026-01-01T00:00:00Z"}],"has_more":false,"first_id":"claude-made-up","last_id":"claude-made-up"}
        POST /api/v1/messages
        400 application/json req_scripted_5
          {"type":"error","error":{"type":"invalid_request_error","message":"model: Field required"},"request_id":"req_scripted_5"}
        POST /api/v1/v1/messages
        404 text/html; charset=utf-8 req_scripted_6
          <!DOCTYPE html><html lang="en"><head><title>404</title></head><body><h1>This page could not be found.</h1></body></html>

        Anthropic - false the look whether the service is there: Some(200) Complete None
        Anthropic - false the list of models: Some(200) Complete None
        OpenRouter - false the look whether the service is there: Some(200) Complete None
        OpenRouter - false the list of models: Some(200) Complete None
        !OpenRouter - false no part of the script: Some(400) Complete None
        !OpenRouter - false no part of the script: Some(404) Complete None
    "#]]).await;
}

#[tokio::test]
async fn the_small_endpoints_of_bedrock_answer() {
    let profile = "/inference-profiles/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Amade-up%2Fabc";
    let requests = [
        (Method::GET, "/inference-profiles?type=SYSTEM_DEFINED", ""),
        (Method::GET, profile, ""),
        (Method::POST, "/model/made-up/count-tokens", r#"{"input":{}}"#),
        (Method::POST, "/model/made-up/invoke", r#"{"messages":[]}"#),
        (Method::POST, "/model/made-up/converse", "{}"),
    ];
    check_small(&requests, expect![[r#"
        GET /inference-profiles?type=SYSTEM_DEFINED
        200 application/json x-amzn-requestid=req_scripted_1
          {"inferenceProfileSummaries":[]}
        GET /inference-profiles/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Amade-up%2Fabc
        404 application/json x-amzn-requestid=req_scripted_2 x-amzn-errortype=ResourceNotFoundException
          {"message":"there is no such inference profile"}
        POST /model/made-up/count-tokens
        200 application/json x-amzn-requestid=req_scripted_3
          {"inputTokens":3}
        POST /model/made-up/invoke
        400 application/json x-amzn-requestid=req_scripted_4 x-amzn-errortype=ValidationException
          {"message":"anthropic_version: Field required"}
        POST /model/made-up/converse
        404 application/json x-amzn-requestid=req_scripted_5 x-amzn-errortype=ResourceNotFoundException
          {"message":"POST /model/made-up/converse not found"}
        Bedrock - false the list of models: Some(200) Complete None
        Bedrock - false the list of models: Some(404) Complete None
        Bedrock - false a token count: Some(200) Complete None
        !Bedrock - false no part of the script: Some(400) Complete None
        !Bedrock - false no part of the script: Some(404) Complete None
    "#]]).await;
}

#[tokio::test]
async fn the_small_endpoints_of_vertex_answer() {
    let counter = VERTEX.replace("made-up@1", "count-tokens:rawPredict");
    let requests = [
        (Method::POST, counter.as_str(), r#"{"messages":[]}"#),
        (Method::POST, &format!("{VERTEX}:rawPredict"), "{"),
        (Method::POST, &format!("{VERTEX}:predict"), "{}"),
    ];
    check_small(&requests, expect![[r#"
        POST /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/count-tokens:rawPredict
        200 application/json req_scripted_1
          {"input_tokens":3}
        POST /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:rawPredict
        400 application/json req_scripted_2
          {"error":{"code":400,"message":"the request body is not valid JSON: EOF while parsing an object at line 1 column 1","status":"INVALID_ARGUMENT"}}
        POST /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:predict
        404 application/json req_scripted_3
          {"error":{"code":404,"message":"POST /v1/projects/made-up/locations/us-east5/publishers/anthropic/models/made-up@1:predict not found","status":"NOT_FOUND"}}
        Vertex - false a token count: Some(200) Complete None
        !Vertex - false no part of the script: Some(400) Complete None
        !Vertex - false no part of the script: Some(404) Complete None
    "#]]).await;
}

#[tokio::test]
async fn the_ledger_names_the_credential_of_each_request() {
    let signed = "AWS4-HMAC-SHA256 \
        Credential=AKIAMADEUP/20261120/eu-west-1/bedrock/aws4_request, \
        SignedHeaders=host, Signature=92ea71";
    let provider = start("turns: [{ text: a }]").await;
    let key = ("x-api-key", "sk-ant-made-up");
    for (path, headers) in [
        (format!("{BEDROCK}/invoke"), vec![("authorization", "Bearer ABSK-made-up")]),
        // The agent CLI sends the key of another service along, where it has one.
        (format!("{BEDROCK}/invoke"), vec![("authorization", signed), key]),
        ("/api/v1/messages".to_owned(), vec![("authorization", "Bearer sk-or-made-up")]),
    ] {
        let mut asking = client().post(url(&provider, &path)).json(&body(&path, 0, false));
        for (name, value) in headers {
            asking = asking.header(name, value);
        }
        asking.send().await.unwrap();
    }
    let seen: Vec<(Wire, Auth)> =
        provider.stop().await.into_iter().map(|entry| (entry.wire, entry.auth)).collect();
    let bearer = |token| Auth {
        api_key: None,
        authorization: Some(Authorization::Bearer { token: Fingerprint::of(token) }),
    };
    let sigv4 = Authorization::SigV4 {
        access_key_id: Fingerprint::of("AKIAMADEUP"),
        session_token: None,
        region: "eu-west-1".to_owned(),
        service: "bedrock".to_owned(),
    };
    let both =
        Auth { api_key: Some(Fingerprint::of("sk-ant-made-up")), authorization: Some(sigv4) };
    assert_eq!(
        seen,
        [
            (Wire::Bedrock, bearer("ABSK-made-up")),
            (Wire::Bedrock, both),
            (Wire::OpenRouter, bearer("sk-or-made-up")),
        ]
    );
}
