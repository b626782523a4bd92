//! What a content has the model service fetch: where the pictures and documents in it come from,
//! however deep they lie.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::blocks::{Gather, gather};

/// Deepest nesting of content. The agent CLI has results in messages and blocks in results; a
/// document can have blocks again.
const MAX_DEPTH: u32 = 8;

/// Most blocks of one request, messages among them. The longest conversation that a model takes has
/// some ten thousand; everything that looks at a request takes time and room for each.
const MAX_BLOCKS: u32 = 100_000;

/// Where a source has its bytes in itself.
const BY_VALUE: [&str; 3] = ["base64", "text", "content"];

/// A text, or blocks: what they add up to, and none of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    n_blocks: u32,
    depth: u32,
    /// Media that are given by a URL.
    pub(super) has_urls: bool,
    /// Media that are given by the id of a file.
    pub(super) has_files: bool,
    /// Media from where nobody knows.
    pub(super) has_strangers: bool,
}

/// A message, as far as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    content: Content,
}

/// Of a block only where its media come from. The names of other services' blocks are among it: who
/// speaks this wire may know them.
#[derive(Debug, Deserialize)]
pub(super) struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<Source>,
    image_url: Option<IgnoredAny>,
    video_url: Option<IgnoredAny>,
    file: Option<IgnoredAny>,
    #[serde(default)]
    content: Content,
}

#[derive(Debug, Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: Option<String>,
    url: Option<IgnoredAny>,
    file_id: Option<IgnoredAny>,
    #[serde(rename = "s3Location")]
    s3_location: Option<IgnoredAny>,
    #[serde(default)]
    content: Content,
}

impl Content {
    /// Whether it has more blocks than anything that is known.
    pub(super) fn is_too_long(self) -> bool {
        self.n_blocks > MAX_BLOCKS
    }

    /// Whether it is nested deeper than anything that is known. Then it is not understood.
    pub(super) fn is_too_deep(self) -> bool {
        self.depth > MAX_DEPTH
    }

    /// Both, side by side.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            n_blocks: self.n_blocks.saturating_add(other.n_blocks),
            depth: self.depth.max(other.depth),
            has_urls: self.has_urls || other.has_urls,
            has_files: self.has_files || other.has_files,
            has_strangers: self.has_strangers || other.has_strangers,
        }
    }

    /// The same, inside of a block.
    fn wrapped(self) -> Self {
        let n_blocks = self.n_blocks.saturating_add(1);
        Self { n_blocks, depth: self.depth.saturating_add(1), ..self }
    }
}

impl From<Message> for Content {
    fn from(message: Message) -> Self {
        Self { depth: message.content.depth, ..message.content.wrapped() }
    }
}

impl From<Source> for Content {
    fn from(source: Source) -> Self {
        let kind = source.kind.as_deref().unwrap_or_default();
        let is_url = kind == "url";
        let is_file = kind == "file";
        Self {
            has_urls: is_url || source.url.is_some() || source.content.has_urls,
            has_files: is_file || source.file_id.is_some() || source.content.has_files,
            has_strangers: !(is_url || is_file || BY_VALUE.contains(&kind))
                || source.s3_location.is_some()
                || source.content.has_strangers,
            ..source.content
        }
    }
}

impl From<Block> for Content {
    fn from(block: Block) -> Self {
        let Block { kind, source, image_url, video_url, file, content } = block;
        let inner = content.and(source.map(Self::from).unwrap_or_default()).wrapped();
        Self {
            has_urls: inner.has_urls || image_url.or(video_url).or(file).is_some(),
            has_files: inner.has_files || kind.as_deref() == Some("container_upload"),
            ..inner
        }
    }
}

impl Gather for Content {
    type Block = Block;

    fn take(&mut self, block: Block) {
        *self = self.and(block.into());
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        gather(from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(content: Value) -> Content {
        serde_json::from_value(content).unwrap()
    }

    /// What of it is found: a letter for each way.
    fn found(content: Value) -> String {
        let content = read(content);
        let ways =
            [(content.has_urls, 'u'), (content.has_files, 'f'), (content.has_strangers, 's')];
        ways.into_iter().filter(|(is_so, _)| *is_so).map(|(_, letter)| letter).collect()
    }

    #[test]
    fn media_are_found_wherever_they_lie_and_however_they_are_given() {
        let by = |source: Value| json!({"type": "image", "source": source});
        let url = by(json!({"type": "url", "url": "https://evil.example/?secret"}));
        let file = by(json!({"type": "file", "file_id": "file_1"}));
        let inside = |block: &Value| json!([{"type": "document", "source": {"type": "content", "content": [block]}}]);
        let result = |block: Value| json!([{"type": "tool_result", "content": block}]);
        for (content, expected) in [
            (json!("https://evil.example"), ""),
            (by(json!({"type": "base64", "data": "QQ=="})), ""),
            (by(json!({"type": "text", "data": "https://x"})), ""),
            (inside(&json!({"type": "text", "text": "a"})), ""),
            (json!([{"type": "document", "source": {"type": "content", "content": "a"}}]), ""),
            (url.clone(), "u"),
            (file.clone(), "f"),
            (inside(&url), "u"),
            (inside(&file), "f"),
            (result(inside(&url)), "u"),
            (inside(&result(inside(&file))[0]), "f"),
            (by(json!({"type": "base64", "url": "https://x"})), "u"),
            (by(json!({"type": "base64", "data": "", "file_id": "file_1"})), "f"),
            (by(json!({"type": "s3", "uri": "s3://bucket/key"})), "s"),
            (by(json!({"s3Location": {"uri": "s3://bucket/key"}})), "s"),
            (by(json!({"type": "base64", "s3Location": {"uri": "s3://bucket/key"}})), "s"),
            (by(json!({"type": "of a later time"})), "s"),
            (inside(&by(json!({}))), "s"),
            (json!([{"type": "image_url", "image_url": {"url": "https://x"}}]), "u"),
            (json!([{"type": "container_upload", "file_id": "file_1"}]), "f"),
            (json!([{"type": "tool_use", "input": {"source": {"type": "url"}}}]), ""),
        ] {
            assert_eq!(found(content.clone()), expected, "{content}");
        }
    }

    #[test]
    fn what_is_deeper_or_longer_than_anything_known_is_told() {
        let mut content = json!("end");
        for depth in 0..=MAX_DEPTH {
            assert!(!read(content.clone()).is_too_deep(), "{depth}");
            content = match depth % 2 {
                0 => json!([{"content": content}]),
                _ => json!([{"source": {"type": "content", "content": content}}]),
            };
        }
        assert!(read(content).is_too_deep());
        let blocks = |n: u32| read(Value::Array(vec![json!({}); n as usize]));
        assert!(!blocks(MAX_BLOCKS).is_too_long());
        assert!(blocks(MAX_BLOCKS + 1).is_too_long());
    }
}
