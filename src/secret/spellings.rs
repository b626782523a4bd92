//! The ways in which programs write a value into other texts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::MIN_MASKED_BYTES;

/// JSON texts inside JSON texts that are looked into. A tool's input is a JSON text in a stream of
/// JSON, and it can be the body of a request.
const JSON_DEPTH: usize = 3;

/// Shortest line of a value with several that is looked for on its own, in bytes. The lines of keys
/// have 64; shorter ones are words that a text may have by accident.
const MIN_LINE_BYTES: usize = 40;

/// Which characters a program leaves as they are in a URL, beside letters and digits.
const URL_SAFE: [&[u8]; 6] = [
    // RFC 3986, Python's `quote` with no safe characters.
    b"-._~",
    // `encodeURIComponent`.
    b"-._~!*'()",
    // Python's `quote`.
    b"-._~/",
    // `encodeURI`.
    b"-._~!*'();/?:@&=+$,#",
    // Forms.
    b"*-._",
    // Nothing at all.
    b"",
];

/// Every way in which `value` is looked for.
pub(super) fn spellings(value: &str) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    for json in json(value) {
        for text in escaped_again(&json) {
            all.insert(text.into_bytes());
        }
    }
    all.insert(value.as_bytes().to_vec());
    for safe in URL_SAFE {
        let upper = percent(value, safe, true);
        all.insert(upper.replace("%20", "+").into_bytes());
        all.insert(upper.into_bytes());
        let lower = percent(value, safe, false);
        all.insert(lower.replace("%20", "+").into_bytes());
        all.insert(lower.into_bytes());
    }
    let hex: String = value.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    all.insert(hex.to_uppercase().into_bytes());
    all.insert(hex.into_bytes());
    for alignment in 0..3 {
        all.insert(inside_base64(&STANDARD_NO_PAD, value, alignment));
        all.insert(inside_base64(&URL_SAFE_NO_PAD, value, alignment));
    }
    all.extend(value.lines().map(str::trim).filter(|line| is_key_line(line)).map(Vec::from));
    all.retain(|spelling| spelling.len() >= MIN_MASKED_BYTES);
    all
}

/// A line of a key in a file of several lines: it can be read without the others.
fn is_key_line(line: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    line.len() >= MIN_LINE_BYTES && line.bytes().all(is_base64)
}

/// The inside of the JSON texts that serializers make of a value.
fn json(value: &str) -> BTreeSet<String> {
    /// Which characters are escaped beside those that must be.
    const MORE: [&[char]; 3] = [
        // JavaScript, Python, serde.
        &[],
        // Go.
        &['<', '>', '&', '\u{2028}', '\u{2029}'],
        // Gson.
        &['<', '>', '&', '=', '\'', '\u{2028}', '\u{2029}'],
    ];
    let mut all = BTreeSet::new();
    for more in MORE {
        for is_ascii in [false, true] {
            for is_upper in [false, true] {
                let text = escaped(value, more, is_ascii, is_upper);
                // PHP.
                all.insert(text.replace('/', "\\/"));
                all.insert(text);
            }
        }
    }
    all
}

fn escaped(value: &str, more: &[char], is_ascii: bool, is_upper: bool) -> String {
    let mut text = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            c if c.is_ascii_control() || more.contains(&c) || (is_ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let written = if is_upper {
                        write!(text, "\\u{unit:04X}")
                    } else {
                        write!(text, "\\u{unit:04x}")
                    };
                    written.expect("a string takes everything");
                }
            }
            c => text.push(c),
        }
    }
    text
}

/// A text from inside a JSON text, and how it stands in JSON texts around that one.
fn escaped_again(json: &str) -> impl Iterator<Item = String> {
    let again = |text: &String| Some(text.replace('\\', "\\\\").replace('"', "\\\""));
    std::iter::successors(Some(json.to_owned()), again).take(JSON_DEPTH)
}

fn percent(value: &str, safe: &[u8], is_upper: bool) -> String {
    let mut text = String::with_capacity(value.len() + 8);
    for byte in value.bytes() {
        let written = if byte.is_ascii_alphanumeric() || safe.contains(&byte) {
            text.push(char::from(byte));
            Ok(())
        } else if is_upper {
            write!(text, "%{byte:02X}")
        } else {
            write!(text, "%{byte:02x}")
        };
        written.expect("a string takes everything");
    }
    text
}

/// The base64 characters that depend on `value` alone when `alignment` unknown bytes (modulo 3)
/// stand before it. Characters that mix in a neighbour's bits are left off at both ends.
fn inside_base64(engine: &impl Engine, value: &str, alignment: usize) -> Vec<u8> {
    let mut padded = vec![0_u8; alignment];
    padded.extend_from_slice(value.as_bytes());
    let first = (alignment * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    engine.encode(&padded).as_bytes()[first..last].to_vec()
}
