//! The credentials that are known by their looks: who makes them gives them a beginning of their own.
//!
//! The table follows the rules of the well-known scanners of source code, as far as a shape has such
//! a beginning: a stream is searched for all beginnings at once, and only where one stands is more
//! looked at. What has none (a password, a bare hexadecimal key) cannot be told from other text.

use std::ops::Range;

use super::scan::{LOOK_BACK, Span};
use super::tail::{Set, Tail, is_base64, is_label, line_end};

/// How much of a credential is looked at, in bytes, before it is known to be one.
const LOOK_AHEAD: usize = 64;

/// Longest head of a signed token, in bytes. Most have 36; some name their key by a URL.
const MAX_HEAD_BYTES: usize = 1024;

/// From the first line of a private key to its first bytes, at most: lines with its method may stand
/// between.
const MAX_PREAMBLE_BYTES: usize = 512;

/// Bytes of a private key that are looked at: fewer are an example in a text.
const MIN_KEY_BYTES: usize = 16;

/// Most characters between a name and its value.
const MAX_GAP_BYTES: usize = 12;

/// A kind of credential.
pub(super) struct Shape {
    /// What it is called where it is counted.
    pub(super) kind: &'static str,
    /// How it begins.
    pub(super) prefixes: &'static [&'static str],
    body: Body,
}

/// What follows the beginning.
enum Body {
    /// Bytes of a set, so many of them.
    Token { set: Set, n: Range<usize>, looks: Looks },
    /// The same behind a name, which stays.
    Value { set: Set, n: Range<usize>, looks: Looks },
    /// The rest of a JSON Web Token.
    Signed,
    /// The rest of a private key.
    Key,
}

/// What the first bytes must have, so that no ordinary words are taken for a credential.
#[derive(Clone, Copy)]
enum Looks {
    Any,
    /// A digit.
    Digit,
    /// A digit and letters, or the end of base64.
    Mixed,
}

/// What is known of a place where one could begin.
pub(super) enum Verdict {
    None,
    /// More of the text must be known.
    Undecided,
    Secret(Span),
}

/// Without end.
const MANY: usize = usize::MAX;

const fn token(
    kind: &'static str,
    prefixes: &'static [&'static str],
    (set, n, looks): (Set, Range<usize>, Looks),
) -> Shape {
    Shape { kind, prefixes, body: Body::Token { set, n, looks } }
}

const fn value(
    kind: &'static str,
    prefixes: &'static [&'static str],
    (set, n, looks): (Set, Range<usize>, Looks),
) -> Shape {
    Shape { kind, prefixes, body: Body::Value { set, n, looks } }
}

