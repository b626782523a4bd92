//! Whether two names mean one model: agents and providers decorate them.

/// Whether `one` and `other` name the same model, apart from the provider's prefix, the separator
/// of its version, the window's suffix and the release date.
pub(super) fn same_model(one: &str, other: &str) -> bool {
    let (one, other) = (bare(one), bare(other));
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short.as_str()).is_some_and(|rest| {
        // What follows is a date or a revision, not another number of the version: 4 is not 4-5.
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|rest| rest.starts_with("20"))
    })
}

/// `us.anthropic.claude-haiku-4-5-20251001-v1:0` → `claude-haiku-4-5-20251001-v1-0`.
fn bare(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.rsplit_once("anthropic.").map_or(name, |(_, rest)| rest);
    let name = name.split('[').next().unwrap_or(name);
    name.replace(['.', '@', ':'], "-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decorations_do_not_make_another_model() {
        for (one, other) in [
            ("claude-sonnet-4-6", "claude-sonnet-4-6"),
            ("anthropic/claude-sonnet-4.6", "claude-sonnet-4-6"),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
            ("claude-haiku-4-5@20251001", "claude-haiku-4-5-20251001"),
            ("claude-opus-4-7[1m]", "claude-opus-4-7"),
        ] {
            assert!(same_model(one, other) && same_model(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("claude-sonnet-4", "claude-sonnet-4-6"),
            ("claude-opus-4-7", "claude-haiku-4-5-20251001"),
            ("claude-sonnet-4-6", "<synthetic>"),
        ] {
            assert!(!same_model(one, other) && !same_model(other, one), "{one} {other}");
        }
    }
}
