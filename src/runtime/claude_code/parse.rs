//! One line of the CLI's `stream-json` output in our words. Reading cannot fail.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::{
    Content, Head, InitLine, MessageLine, RateLimitLine, ResultLine, SystemLine, WireBlock,
    WireTaskUsage, clipped_word, optional_word, owned, word,
};
use crate::trajectory::{
    AgentEvent, AgentResult, Block, Compacted, Hook, Init, McpServer, Message, RateLimit, Retry,
    Task, TaskStage, TaskUsage, ToolResult, ToolResults, UsageByModel, UserText,
};

/// The model that the CLI names on messages of its own making.
pub(super) const SYNTHETIC_MODEL: &str = "<synthetic>";

/// Reads one line, with or without its line feed. Bytes that are not UTF-8 read as U+FFFD.
#[must_use]
pub fn parse_line(line: &[u8]) -> AgentEvent {
    let line = line.trim_ascii();
    if line.is_empty() {
        return unparsed("the line is empty");
    }
    let text = match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(line),
    };
    parse_text(&text).unwrap_or_else(|reason| unparsed(&reason))
}

fn unparsed(reason: &str) -> AgentEvent {
    AgentEvent::Unparsed { reason: reason.to_owned() }
}

fn parse_text(line: &str) -> Result<AgentEvent, String> {
    // serde would read an array as the fields in their order.
    if !line.starts_with('{') {
        return Err("the line is not a JSON object".to_owned());
    }
    let head: Head<'_> = read(line)?;
    let Some(kind) = head.kind else { return Err("the line has no `type`".to_owned()) };
    let subtype = head.subtype.as_ref().map_or("", |subtype| subtype.as_str());
    match (kind.as_str(), subtype) {
        ("system", "init") => Ok(init(read(line)?)),
        ("system", subtype) => Ok(system(subtype, read(line)?)),
        ("assistant", _) => assistant(read(line)?),
        ("user", _) => user(read(line)?),
        ("result", subtype) => Ok(result(subtype, read(line)?)),
        ("rate_limit_event", _) => Ok(rate_limit(read(line)?)),
        ("stream_event", _) => Ok(AgentEvent::Partial),
        (kind, "") => Ok(AgentEvent::Unknown { kind: clipped_word(kind) }),
        (kind, subtype) => {
            Ok(AgentEvent::Unknown { kind: clipped_word(&format!("{kind}/{subtype}")) })
        }
    }
}

/// Reads a line as `T`. The reason names where the text is broken and never quotes it.
fn read<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "the line breaks off",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                "the line is not JSON"
            }
            serde_json::error::Category::Data => "the line is not an event",
        };
        format!("{what} (at byte {})", error.column())
    })
}

fn init(line: InitLine<'_>) -> AgentEvent {
    AgentEvent::Init(Init {
        session_id: word(line.session_id),
        agent_version: word(line.claude_code_version),
        model: word(line.model),
        tools: line.tools.unwrap_or_default().into_iter().map(|tool| word(Some(tool))).collect(),
        mcp_servers: line
            .mcp_servers
            .unwrap_or_default()
            .into_iter()
            .map(|server| McpServer { name: word(server.name), status: word(server.status) })
            .collect(),
        permission_mode: word(line.permission_mode),
        credential_source: word(line.api_key_source),
    })
}

fn assistant(line: MessageLine<'_>) -> Result<AgentEvent, String> {
    let Some(message) = line.message else {
        return Err("the assistant line has no readable `message`".to_owned());
    };
    let model = word(message.model);
    let blocks = match Content::read(message.content) {
        Content::Bare(text) => vec![Block::Text(text)],
        Content::Blocks(blocks) => blocks.into_iter().map(block).collect(),
    };
    Ok(AgentEvent::Message(Message {
        message_id: word(message.id),
        parent_tool_call: optional_word(line.parent_tool_use_id),
        blocks,
        usage: message.usage.unwrap_or_default().into_usage(),
        error: optional_word(line.error),
        synthetic: model == SYNTHETIC_MODEL,
        model,
    }))
}

fn block(raw: &RawValue) -> Block {
    let Ok(block) = serde_json::from_str::<WireBlock<'_>>(raw.get()) else {
        return Block::Other { kind: "unreadable".to_owned() };
    };
    match block.kind.as_ref().map_or("", |kind| kind.as_str()) {
        "text" => Block::Text(owned(block.text)),
        "thinking" => Block::Thinking(owned(block.thinking)),
        "redacted_thinking" => Block::Thinking("[redacted by the provider]".to_owned()),
        "tool_use" => Block::ToolCall {
            id: word(block.id),
            name: word(block.name),
            input: block.input.map_or_else(|| "{}".to_owned(), |input| input.get().to_owned()),
        },
        kind => Block::Other { kind: clipped_word(kind) },
    }
}