/// Every shape. `n` counts the bytes behind the beginning; its end is the first number that is too
/// large.
#[rustfmt::skip]
pub(super) static SHAPES: &[Shape] = &[
    token("anthropic_key", &["sk-ant-"], (word, 20..MANY, Looks::Digit)),
    token("openrouter_key", &["sk-or-"], (word, 20..MANY, Looks::Digit)),
    token("openai_key", &["sk-proj-", "sk-svcacct-", "sk-admin-"], (word, 20..MANY, Looks::Digit)),
    token("api_key", &["sk-"], (alnum, 32..MANY, Looks::Digit)),
    token("github_token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], (alnum, 30..MANY, Looks::Any)),
    token("github_token", &["github_pat_"], (word, 40..MANY, Looks::Digit)),
    token("gitlab_token", &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"], (dotted, 20..MANY, Looks::Digit)),
    token("aws_key_id", &["AKIA", "ASIA", "ABIA", "ACCA"], (base32, 16..17, Looks::Any)),
    token("aws_bedrock_key", &["ABSK", "bedrock-api-key-"], (is_base64, 60..MANY, Looks::Digit)),
    value("aws_secret_key", &[
        "aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "SecretAccessKey", "secretAccessKey",
        "aws_secret_key", "AWS_SECRET_KEY",
    ], (is_base64, 40..41, Looks::Any)),
    value("aws_session_token", &[
        "aws_session_token", "AWS_SESSION_TOKEN", "SessionToken", "sessionToken",
    ], (is_base64, 100..MANY, Looks::Any)),
    token("google_key", &["AIza"], (word, 35..36, Looks::Any)),
    token("google_token", &["ya29."], (word, 20..MANY, Looks::Any)),
    token("google_secret", &["GOCSPX-"], (word, 24..MANY, Looks::Any)),
    token("slack_token", &[
        "xoxa-", "xoxb-", "xoxc-", "xoxd-", "xoxe-", "xoxe.xoxp-", "xoxo-", "xoxp-", "xoxr-", "xoxs-",
        "xapp-",
    ], (word, 10..MANY, Looks::Digit)),
    token("slack_webhook", &["hooks.slack.com/services/", "hooks.slack.com/workflows/"], (path, 30..MANY, Looks::Any)),
    token("stripe_key", &["sk_live_", "sk_test_", "rk_live_", "rk_test_"], (alnum, 16..MANY, Looks::Digit)),
    token("webhook_secret", &["whsec_"], (is_base64, 24..MANY, Looks::Any)),
    token("npm_token", &["npm_"], (alnum, 36..MANY, Looks::Any)),
    token("pypi_token", &["pypi-"], (word, 50..MANY, Looks::Digit)),
    token("huggingface_token", &["hf_"], (alnum, 30..MANY, Looks::Any)),
    token("groq_key", &["gsk_"], (alnum, 40..MANY, Looks::Any)),
    token("xai_key", &["xai-"], (alnum, 60..MANY, Looks::Any)),
    token("replicate_token", &["r8_"], (alnum, 37..MANY, Looks::Any)),
    token("digitalocean_token", &["dop_v1_", "doo_v1_", "dor_v1_"], (hex, 64..65, Looks::Any)),
    token("shopify_token", &["shpat_", "shpss_", "shpca_", "shppa_"], (hex, 32..33, Looks::Any)),
    token("linear_key", &["lin_api_"], (alnum, 32..MANY, Looks::Any)),
    token("age_key", &["AGE-SECRET-KEY-1"], (alnum, 58..59, Looks::Any)),
    token("runbookd_token", &["mlc_"], (alnum, 32..33, Looks::Any)),
    token("runbookd_token", &["runbookd-"], (hex, 32..33, Looks::Any)),
    value("authorization", &["Bearer ", "bearer ", "Bearer%20"], (token68, 16..MANY, Looks::Mixed)),
    value("authorization", &[
        "Authorization: Basic ", "authorization: Basic ", "Authorization: basic ",
        "authorization: basic ", "\"Authorization\":\"Basic ", "\"Authorization\": \"Basic ",
        "\"authorization\":\"Basic ", "\"authorization\": \"Basic ",
    ], (is_base64, 8..MANY, Looks::Mixed)),
    value("api_key_header", &[
        "x-api-key", "X-Api-Key", "X-API-Key", "X-API-KEY", "x-goog-api-key", "X-Goog-Api-Key",
        "PRIVATE-TOKEN", "Private-Token",
    ], (token68, 16..MANY, Looks::Digit)),
    Shape { kind: "json_web_token", prefixes: &["eyJ"], body: Body::Signed },
    Shape { kind: "private_key", prefixes: &["-----BEGIN "], body: Body::Key },
];

impl Shape {
    /// Whether one stands in `text` where its beginning was found.
    pub(super) fn judge(&self, text: &[u8], prefix: Range<usize>, is_all: bool) -> Verdict {
        let (kind, start, at) = (self.kind, prefix.start, prefix.end);
        let look = Look { kind, text, found_at: start, start, at, is_all };
        match &self.body {
            Body::Key => look.key(),
            Body::Token { .. } | Body::Value { .. } | Body::Signed
                if !is_word_start(text, prefix.start) =>
            {
                Verdict::None
            }
            Body::Token { set, n, looks } => look.token(*set, n, *looks),
            Body::Value { set, n, looks } => look.value(*set, n, *looks),
            Body::Signed => look.signed(),
        }
    }
}

/// A place where a credential could stand.
#[derive(Clone, Copy)]
struct Look<'t> {
    kind: &'static str,
    text: &'t [u8],
    found_at: usize,
    /// Where the mask would begin.
    start: usize,
    /// Where the bytes begin that are looked at.
    at: usize,
    is_all: bool,
}

impl Look<'_> {
    fn token(self, set: Set, n: &Range<usize>, looks: Looks) -> Verdict {
        let look = if n.end == MANY { n.start.max(LOOK_AHEAD) } else { n.end };
        let rest = &self.text[self.at..];
        let found = rest.iter().take(look).take_while(|byte| set(**byte)).count();
        if self.is_cut(found, look) {
            return Verdict::Undecided;
        }
        if !n.contains(&found) || !looks.fit(&rest[..found]) {
            return Verdict::None;
        }
        if n.end != MANY {
            return self.secret(self.at + found, None);
        }
        self.followed(Tail::Bytes(set), self.at + found)
    }

    /// What stands between a name and its value: at least one of these.
    fn value(mut self, set: Set, n: &Range<usize>, looks: Looks) -> Verdict {
        let is_gap = |byte: &u8| {
            matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'=' | b':' | b'\\' | b'>' | b'`')
        };
        let rest = &self.text[self.at..];
        let gap = rest.iter().take(MAX_GAP_BYTES).take_while(|byte| is_gap(byte)).count();
        if self.is_cut(gap, MAX_GAP_BYTES) {
            return Verdict::Undecided;
        }
        // The names of schemes end with theirs.
        let has_gap = gap > 0 || !self.text[self.at - 1].is_ascii_alphabetic();
        if !has_gap || gap == MAX_GAP_BYTES {
            return Verdict::None;
        }
        self.at += gap;
        self.start = self.at;
        self.token(set, n, looks)
    }

    fn signed(mut self) -> Verdict {
        for (part, least, most) in [("head", 8, MAX_HEAD_BYTES), ("payload", 8, LOOK_AHEAD)] {
            let rest = &self.text[self.at..];
            let found = rest.iter().take(most).take_while(|byte| word(**byte)).count();
            if self.is_cut(found, most) {
                return Verdict::Undecided;
            }
            if found < least {
                return Verdict::None;
            }
            self.at += found;
            if part == "head" {
                let rest = &self.text[self.at..];
                let n = rest.len().min(4);
                if rest[..n] != b".eyJ"[..n] {
                    return Verdict::None;
                }
                if n < 4 {
                    return if self.is_all { Verdict::None } else { Verdict::Undecided };
                }
                self.at += n;
            }
        }
        self.followed(Tail::Bytes(dotted), self.at)
    }

    fn key(mut self) -> Verdict {
        let limit = self.at + MAX_PREAMBLE_BYTES;
        let rest = &self.text[self.at..];
        let label = rest.iter().take(48).take_while(|byte| is_label(**byte)).count();
        let dashes = rest[label..].iter().take(5).take_while(|byte| **byte == b'-').count();
        if dashes < 5 {
            let is_cut = label + dashes == rest.len() && !self.is_all && label < 48;
            return if is_cut { Verdict::Undecided } else { Verdict::None };
        }
        let label = &rest[..label];
        if !label.ends_with(b"PRIVATE KEY") && !label.ends_with(b"PRIVATE KEY BLOCK") {
            return Verdict::None;
        }
        self.at += label.len() + dashes;
        while self.at < limit {
            let rest = &self.text[self.at..];
            let Some(end) = line_end(rest) else {
                return if rest.is_empty() && !self.is_all {
                    Verdict::Undecided
                } else {
                    Verdict::None
                };
            };
            self.at += end;
            let rest = &self.text[self.at..];
            let found = rest.iter().take(MIN_KEY_BYTES).take_while(|b| is_base64(**b)).count();
            if found == MIN_KEY_BYTES {
                return self.followed(Tail::KEY, self.at + found);
            }
            if self.is_cut(found, MIN_KEY_BYTES) {
                return Verdict::Undecided;
            }
            // `Proc-Type: 4,ENCRYPTED` and the like, or an empty line.
            let line = rest.iter().take(MAX_PREAMBLE_BYTES);
            let line = line.take_while(|byte| is_of_header(**byte)).count();
            if line == rest.len() {
                return if self.is_all { Verdict::None } else { Verdict::Undecided };
            }
            self.at += line;
        }
        Verdict::None
    }

    /// Whether the text is cut where more of `n` bytes could stand.
    fn is_cut(&self, found: usize, most: usize) -> bool {
        !self.is_all && found < most && self.at + found == self.text.len()
    }

    fn followed(self, tail: Tail, at: usize) -> Verdict {
        let followed = tail.follow(self.text, at, self.is_all);
        self.secret(followed.end, followed.open)
    }

    fn secret(self, end: usize, open: Option<Tail>) -> Verdict {
        let Self { found_at, start, kind, .. } = self;
        Verdict::Secret(Span { found_at, start, end, kind, open })
    }
}

