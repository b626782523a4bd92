//! What is masked, what is not, and that it does not depend on how a text is cut.

mod properties;
mod shapes;

use std::borrow::Cow;

use super::*;

const KEY: &str = "sk-made-up/0123+456\"789";

fn masked(text: &str) -> String {
    Redactor::new(&[Secret::new(KEY.to_owned())]).redact_str(text)
}

/// The text in pieces of these lengths, over and over.
fn in_pieces(redactor: &Redactor, text: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut stream = RedactedStream::new(redactor.clone());
    let mut rest = text;
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        stream.feed(piece, &mut out);
        rest = after;
    }
    stream.finish(&mut out);
    out
}

#[test]
fn a_secret_is_never_shown_by_debug() {
    let secret = Secret::new("sk-made-up".to_owned());
    assert_eq!(format!("{secret:?}"), "Secret([hidden])");
    assert_eq!(format!("{:?}", Redactor::new(&[secret])), "Redactor(1 hidden values)");
}

#[test]
fn a_secret_is_masked_however_it_is_written() {
    let json = |text: &str| serde_json::json!({ "k": text }).to_string();
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (text, expected) in [
        (format!("key={KEY};"), "key=[redacted];".to_owned()),
        (json(KEY), json("[redacted]")),
        (json(&json(KEY)), json(&json("[redacted]"))),
        (json(&json(&json(KEY))), json(&json(&json("[redacted]")))),
        (r#"{"k":"sk-made-up\/0123+456\"789"}"#.to_owned(), json("[redacted]")),
        (r"?k=sk-made-up%2F0123%2B456%22789&x".to_owned(), "?k=[redacted]&x".to_owned()),
        (r"?k=sk-made-up%2f0123%2b456%22789&x".to_owned(), "?k=[redacted]&x".to_owned()),
        (r"?k=sk-made-up/0123%2B456%22789&x".to_owned(), "?k=[redacted]&x".to_owned()),
        (format!("{hex}:"), "[redacted]:".to_owned()),
        (format!("<{}>", hex.to_uppercase()), "<[redacted]>".to_owned()),
    ] {
        assert_eq!(masked(&text), expected, "{text}");
    }
}

#[test]
fn what_serializers_escape_is_known() {
    let redactor = Redactor::new(&[Secret::new("pä<ss>&'=\u{1f511}".to_owned())]);
    for text in [
        "pä<ss>&'=\u{1f511}",
        r"p\u00e4<ss>&'=\ud83d\udd11",
        r"p\u00E4<ss>&'=\uD83D\uDD11",
        r"pä\u003css\u003e\u0026'=🔑",
        r"pä\u003css\u003e\u0026\u0027\u003d🔑",
        r"p\\u00e4<ss>&'=\\ud83d\\udd11",
        "p%C3%A4%3Css%3E%26%27%3D%F0%9F%94%91",
        "p%c3%a4%3css%3e%26%27%3d%f0%9f%94%91",
    ] {
        assert_eq!(redactor.redact_str(&format!("<{text}>")), "<[redacted]>", "{text}");
    }
}

#[test]
fn a_secret_is_masked_inside_base64_at_every_alignment() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    for before in ["", "a", "ab", "abc", "user:"] {
        for engine in [STANDARD, URL_SAFE] {
            let masked = masked(&engine.encode(format!("{before}{KEY}")));
            assert!(masked.contains(MASK), "{before:?}: {masked}");
        }
    }
}

#[test]
fn short_values_and_other_text_stay() {
    let redactor = Redactor::new(&[Secret::new("1".to_owned()), Secret::new(String::new())]);
    assert!(matches!(redactor.redact(b"111 and 1"), Cow::Borrowed(_)));
    assert_eq!(masked("nothing here"), "nothing here");
    let nothing = Redactor::nothing();
    assert_eq!(nothing.redact_str(KEY), KEY);
    assert_eq!(in_pieces(&nothing, KEY.as_bytes(), &[3]), KEY.as_bytes());
}

#[test]
fn secrets_that_overlap_are_masked_to_the_last_byte() {
    let secrets = ["made-up-9", "up-99-tail", "sk-made-up/0123"];
    let secrets = secrets.map(|value| Secret::new(value.to_owned()));
    let redactor = Redactor::new(&secrets);
    for (text, expected) in [
        ("<made-up-99-tail>", "<[redacted]>"),
        ("made-up-9made-up-9", "[redacted][redacted]"),
        // The shape ends where the secret goes on.
        ("Bearer a1b2c3d4e5f6g7h8sk-made-up/0123>", "Bearer [redacted]>"),
    ] {
        assert_eq!(redactor.redact_str(text), expected);
    }
}

#[test]
fn in_json_of_ours_only_the_inside_of_strings_is_masked() {
    let secrets = ["123456", "a1\",\"b2"].map(|value| Secret::new(value.to_owned()));
    let redactor = Redactor::new(&secrets);
    let text = br#"{"n":1234567,"k\\":"x 123456","\"123456":["a1","b2"],"e":"a1\",\"b2"}"#;
    let expected =
        r#"{"n":1234567,"k\\":"x [redacted]","\"[redacted]":["a1","b2"],"e":"[redacted]"}"#;
    let masked = redactor.redact_json(text);
    assert_eq!(String::from_utf8_lossy(&masked), expected);
    serde_json::from_slice::<serde_json::Value>(&masked).unwrap();
    assert!(matches!(redactor.redact_json(b"{}"), Cow::Borrowed(_)));
}

#[test]
fn the_lines_of_a_key_are_masked_one_by_one() {
    let line = "MadeUp01".repeat(8);
    let value = format!("{line}\n{line}x\nshort");
    let redactor = Redactor::new(&[Secret::new(value)]);
    assert_eq!(redactor.redact_str(&format!("head: {line} short")), "head: [redacted] short");
}

#[test]
fn a_mask_never_cuts_an_escape() {
    let secrets = ["name12", "41abcd", "ending\\"].map(|value| Secret::new(value.to_owned()));
    let redactor = Redactor::new(&secrets);
    for (text, expected) in [
        (r#"{"k":"\name12"}"#, r#"{"k":"[redacted]"}"#),
        (r#"{"k":"\\name12"}"#, r#"{"k":"\\[redacted]"}"#),
        (r#"{"k":"x\u0041abcd"}"#, r#"{"k":"x[redacted]"}"#),
        (r#"{"k":"ending\\"}"#, r#"{"k":"[redacted]"}"#),
        (r#"{"k":"ending\" more"}"#, r#"{"k":"[redacted] more"}"#),
    ] {
        assert_eq!(redactor.redact_str(text), expected);
        for n in 1..text.len() {
            let cut = in_pieces(&redactor, text.as_bytes(), &[n, 1]);
            assert_eq!(String::from_utf8_lossy(&cut), expected, "{text} at {n}");
        }
        serde_json::from_str::<serde_json::Value>(expected).unwrap();
    }
}

#[test]
fn what_is_found_has_its_place_and_its_kind() {
    let redactor = Redactor::new(&[Secret::new("made-up-9".to_owned())]);
    let found = redactor.find(b"a made-up-9 b AKIAMADEUPMADEUPMADE");
    let expected = [
        FoundSecret { kind: KNOWN_SECRET, range: 2..11 },
        FoundSecret { kind: "aws_key_id", range: 14..34 },
    ];
    assert_eq!(found, expected);
}