/// `user` lines carry either tool results or text; a line with both counts as results.
fn user(line: MessageLine<'_>) -> Result<AgentEvent, String> {
    let Some(message) = line.message else {
        return Err("the user line has no readable `message`".to_owned());
    };
    let parent_tool_call = optional_word(line.parent_tool_use_id);
    let synthetic = line.is_synthetic.unwrap_or(false);
    let timestamp = line.timestamp;
    let blocks = match Content::read(message.content) {
        Content::Bare(text) => {
            return Ok(AgentEvent::UserText(UserText {
                parent_tool_call,
                text,
                synthetic,
                timestamp,
            }));
        }
        Content::Blocks(blocks) => blocks,
    };
    let mut results = Vec::new();
    let mut texts = Vec::new();
    for block in blocks.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()) {
        let block: WireBlock<'_> = block;
        if block.kind.as_ref().is_some_and(|kind| kind.as_str() == "tool_result") {
            results.push(ToolResult {
                call_id: word(block.tool_use_id),
                content: result_text(block.content),
                is_error: block.is_error.unwrap_or(false),
            });
        } else {
            texts.push(block_text(block));
        }
    }
    Ok(if results.is_empty() {
        AgentEvent::UserText(UserText {
            parent_tool_call,
            text: texts.join("\n"),
            synthetic,
            timestamp,
        })
    } else {
        AgentEvent::ToolResults(ToolResults { parent_tool_call, results, timestamp })
    })
}

/// What the model saw of a tool's result, as text.
fn result_text(content: Option<&RawValue>) -> String {
    match Content::read(content) {
        Content::Bare(text) => text,
        Content::Blocks(blocks) => {
            let texts: Vec<String> = blocks
                .into_iter()
                .map(|raw| match serde_json::from_str::<WireBlock<'_>>(raw.get()) {
                    Ok(block) => block_text(block),
                    Err(_) => "[unreadable]".to_owned(),
                })
                .collect();
            texts.join("\n")
        }
    }
}

/// A block as text. Bytes are measured, not kept.
fn block_text(block: WireBlock<'_>) -> String {
    let kind = block.kind.as_ref().map_or("unreadable", |kind| kind.as_str());
    if kind == "text" {
        return owned(block.text);
    }
    let Some(source) = block.source else { return format!("[{}]", clipped_word(kind)) };
    let media_type = source.media_type.as_ref().map_or("unknown type", |kind| kind.as_str());
    // Four characters of base64 hold three bytes; two quotes stand around them.
    let n_bytes = source.data.map_or(0, |data| data.get().len().saturating_sub(2) / 4 * 3);
    format!("[{}: {}, about {n_bytes} bytes]", clipped_word(kind), clipped_word(media_type))
}

fn result(subtype: &str, line: ResultLine<'_>) -> AgentEvent {
    let mut usage = UsageByModel::default();
    for (model, totals) in line.model_usage.unwrap_or_default() {
        usage.add(&clipped_word(&model), &totals.into_usage());
    }
    AgentEvent::Result(Box::new(AgentResult {
        session_id: word(line.session_id),
        subtype: clipped_word(subtype),
        is_error: line.is_error.unwrap_or(true),
        api_error_status: line.api_error_status,
        text: owned(line.result),
        errors: line.errors.unwrap_or_default().into_iter().map(|text| owned(Some(text))).collect(),
        n_turns: line.num_turns.unwrap_or(0),
        stop_reason: optional_word(line.stop_reason),
        terminal_reason: optional_word(line.terminal_reason),
        duration_ms: whole_ms(line.duration_ms),
        duration_api_ms: whole_ms(line.duration_api_ms),
        usage,
        cost_usd: line.total_cost_usd,
        permission_denials: line
            .permission_denials
            .unwrap_or_default()
            .into_iter()
            .map(|denial| word(denial.tool_name))
            .collect(),
    }))
}

/// Milliseconds without their fraction. A negative or absurd number is cut to the nearest whole one
/// there is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float's cast saturates, which is what is wanted"
)]
fn whole_ms(ms: Option<f64>) -> u64 {
    ms.unwrap_or(0.0) as u64
}

