//! Random secrets, spellings, texts and cuts.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Secrets that overlap, that have quotes, escapes and other scripts in them.
static AWKWARD: LazyLock<Redactor> = LazyLock::new(|| {
    let secrets = [
        "sk-made-up-9",
        "made-up-99",
        "sk-made-up-9-sk-made",
        "name12",
        "u00e9x1",
        "41abcd",
        "ends\\\\\\",
        "quote\"d\\n",
        "pä<ss>/wörd",
        "two\nlines of it",
    ];
    Redactor::new(&secrets.map(|value| Secret::new(value.to_owned())))
});

/// Parts of what those redactors look for, and what stands between.
const PARTS: [&str; 58] = [
    "sk-",
    "made-up-9",
    "9",
    "-sk-made",
    "name12",
    "u00e9x1",
    "\\u00",
    "41abcd",
    "ends",
    "\\",
    "\\\\",
    "quote",
    "\"",
    "d",
    "\\n",
    "n",
    "\n",
    "\r",
    " ",
    "x",
    "pä<ss>",
    "/wörd",
    "p\\u00e4",
    "\\u003css\\u003e",
    "%C3%A4",
    "two\\nlines of it",
    "two",
    "lines of it",
    "sk-ant-",
    "MadeUp0123456789012345678901234567890",
    "ghp_",
    "AKIA",
    "MADEUPMADEUPMADE",
    "Bearer ",
    "bearer ",
    "Authorization: Basic ",
    "bWFkZTp1cA==",
    "eyJhbGciOiJub25lIn0",
    ".",
    "eyJzdWIiOiJt",
    "eyJ",
    "-----BEGIN ",
    "RSA ",
    "PRIVATE KEY",
    "-----",
    "-----END ",
    "MadeUpMadeUpMadeUpMadeUp",
    "=",
    ": ",
    "-",
    "[31m",
    "\u{1b}[0m",
    "%20",
    "npm_",
    "hf_",
    "aws_secret_access_key",
    "runbookd-",
    "0badc0de0badc0de0badc0de0badc0de",
];

fn spelled(value: &str, way: usize) -> String {
    let json = |text: &str| {
        let text = serde_json::Value::from(text).to_string();
        text[1..text.len() - 1].to_owned()
    };
    match way {
        0 => value.to_owned(),
        1 => json(value),
        2 => json(&json(value)),
        3 => json(&json(&json(value))),
        4 => url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
        5 => percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
            .to_string(),
        6 => value.bytes().map(percent).collect(),
        7 => value.bytes().map(|byte| format!("{byte:02x}")).collect(),
        8 => value.bytes().map(|byte| format!("{byte:02X}")).collect(),
        9 => json(value).replace('/', "\\/"),
        _ => value
            .chars()
            .map(|c| if c.is_ascii() { json(&c.to_string()) } else { ascii(c) })
            .collect(),
    }
}

fn percent(byte: u8) -> String {
    match byte {
        plain if plain.is_ascii_alphanumeric() => char::from(plain).to_string(),
        other => format!("%{other:02x}"),
    }
}

fn ascii(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn pieces_do_not_change_what_is_masked(
        parts in vec(select(PARTS.to_vec()), 0..24),
        cuts in vec(1_usize..12, 1..24),
    ) {
        let text = parts.concat();
        for redactor in [&*AWKWARD, &Redactor::shapes()] {
            let whole = redactor.redact(text.as_bytes()).into_owned();
            for cuts in [cuts.as_slice(), &[1], &[1000, 1]] {
                let cut = in_pieces(redactor, text.as_bytes(), cuts);
                prop_assert_eq!(String::from_utf8_lossy(&cut), String::from_utf8_lossy(&whole));
            }
        }
    }

    #[test]
    fn json_stays_json(parts in vec(select(PARTS.to_vec()), 0..24)) {
        // Without the secret that is a piece of JSON itself.
        let redactor = Redactor::new(
            &["name12", "u00e9x1", "41abcd", "ends\\\\\\", "pä<ss>/wörd", "two\nlines of it"]
                .map(|value| Secret::new(value.to_owned())),
        );
        let text = parts.concat();
        for json in [
            serde_json::json!({ "k": text, "n": [1, text] }).to_string(),
            serde_json::json!({ "k": serde_json::json!([text]).to_string() }).to_string(),
            format!("{{\"k\":\"{}\"}}", text.chars().map(|c| if c.is_ascii() { spelled(&c.to_string(), 1) } else { ascii(c) }).collect::<String>()),
        ] {
            let masked = redactor.redact_str(&json);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&masked).is_ok(), "{} {}", json, masked);
        }
    }

    #[test]
    fn text_without_secrets_stays(text in "[ -~äöü\\n]{0,400}") {
        // No shape begins without one of these.
        let harmless = text.replace(['-', '_', '.'], " ").replace("eyJ", "");
        let harmless = harmless.replace("AKIA", "").replace("AIza", "").replace("earer", "");
        prop_assert_eq!(Redactor::shapes().redact_str(&harmless), harmless.clone());
        prop_assert_eq!(
            in_pieces(&Redactor::shapes(), harmless.as_bytes(), &[5, 1, 17]),
            harmless.as_bytes()
        );
    }
}

proptest! {
    // Each case prepares a redactor of its own.
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_spelling_of_a_secret_survives_any_cut(
        value in "[ -~äß\u{1f511}]{8,24}",
        way in 0_usize..11,
        (before, after) in ("[ -~]{0,20}", "[ -~]{0,20}"),
        cuts in vec(1_usize..30, 1..10),
    ) {
        let value = value.trim().to_owned();
        prop_assume!(value.len() >= MIN_MASKED_BYTES);
        let redactor = Redactor::new(&[Secret::new(value.clone())]);
        let written = spelled(&value, way);
        let text = format!("{before}|{written}|{after}");
        let whole = redactor.redact_str(&text);
        prop_assert!(!whole.contains(&written), "{} is in {}", written, whole);
        let cut = in_pieces(&redactor, text.as_bytes(), &cuts);
        prop_assert_eq!(String::from_utf8_lossy(&cut), whole);
    }

    #[test]
    fn no_more_of_base64_survives_than_mixes_with_neighbours(
        value in "[ -~]{12,40}",
        before in "[ -~]{0,5}",
        after in "[ -~]{0,5}",
        is_url in any::<bool>(),
        cuts in vec(1_usize..30, 1..10),
    ) {
        let value = value.trim().to_owned();
        prop_assume!(value.len() >= 12);
        let redactor = Redactor::new(&[Secret::new(value.clone())]);
        let text = format!("{before}{value}{after}");
        let text = if is_url { URL_SAFE_NO_PAD.encode(text) } else { STANDARD.encode(text) };
        let whole = redactor.redact_str(&text);
        // At each end a character has bits of a neighbour, and so a few of the secret's.
        let most = text.len() - value.len() * 8 / 6 + 2 + MASK.len();
        prop_assert!(whole.contains(MASK) && whole.len() <= most, "{} {}", text, whole);
        let cut = in_pieces(&redactor, text.as_bytes(), &cuts);
        prop_assert_eq!(String::from_utf8_lossy(&cut), whole);
    }
}
