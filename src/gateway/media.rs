//! The pictures and documents in a request's contents: what of its length is no text.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::blocks::{Gather, gather};
use crate::budget::Media;

/// The media of a content.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Content(pub(super) Media);

#[derive(Deserialize)]
pub(super) struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    source: Source,
    #[serde(default)]
    content: Content,
}

/// Where a block's media come from. Of a text, as findings of a search have it, nothing is read.
#[derive(Default)]
struct Source(Option<Given>);

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    data: Length,
    /// A document may be made of blocks.
    #[serde(default)]
    content: Content,
}

/// The length of a text that is not kept.
#[derive(Debug, Default, Clone, Copy)]
struct Length(u64);

impl Block {
    fn media(&self) -> Media {
        let Some(given) = &self.source.0 else { return self.content.0 };
        let is_picture = self.kind.as_deref() == Some("image");
        let own = match given.kind.as_deref() {
            // A document in plain words is text as any other.
            Some("text" | "content") => Media::default(),
            Some("url") if is_picture => Media::picture(0),
            Some("url") => Media::linked_document(),
            Some(_) | None if is_picture => Media::picture(given.data.0),
            Some(_) | None => Media::document(given.data.0),
        };
        own.plus(given.content.0).plus(self.content.0)
    }
}

impl Gather for Content {
    type Block = Block;

    fn take(&mut self, block: Block) {
        self.0 = self.0.plus(block.media());
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        gather(from)
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source")
    }

    fn visit_str<E>(self, _: &str) -> Result<Source, E> {
        Ok(Source(None))
    }

    fn visit_unit<E>(self) -> Result<Source, E> {
        Ok(Source(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        Given::deserialize(MapAccessDeserializer::new(map)).map(|given| Source(Some(given)))
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LengthVisitor)
    }
}

struct LengthVisitor;

impl<'de> Visitor<'de> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len() as u64))
    }

    // What is no text is counted as the text of the request that it is.
    fn visit_unit<E>(self) -> Result<Length, E> {
        Ok(Length(0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Length(0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn media(content: &Value) -> Media {
        serde_json::from_value::<Content>(content.clone()).unwrap().0
    }

    #[test]
    fn what_is_no_text_is_found_wherever_it_stands() {
        let given = |n: usize| json!({"type": "base64", "data": "x".repeat(n)});
        let picture = json!({"type": "image", "source": given(900)});
        let document = json!({"type": "document", "source": given(150_000)});
        let of_url =
            |kind: &str| json!({"type": kind, "source": {"type": "url", "url": "https://x"}});
        let plain = json!({"type": "document", "source": {"type": "text", "data": "x".repeat(90)}});
        let of_blocks =
            json!({"type": "document", "source": {"type": "content", "content": [picture]}});
        let found = json!({"type": "search_result", "source": "https://x", "content": [
            {"type": "text", "text": "x"}]});
        for (content, expected) in [
            (json!("Go."), Media::default()),
            (json!([picture]), Media::picture(900)),
            (
                json!([{"type": "tool_result", "content": [picture, {"type": "text"}]}]),
                Media::picture(900),
            ),
            (json!([document, picture]), Media::document(150_000).plus(Media::picture(900))),
            (json!(of_url("image")), Media::picture(0)),
            (json!([of_url("document")]), Media::linked_document()),
            (json!([plain, found]), Media::default()),
            (json!([of_blocks]), Media::picture(900)),
        ] {
            assert_eq!(media(&content), expected, "{content}");
        }
    }
}
