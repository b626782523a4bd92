//! The content of a message as every wire writes it: a text, or blocks, one after the other or alone.
//! Of long lists nothing stays but what their parts add up to.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

/// What is made of a content's blocks; of a text nothing is.
pub(super) trait Gather: Default {
    /// What is read of a block.
    type Block: DeserializeOwned;

    /// Takes the next block.
    fn take(&mut self, block: Self::Block);
}

/// Reads a content.
pub(super) fn gather<'de, G: Gather, D: Deserializer<'de>>(from: D) -> Result<G, D::Error> {
    from.deserialize_any(Gathering(PhantomData))
}

/// Hands each part of a list on. Nothing but a list will do.
pub(super) fn each<'de, T, D, F>(from: D, take: F) -> Result<(), D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
    F: FnMut(T),
{
    from.deserialize_seq(Each(take, PhantomData))
}

struct Each<F, T>(F, PhantomData<T>);

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for Each<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut parts: A) -> Result<(), A::Error> {
        while let Some(part) = parts.next_element()? {
            (self.0)(part);
        }
        Ok(())
    }
}

struct Gathering<G>(PhantomData<G>);

impl<'de, G: Gather> Visitor<'de> for Gathering<G> {
    type Value = G;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of blocks")
    }

    fn visit_str<E>(self, _: &str) -> Result<G, E> {
        Ok(G::default())
    }

    fn visit_unit<E>(self) -> Result<G, E> {
        Ok(G::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut blocks: A) -> Result<G, A::Error> {
        let mut gathered = G::default();
        while let Some(block) = blocks.next_element()? {
            gathered.take(block);
        }
        Ok(gathered)
    }

    fn visit_map<A: MapAccess<'de>>(self, block: A) -> Result<G, A::Error> {
        let mut gathered = G::default();
        gathered.take(G::Block::deserialize(MapAccessDeserializer::new(block))?);
        Ok(gathered)
    }
}
