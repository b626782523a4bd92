//! One line of the CLI's `stream-json` output in our words. Reading cannot fail.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::{
    Content, Head, InitLine, MessageLine, RateLimitLine, ResultLine, SystemLine, WireBlock,
    WireTaskUsage, owned,
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
        (kind, "") => Ok(AgentEvent::Unknown { kind: clipped_kind(kind) }),
        (kind, subtype) => {
            Ok(AgentEvent::Unknown { kind: clipped_kind(&format!("{kind}/{subtype}")) })
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

/// Longest name of an unknown kind that is kept. A name is a word; this leaves room for a long one.
const KIND_BYTES: usize = 80;

fn clipped_kind(kind: &str) -> String {
    kind[..kind.floor_char_boundary(KIND_BYTES)].to_owned()
}

fn init(line: InitLine<'_>) -> AgentEvent {
    AgentEvent::Init(Init {
        session_id: owned(line.session_id),
        agent_version: owned(line.claude_code_version),
        model: owned(line.model),
        tools: line.tools.unwrap_or_default().into_iter().map(|tool| owned(Some(tool))).collect(),
        mcp_servers: line
            .mcp_servers
            .unwrap_or_default()
            .into_iter()
            .map(|server| McpServer { name: owned(server.name), status: owned(server.status) })
            .collect(),
        permission_mode: owned(line.permission_mode),
        credential_source: owned(line.api_key_source),
    })
}

fn assistant(line: MessageLine<'_>) -> Result<AgentEvent, String> {
    let Some(message) = line.message else {
        return Err("the assistant line has no readable `message`".to_owned());
    };
    let model = owned(message.model);
    let blocks = match Content::read(message.content) {
        Content::Bare(text) => vec![Block::Text(text)],
        Content::Blocks(blocks) => blocks.into_iter().map(block).collect(),
    };
    Ok(AgentEvent::Message(Message {
        message_id: owned(message.id),
        parent_tool_call: line.parent_tool_use_id.map(|id| owned(Some(id))),
        blocks,
        usage: message.usage.unwrap_or_default().into_usage(),
        error: line.error.map(|error| owned(Some(error))),
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
        "tool_use" => Block::ToolCall {
            id: owned(block.id),
            name: owned(block.name),
            input: block.input.map_or_else(|| "{}".to_owned(), |input| input.get().to_owned()),
        },
        kind => Block::Other { kind: clipped_kind(kind) },
    }
}

/// `user` lines carry either tool results or text; a line with both counts as results.
fn user(line: MessageLine<'_>) -> Result<AgentEvent, String> {
    let Some(message) = line.message else {
        return Err("the user line has no readable `message`".to_owned());
    };
    let parent_tool_call = line.parent_tool_use_id.map(|id| owned(Some(id)));
    let synthetic = line.is_synthetic.unwrap_or(false);
    let blocks = match Content::read(message.content) {
        Content::Bare(text) => {
            return Ok(AgentEvent::UserText(UserText { parent_tool_call, text, synthetic }));
        }
        Content::Blocks(blocks) => blocks,
    };
    let mut results = Vec::new();
    let mut texts = Vec::new();
    for block in blocks.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()) {
        let block: WireBlock<'_> = block;
        if block.kind.as_ref().is_some_and(|kind| kind.as_str() == "tool_result") {
            results.push(ToolResult {
                call_id: owned(block.tool_use_id),
                content: result_text(block.content),
                is_error: block.is_error.unwrap_or(false),
            });
        } else {
            texts.push(block_text(block));
        }
    }
    Ok(if results.is_empty() {
        AgentEvent::UserText(UserText { parent_tool_call, text: texts.join("\n"), synthetic })
    } else {
        AgentEvent::ToolResults(ToolResults { parent_tool_call, results })
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
    let Some(source) = block.source else { return format!("[{}]", clipped_kind(kind)) };
    let media_type = source.media_type.as_ref().map_or("unknown type", |kind| kind.as_str());
    // Four characters of base64 hold three bytes; two quotes stand around them.
    let n_bytes = source.data.map_or(0, |data| data.get().len().saturating_sub(2) / 4 * 3);
    format!("[{}: {}, about {n_bytes} bytes]", clipped_kind(kind), clipped_kind(media_type))
}

fn result(subtype: &str, line: ResultLine<'_>) -> AgentEvent {
    let mut usage = UsageByModel::default();
    for (model, totals) in line.model_usage.unwrap_or_default() {
        usage.add(&model, &totals.into_usage());
    }
    AgentEvent::Result(Box::new(AgentResult {
        session_id: owned(line.session_id),
        subtype: subtype.to_owned(),
        is_error: line.is_error.unwrap_or(true),
        api_error_status: line.api_error_status,
        text: owned(line.result),
        errors: line.errors.unwrap_or_default().into_iter().map(|text| owned(Some(text))).collect(),
        n_turns: line.num_turns.unwrap_or(0),
        stop_reason: line.stop_reason.map(|reason| owned(Some(reason))),
        terminal_reason: line.terminal_reason.map(|reason| owned(Some(reason))),
        duration_ms: whole_ms(line.duration_ms),
        duration_api_ms: whole_ms(line.duration_api_ms),
        usage,
        cost_usd: line.total_cost_usd,
        permission_denials: line
            .permission_denials
            .unwrap_or_default()
            .into_iter()
            .map(|denial| owned(denial.tool_name))
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
            error: owned(line.error),
        }),
        "status" => AgentEvent::Status(line.status.map(|status| owned(Some(status)))),
        "compact_boundary" => AgentEvent::Compacted(line.compact_metadata.map_or_else(
            Compacted::default,
            |compact| Compacted {
                trigger: owned(compact.trigger),
                tokens_before: compact.pre_tokens,
                tokens_after: compact.post_tokens,
            },
        )),
        "task_started" | "task_progress" | "task_updated" | "task_notification" => {
            AgentEvent::Task(task(subtype, line))
        }
        "hook_started" | "hook_response" => {
            AgentEvent::Hook(Hook { name: owned(line.hook_name), exit_code: line.exit_code })
        }
        "notification" => AgentEvent::Notice(owned(line.text)),
        "" => AgentEvent::Unknown { kind: "system".to_owned() },
        subtype => AgentEvent::Unknown { kind: clipped_kind(&format!("system/{subtype}")) },
    }
}

/// The states of a task that has ended.
const ENDED_TASK: [&str; 4] = ["completed", "failed", "stopped", "killed"];

fn task(subtype: &str, line: SystemLine<'_>) -> Task {
    let stage = match subtype {
        "task_started" => TaskStage::Started { kind: owned(line.task_type) },
        "task_progress" => {
            TaskStage::Progress { tool: line.last_tool_name.map(|tool| owned(Some(tool))) }
        }
        "task_notification" => TaskStage::Ended { status: owned(line.status) },
        // An update can say that the task ended; the notification then says it again and in full.
        _ => match line.patch.and_then(|patch| patch.status).map(|status| owned(Some(status))) {
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
        task_id: owned(line.task_id),
        tool_call: line.tool_use_id.map(|id| owned(Some(id))),
        stage,
        description: owned(line.description.or(line.summary)),
        usage,
    }
}

fn rate_limit(line: RateLimitLine<'_>) -> AgentEvent {
    AgentEvent::RateLimit(line.rate_limit_info.map_or_else(RateLimit::default, |info| RateLimit {
        status: owned(info.status),
        kind: owned(info.rate_limit_type),
        utilization: info.utilization,
        resets_at: info.resets_at,
    }))
}