impl Looks {
    fn fit(self, bytes: &[u8]) -> bool {
        let has = |of: fn(&u8) -> bool| bytes.iter().any(of);
        match self {
            Self::Any => true,
            Self::Digit => has(u8::is_ascii_digit),
            Self::Mixed => {
                has(u8::is_ascii_alphabetic) && (has(u8::is_ascii_digit) || bytes.ends_with(b"="))
            }
        }
    }
}

/// Whether a word begins at a place: nothing of a word stands before it, unless that is the end of
/// an escape (`\n`, `%20`, `\u003d`) or of a terminal's colour.
fn is_word_start(text: &[u8], at: usize) -> bool {
    let before = &text[at.saturating_sub(LOOK_BACK)..at];
    let Some(last) = before.last() else { return true };
    if !word(*last) {
        return true;
    }
    let behind = |n: usize| before.len().checked_sub(n).map(|from| &before[from..]);
    let is_hex = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let is_letter = matches!(behind(2), Some([b'\\', b'n' | b'r' | b't' | b'b' | b'f']));
    let is_percent = matches!(behind(3), Some([b'%', digits @ ..]) if is_hex(digits));
    let is_unicode = matches!(behind(6), Some([b'\\', b'u', digits @ ..]) if is_hex(digits));
    is_letter || is_percent || is_unicode || ends_colour(before)
}

/// Whether `ESC [ 31 m` stands there, however its first character is written.
fn ends_colour(before: &[u8]) -> bool {
    let Some((b'm', before)) = before.split_last() else { return false };
    let is_number = |byte: &&u8| byte.is_ascii_digit() || **byte == b';';
    let n = before.iter().rev().take_while(is_number).count();
    before[..before.len() - n].last() == Some(&b'[')
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    alnum(byte) || matches!(byte, b'_' | b'-')
}

fn dotted(byte: u8) -> bool {
    word(byte) || byte == b'.'
}

fn path(byte: u8) -> bool {
    word(byte) || byte == b'/'
}

fn token68(byte: u8) -> bool {
    word(byte) || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'=' | b'%')
}

fn hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn base32(byte: u8) -> bool {
    byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte)
}

fn is_of_header(byte: u8) -> bool {
    alnum(byte)
        || matches!(byte, b' ' | b':' | b',' | b'-' | b'.' | b'(' | b')' | b'_' | b'/' | b'+')
}
