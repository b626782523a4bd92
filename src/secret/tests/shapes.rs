//! Each shape: what has it, and what only looks like it.

use super::*;

/// Visibly made up, and of that length.
fn made_up(n: usize) -> String {
    "MadeUp0123".chars().cycle().take(n).collect()
}

fn hex(n: usize) -> String {
    "0badc0de".chars().cycle().take(n).collect()
}

fn signed() -> String {
    format!("eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWRlIHVwIn0.{}", made_up(43))
}

fn key(label: &str, end: &str) -> String {
    let lines = [made_up(64), made_up(64), made_up(20) + "=="].join(end);
    format!("-----BEGIN {label}-----{end}{lines}{end}-----END {label}-----")
}

/// Whole tokens.
fn tokens() -> Vec<String> {
    let mut all = Vec::new();
    let prefixed: &[(&[&str], usize)] = &[
        (&["sk-ant-api03-", "sk-ant-oat01-", "sk-ant-"], 93),
        (&["sk-or-v1-"], 64),
        (&["sk-proj-", "sk-svcacct-", "sk-admin-"], 120),
        (&["sk-"], 48),
        (&["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], 36),
        (&["github_pat_"], 82),
        (&["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"], 20),
        (&["ABSK"], 120),
        (&["AIza"], 35),
        (&["ya29."], 120),
        (&["GOCSPX-"], 28),
        (&["xoxb-", "xoxa-", "xoxp-", "xoxr-", "xoxs-", "xoxc-", "xoxe-", "xapp-1-"], 50),
        (&["sk_live_", "sk_test_", "rk_live_"], 24),
        (&["whsec_"], 32),
        (&["npm_"], 36),
        (&["pypi-AgEI"], 120),
        (&["hf_"], 34),
        (&["gsk_"], 52),
        (&["xai-"], 80),
        (&["r8_"], 37),
        (&["lin_api_"], 40),
        (&["AGE-SECRET-KEY-1"], 58),
        (&["hooks.slack.com/services/T0MADEUP0/B0MADEUP0/"], 24),
        (&["mlc_"], 32),
    ];
    for (prefixes, n) in prefixed {
        all.extend(prefixes.iter().map(|prefix| format!("{prefix}{}", made_up(*n))));
    }
    all.extend(["dop_v1_"].map(|prefix| format!("{prefix}{}", hex(64))));
    all.extend(["shpat_", "runbookd-"].map(|prefix| format!("{prefix}{}", hex(32))));
    all.extend(["AKIA", "ASIA"].map(|prefix| format!("{prefix}MADEUPMADEUPMADE")));
    all.push(signed());
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
    {
        all.extend(["\n", "\r\n", "\\n", "\\\\n", "\n    "].map(|end| key(label, end)));
    }
    all
}

#[test]
fn every_shape_is_masked_whole_wherever_it_stands() {
    let redactor = Redactor::shapes();
    for token in tokens() {
        for (before, after) in [
            ("", ""),
            ("KEY=", "\n"),
            ("\"", "\","),
            ("at the end: ", " and more"),
            (r"a line\n", r"\n"),
            (r"\u001b[31m", r"\u001b[0m"),
            ("\u{1b}[1;31m", "\u{1b}[0m"),
            ("?key%3D", "&x=1"),
            ("https://user:", "@host/"),
            ("('", "')"),
        ] {
            let text = format!("{before}{token}{after}");
            let expected = format!("{before}[redacted]{after}");
            assert_eq!(redactor.redact_str(&text), expected, "{text}");
            for n in 1..text.len().min(40) {
                let cut = in_pieces(&redactor, text.as_bytes(), &[n, 7]);
                assert_eq!(String::from_utf8_lossy(&cut), expected, "{text} in pieces of {n}");
            }
        }
    }
}

#[test]
fn a_value_behind_a_name_is_masked_and_the_name_stays() {
    let (long, secret) = (made_up(44), made_up(40));
    for (text, expected) in [
        (format!("Authorization: Bearer {long}\r\n"), "Authorization: Bearer [redacted]\r\n"),
        (
            format!(r#"-H "authorization: bearer {long}""#),
            r#"-H "authorization: bearer [redacted]""#,
        ),
        (format!("Bearer {}", signed()), "Bearer [redacted]"),
        ("Authorization: Basic bWFkZTp1cA==".to_owned(), "Authorization: Basic [redacted]"),
        (
            r#"{"authorization": "Basic bWFkZTp1cDEyMw=="}"#.to_owned(),
            r#"{"authorization": "Basic [redacted]"}"#,
        ),
        (format!("aws_secret_access_key = {secret}\n"), "aws_secret_access_key = [redacted]\n"),
        (format!(r#"{{"SecretAccessKey": "{secret}"}}"#), r#"{"SecretAccessKey": "[redacted]"}"#),
        (format!(r#"\"secretAccessKey\":\"{secret}\""#), r#"\"secretAccessKey\":\"[redacted]\""#),
        (
            format!("export AWS_SECRET_ACCESS_KEY='{secret}'"),
            "export AWS_SECRET_ACCESS_KEY='[redacted]'",
        ),
        (format!("AWS_SESSION_TOKEN={}", made_up(300)), "AWS_SESSION_TOKEN=[redacted]"),
        (format!("x-api-key: {long}"), "x-api-key: [redacted]"),
        (format!(r#"{{"x-api-key":"{long}"}}"#), r#"{"x-api-key":"[redacted]"}"#),
    ] {
        assert_eq!(Redactor::shapes().redact_str(&text), expected);
    }
}

#[test]
fn what_only_looks_like_one_stays() {
    let image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg";
    for text in [
        "3f2b8c1a-9d4e-4f60-8a7b-0123456789ab",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        "/home/somebody/sk-project-2024-01-report-final/results_0123456789.csv",
        "task-0123456789012345678901234567890123456789",
        "disk-usage-0123456789012345678901234567890123",
        "sk-learn, scikit-learn and sk-fading-circle-wrapper-element",
        "sk-ant-made-up",
        "npm_config_registry=https://registry.npmjs.org/ npm_package_version_0123456789_abcdefghijk",
        "ghp_example and github_pat_example",
        "AKIA is how they begin; MYAKIAMADEUPMADEUPMADE is a word, AKIAMADEUPMADEUPMADEUP too long",
        "AIzaShort",
        "hf_hub_download(repo_id='made/up') in hf_transformers_cache_directory",
        "Bearer authentication is described in RFC 6750; the bearer of this letter-of-recommendation",
        "Authorization: Bearer $ANTHROPIC_API_KEY and Bearer ${TOKEN_OF_THE_DEPLOYMENT_1}",
        "Basic understanding of things, Basic 2024 plan",
        "eyJ and eyJhbGciOiJub25lIn0 and eyJhbGciOiJub25lIn0.not-a-payload",
        "-----BEGIN PUBLIC KEY-----\nTWFkZVVwTWFkZVVwTWFkZVVw\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nTWFkZVVwTWFkZVVwTWFkZVVw\n-----END CERTIFICATE-----",
        "a file that begins with `-----BEGIN RSA PRIVATE KEY-----` holds a key",
        "-----BEGIN PRIVATE KEY-----\nYOUR KEY\n-----END PRIVATE KEY-----",
        "aws_secret_access_key = YOUR_SECRET, and SecretAccessKey is a field",
        "x-api-key is a header; x-api-key: $KEY",
        "mlc_made_up runbookd-0a1b2c3d-4e5f6071 mlc_tooshort",
        "msg_01MadeUpMadeUpMadeUp toolu_01MadeUpMadeUpMadeUp req_011MadeUpMadeUpMadeUp",
        image,
    ] {
        assert_eq!(Redactor::shapes().redact_str(text), text);
        assert_eq!(in_pieces(&Redactor::shapes(), text.as_bytes(), &[1]), text.as_bytes());
    }
}

#[test]
fn a_key_without_its_end_is_masked_as_far_as_it_goes() {
    let redactor = Redactor::shapes();
    let head = format!("-----BEGIN PRIVATE KEY-----\n{}\n{}", made_up(64), made_up(64));
    for (after, expected) in [
        ("", "[redacted]"),
        ("\n\nMore is said here.", "[redacted]\n\nMore is said here."),
        ("\"}", "[redacted]\"}"),
        ("\n-----BEGIN CERTIFICATE-----", "[redacted]\n-----BEGIN CERTIFICATE-----"),
    ] {
        let text = format!("{head}{after}");
        let whole = redactor.redact_str(&text);
        assert!(whole.starts_with(MASK) && !whole.contains("MadeUp"), "{whole}");
        let tail = expected.trim_start_matches(MASK).trim_start();
        assert!(whole.ends_with(tail), "{whole}");
        for n in 1..20 {
            assert_eq!(in_pieces(&redactor, text.as_bytes(), &[n]), whole.as_bytes());
        }
    }
    let encrypted = format!(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0BAD\n\n{}\n-----END RSA PRIVATE KEY-----\n",
        made_up(64)
    );
    assert_eq!(redactor.redact_str(&encrypted), "[redacted]\n");
}

#[test]
fn a_credential_without_end_is_followed_and_not_collected() {
    let mut stream = RedactedStream::new(Redactor::shapes());
    let mut out = Vec::new();
    stream.feed(b"k=sk-ant-0", &mut out);
    let piece = made_up(1 << 16);
    for _ in 0..64 {
        stream.feed(piece.as_bytes(), &mut out);
        assert!(out.len() < 64, "{}", out.len());
    }
    stream.feed(b" end", &mut out);
    assert_eq!(stream.finish(&mut out), 1);
    assert_eq!(String::from_utf8_lossy(&out), "k=[redacted] end");
}