fn system(subtype: &str, line: SystemLine<'_>) -> AgentEvent {
    match subtype {
        "api_retry" => AgentEvent::Retry(Retry {
            attempt: line.attempt.unwrap_or(0),
            max_retries: line.max_retries.unwrap_or(0),
            delay_ms: whole_ms(line.retry_delay_ms),
            status: line.error_status,
            error: word(line.error),
        }),
        "status" => AgentEvent::Status(optional_word(line.status)),
        "compact_boundary" => AgentEvent::Compacted(line.compact_metadata.map_or_else(
            Compacted::default,
            |compact| Compacted {
                trigger: word(compact.trigger),
                tokens_before: compact.pre_tokens,
                tokens_after: compact.post_tokens,
            },
        )),
        "task_started" | "task_progress" | "task_updated" | "task_notification" => {
            AgentEvent::Task(task(subtype, line))
        }
        "hook_started" | "hook_response" => {
            AgentEvent::Hook(Hook { name: word(line.hook_name), exit_code: line.exit_code })
        }
        "notification" => AgentEvent::Notice(owned(line.text)),
        "" => AgentEvent::Unknown { kind: "system".to_owned() },
        subtype => AgentEvent::Unknown { kind: clipped_word(&format!("system/{subtype}")) },
    }
}

/// The states of a task that has ended.
const ENDED_TASK: [&str; 4] = ["completed", "failed", "stopped", "killed"];

fn task(subtype: &str, line: SystemLine<'_>) -> Task {
    let stage = match subtype {
        "task_started" => TaskStage::Started { kind: word(line.task_type) },
        "task_progress" => TaskStage::Progress { tool: optional_word(line.last_tool_name) },
        "task_notification" => TaskStage::Ended { status: word(line.status) },
        // An update can say that the task ended; the notification then says it again and in full.
        _ => match line.patch.and_then(|patch| patch.status).map(|status| word(Some(status))) {
            Some(status) if ENDED_TASK.contains(&status.as_str()) => TaskStage::Ended { status },
            Some(_) | None => TaskStage::Updated,
        },
    };
    let usage = line.usage.map(|usage: WireTaskUsage| TaskUsage {
        total_tokens: usage.total_tokens.unwrap_or(0),
        tool_uses: usage.tool_uses.unwrap_or(0),
        duration_ms: usage.duration_ms.unwrap_or(0),
    });
    Task {
        task_id: word(line.task_id),
        tool_call: optional_word(line.tool_use_id),
        stage,
        description: owned(line.description.or(line.summary)),
        usage,
    }
}

fn rate_limit(line: RateLimitLine<'_>) -> AgentEvent {
    AgentEvent::RateLimit(line.rate_limit_info.map_or_else(RateLimit::default, |info| RateLimit {
        status: word(info.status),
        kind: word(info.rate_limit_type),
        utilization: info.utilization,
        resets_at: info.resets_at,
    }))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::golden::recorded_streams;
    use super::*;
    use crate::trajectory::Recorder;

    fn check(line: &str, expected: Expect) {
        expected.assert_eq(&format!("{:?}", parse_line(line.as_bytes())));
    }

    #[test]
    fn lines_that_are_no_events_are_kept_with_a_reason() {
        check("", expect![[r#"Unparsed { reason: "the line is empty" }"#]]);
        check("not json", expect![[r#"Unparsed { reason: "the line is not a JSON object" }"#]]);
        check("{not json", expect![[r#"Unparsed { reason: "the line is not JSON (at byte 2)" }"#]]);
        check(
            r#"["system","init"]"#,
            expect![[r#"Unparsed { reason: "the line is not a JSON object" }"#]],
        );
        check("{}", expect![[r#"Unparsed { reason: "the line has no `type`" }"#]]);
        check(r#"{"type":7}"#, expect![[r#"Unparsed { reason: "the line has no `type`" }"#]]);
        check(
            r#"{"type":"assistant"}"#,
            expect![[r#"Unparsed { reason: "the assistant line has no readable `message`" }"#]],
        );
        check(
            r#"{"type":"result","subtype":"succ"#,
            expect![[r#"Unparsed { reason: "the line breaks off (at byte 32)" }"#]],
        );
    }

    #[test]
    fn kinds_that_nobody_knows_are_kept_by_name() {
        check(r#"{"type":"keep_alive"}"#, expect![[r#"Unknown { kind: "keep_alive" }"#]]);
        check(
            r#"{"type":"system","subtype":"plugin_install"}"#,
            expect![[r#"Unknown { kind: "system/plugin_install" }"#]],
        );
        check(r#"{"type":"future","subtype":"x"}"#, expect![[r#"Unknown { kind: "future/x" }"#]]);
    }

    #[test]
    fn a_field_of_a_wrong_type_costs_that_field_alone() {
        check(
            r#"{"type":"result","subtype":"success","is_error":"no","num_turns":"3","result":["x"],
                "modelUsage":{"m":{"inputTokens":"many","outputTokens":5}},"errors":null}"#,
            expect![[
                r#"Result(AgentResult { session_id: "", subtype: "success", is_error: true, api_error_status: None, text: "", errors: [], n_turns: 0, stop_reason: None, terminal_reason: None, duration_ms: 0, duration_api_ms: 0, usage: UsageByModel({"m": Usage { input: 0, output: 5, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0, cache_write_unsplit: 0, requests_seen: 0, web_searches: 0, cost_usd: None, cost_basis: Unknown }}), cost_usd: None, permission_denials: [] })"#
            ]],
        );
        check(
            r#"{"type":"assistant","message":{"id":1,"model":"m","usage":"none","content":
                [7,{"type":"text","text":"hi"},{"type":"tool_use","id":"t","name":"N"},{"type":"new"}]}}"#,
            expect![[
                r#"Message(Message { message_id: "", model: "m", parent_tool_call: None, blocks: [Other { kind: "unreadable" }, Text("hi"), ToolCall { id: "t", name: "N", input: "{}" }, Other { kind: "new" }], usage: Usage { input: 0, output: 0, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0, cache_write_unsplit: 0, requests_seen: 0, web_searches: 0, cost_usd: None, cost_basis: Unknown }, error: None, synthetic: false })"#
            ]],
        );
        check(
            r#"{"type":"system","subtype":"api_retry","attempt":-1,"retry_delay_ms":-5.5,
                "error_status":"429","error":"rate_limit"}"#,
            expect![[
                r#"Retry(Retry { attempt: 0, max_retries: 0, delay_ms: 0, status: None, error: "rate_limit" })"#
            ]],
        );
    }

    #[test]
    fn the_result_of_a_tool_may_be_text_blocks_an_image_or_missing() {
        check(
            r#"{"type":"user","tool_use_result":{"huge":[1,2]},"timestamp":"2026-11-20T23:18:09.120Z",
                "message":{"content":[
                {"type":"tool_result","tool_use_id":"a","content":"text"},
                {"type":"tool_result","tool_use_id":"b","is_error":true,"content":[
                    {"type":"text","text":"one"},
                    {"type":"image","source":{"media_type":"image/png","data":"AAAABBBB"}}]},
                {"type":"tool_result","tool_use_id":"c"}]}}"#,
            expect![[
                r#"ToolResults(ToolResults { parent_tool_call: None, results: [ToolResult { call_id: "a", content: "text", is_error: false }, ToolResult { call_id: "b", content: "one\n[image: image/png, about 6 bytes]", is_error: true }, ToolResult { call_id: "c", content: "", is_error: false }], timestamp: Some(2026-11-20T23:18:09.12Z) })"#
            ]],
        );
        check(
            r#"{"type":"user","message":{"content":"bare"},"isSynthetic":true}"#,
            expect![[
                r#"UserText(UserText { parent_tool_call: None, text: "bare", synthetic: true, timestamp: None })"#
            ]],
        );
    }

    #[test]
    fn cache_writes_are_split_where_the_provider_splits_them() {
        let usage = |usage: &str| {
            let line =
                format!(r#"{{"type":"assistant","message":{{"id":"m","usage":{{{usage}}}}}}}"#);
            let AgentEvent::Message(message) = parse_line(line.as_bytes()) else {
                panic!("{line}")
            };
            let usage = message.usage;
            [usage.cache_write_5m, usage.cache_write_1h, usage.cache_write_unsplit]
        };
        let split =
            r#""cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4}"#;
        assert_eq!(usage(split), [3, 4, 0]);
        assert_eq!(usage(&format!(r#""cache_creation_input_tokens":10,{split}"#)), [3, 4, 3]);
        assert_eq!(usage(&format!(r#""cache_creation_input_tokens":6,{split}"#)), [0, 0, 6]);
        assert_eq!(usage(r#""cache_creation_input_tokens":6"#), [0, 0, 6]);
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_cost_the_line() {
        let event = parse_line(
            b"{\"type\":\"system\",\"subtype\":\"notification\",\"text\":\"a\xffb\"}\r\n",
        );
        assert_eq!(event, AgentEvent::Notice("a\u{fffd}b".to_owned()));
    }

    proptest! {
        #[test]
        fn reading_never_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_line(&line);
        }

        #[test]
        fn reading_a_damaged_line_never_panics(
            stream in any::<prop::sample::Index>(),
            line in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let streams = recorded_streams();
            let lines: Vec<&[u8]> =
                stream.get(&streams).stream.split_inclusive(|&byte| byte == b'\n').collect();
            if !lines.is_empty() {
                let mut line = line.get(&lines).to_vec();
                let cut = cut.index(line.len());
                let unparsed = matches!(parse_line(&line[..cut]), AgentEvent::Unparsed { .. });
                prop_assert!(unparsed || cut + 1 >= line.len(), "a part of a line was read as a whole");
                line[cut] = byte;
                Recorder::new().record(1, Timestamp::UNIX_EPOCH, parse_line(&line));
            }
        }
    }
}
