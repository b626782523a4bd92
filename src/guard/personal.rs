//! Personal data that can be told from other text by its form.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Personal data in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Personal {
    /// What it is.
    pub(super) kind: &'static str,
    /// Its bytes.
    pub(super) range: Range<usize>,
}

struct Rule {
    kind: &'static str,
    form: &'static str,
    holds: fn(&Place<'_>) -> bool,
}

/// What has the form, with the text around it.
struct Place<'t> {
    found: &'t str,
    before: &'t str,
    after: &'t str,
}

const RULES: [Rule; 5] = [
    Rule {
        kind: "email",
        form: r"(?i)[a-z0-9._%+\-]{1,64}@(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}",
        holds: is_email,
    },
    Rule { kind: "payment_card", form: r"[2-6](?:[ \-]?[0-9]){12,18}", holds: is_card },
    Rule {
        kind: "iban",
        form: r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?",
        holds: is_iban,
    },
    Rule { kind: "us_ssn", form: r"[0-9]{3}-[0-9]{2}-[0-9]{4}", holds: is_ssn },
    Rule {
        kind: "phone",
        form: r"\+[1-9][0-9]{0,2}(?:[ .()/\-]{0,2}[0-9]){6,14}",
        holds: is_phone,
    },
];

static FORMS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let forms = RULES.iter().map(|rule| Regex::new(rule.form));
    forms.collect::<Result<_, _>>().expect("the forms are constant and tested")
});

/// Escapes of blanks and of characters by number: a text is often JSON or code, a tool's result for
/// instance.
static ESCAPES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\\(?:[nrtbf]|u[0-9a-fA-F]{4})").expect("the form is constant and tested")
});

/// The personal data in a text, in order; none overlaps another.
pub(super) fn personal(text: &str) -> Vec<Personal> {
    let text = &*with_blanks(text);
    let mut all = Vec::new();
    for (rule, form) in RULES.iter().zip(FORMS.iter()) {
        for found in form.find_iter(text) {
            let (before, after) = (&text[..found.start()], &text[found.end()..]);
            let place = Place { found: found.as_str(), before, after };
            if (rule.holds)(&place) {
                all.push(Personal { kind: rule.kind, range: found.range() });
            }
        }
    }
    all.sort_by_key(|found| (found.range.start, std::cmp::Reverse(found.range.end)));
    let mut end = 0;
    all.retain(|found| {
        let is_apart = found.range.start >= end;
        end = if is_apart { found.range.end } else { end };
        is_apart
    });
    all
}

/// The text with blanks where escapes are, byte for byte: their letters and digits belong to no word
/// and no number beside them, and a mask must not begin within one.
fn with_blanks(text: &str) -> Cow<'_, str> {
    ESCAPES.replace_all(text, |escape: &Captures<'_>| {
        let blank = if matches!(&escape[0], r"\n" | r"\r") { "\n" } else { "\t" };
        blank.repeat(escape[0].len())
    })
}

impl Place<'_> {
    /// Whether nothing of a longer word or number stands beside it.
    fn stands_alone(&self) -> bool {
        let joins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
        let before = self.before.chars().next_back();
        let mut after = self.after.chars();
        let next = after.next();
        // A full stop ends a sentence, and a number goes on behind a decimal point.
        let goes_on = next.is_some_and(|c| {
            joins(c) || (c == '.' && after.next().is_some_and(|c| c.is_ascii_digit()))
        });
        let is_part = before.is_some_and(|c| joins(c) || matches!(c, '.' | '/'));
        !is_part && !goes_on
    }

    fn digits(&self) -> Vec<u32> {
        self.found.chars().filter_map(|c| c.to_digit(10)).collect()
    }
}

/// An address that could be somebody's: not one that takes no mail, not one of an example, not the
/// user of a repository's URL, not a picture's name.
fn is_email(place: &Place<'_>) -> bool {
    const NOBODY: [&str; 7] =
        ["noreply", "no-reply", "donotreply", "do-not-reply", "git", "user", "username"];
    const NOWHERE: [&str; 8] = [
        "example.com",
        "example.org",
        "example.net",
        ".example",
        ".test",
        ".invalid",
        ".localhost",
        ".local",
    ];
    const FILES: [&str; 8] = [".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".js", ".css"];
    let address = place.found.to_lowercase();
    let Some((name, host)) = address.split_once('@') else { return false };
    let is_nobody = NOBODY.contains(&name) || name.ends_with("noreply");
    let ends = |ends: &[&str]| {
        ends.iter().any(|end| host.ends_with(end) || host == end.trim_start_matches('.'))
    };
    let word_before = place.before.rsplit(char::is_whitespace).next().unwrap_or_default();
    // `name@host:path` is how files are copied, `//name:word@host` how a password is given.
    let is_of_url = word_before.contains("://") || place.after.starts_with(":/");
    let goes_on = place.after.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
    !is_nobody && !ends(&NOWHERE) && !ends(&FILES) && !is_of_url && !goes_on
}

/// The digits that issuers begin with, the lengths that they use, groups as they are embossed, and
/// the check digit.
fn is_card(place: &Place<'_>) -> bool {
    let digits = place.digits();
    let head = |n: usize| digits[..n].iter().fold(0, |number, digit| number * 10 + digit);
    let fits = match (head(1), head(2), head(4)) {
        (4, ..) => matches!(digits.len(), 13 | 16 | 19),
        (_, 34 | 37, _) => digits.len() == 15,
        (_, 36 | 38 | 39, _) | (_, _, 3000..=3059) => matches!(digits.len(), 14 | 16),
        (_, 51..=55, _) | (_, _, 2221..=2720 | 3528..=3589) => digits.len() == 16,
        (_, 60 | 62 | 64 | 65, _) => matches!(digits.len(), 16..=19),
        (_, 50 | 56..=58 | 63 | 67, _) => digits.len() == 16,
        _ => false,
    };
    let groups: Vec<usize> = place.found.split([' ', '-']).map(str::len).collect();
    let is_grouped =
        matches!(groups.as_slice(), [_] | [4, 4, 4, 4] | [4, 6, 5] | [4, 6, 4] | [4, 4, 4, 4, 3]);
    let is_varied = digits.iter().any(|digit| *digit != digits[0]);
    fits && is_grouped && is_varied && has_check_digit(&digits) && place.stands_alone()
}

/// Luhn's sum.
fn has_check_digit(digits: &[u32]) -> bool {
    let doubled = |(at, digit): (usize, &u32)| match (at % 2, digit * 2) {
        (0, _) => *digit,
        (_, double) => double / 10 + double % 10,
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

/// The length that its country uses, and the check digits.
fn is_iban(place: &Place<'_>) -> bool {
    #[rustfmt::skip]
    const LENGTHS: [(&str, usize); 78] = [
        ("AD", 24), ("AE", 23), ("AL", 28), ("AT", 20), ("AZ", 28), ("BA", 20), ("BE", 16), ("BG", 22),
        ("BH", 22), ("BR", 29), ("BY", 28), ("CH", 21), ("CR", 22), ("CY", 28), ("CZ", 24), ("DE", 22),
        ("DK", 18), ("DO", 28), ("EE", 20), ("EG", 29), ("ES", 24), ("FI", 18), ("FO", 18), ("FR", 27),
        ("GB", 22), ("GE", 22), ("GI", 23), ("GL", 18), ("GR", 27), ("GT", 28), ("HR", 21), ("HU", 28),
        ("IE", 22), ("IL", 23), ("IQ", 23), ("IS", 26), ("IT", 27), ("JO", 30), ("KW", 30), ("KZ", 20),
        ("LB", 28), ("LC", 32), ("LI", 21), ("LT", 20), ("LU", 20), ("LV", 21), ("LY", 25), ("MC", 27),
        ("MD", 24), ("ME", 22), ("MK", 19), ("MR", 27), ("MT", 31), ("MU", 30), ("NL", 18), ("NO", 15),
        ("PK", 24), ("PL", 28), ("PS", 29), ("PT", 25), ("QA", 29), ("RO", 24), ("RS", 22), ("SA", 24),
        ("SC", 31), ("SD", 18), ("SE", 24), ("SI", 19), ("SK", 24), ("SM", 27), ("ST", 25), ("SV", 28),
        ("TL", 23), ("TN", 24), ("TR", 26), ("UA", 29), ("VA", 22), ("XK", 20),
    ];
    let text: String = place.found.chars().filter(|c| *c != ' ').collect();
    let length = LENGTHS.iter().find(|(country, _)| text.starts_with(country));
    if length.is_none_or(|(_, length)| *length != text.len()) {
        return false;
    }
    let turned = text[4..].chars().chain(text[..4].chars());
    let rest = turned.filter_map(|c| c.to_digit(36)).fold(0, |rest, value| {
        let shift = if value > 9 { 100 } else { 10 };
        (rest * shift + value) % 97
    });
    rest == 1 && place.stands_alone()
}

/// A number that the United States could have given out.
fn is_ssn(place: &Place<'_>) -> bool {
    let part = |range: Range<usize>| place.found[range].parse::<u32>().unwrap_or(0);
    let (area, group, serial) = (part(0..3), part(4..6), part(7..11));
    let is_area = (1..900).contains(&area) && area != 666;
    is_area && group > 0 && serial > 0 && place.stands_alone()
}

/// A number in the international form, of 8 to 15 digits.
fn is_phone(place: &Place<'_>) -> bool {
    let n_digits = place.digits().len();
    // An added line of a patch begins with the same sign.
    let begins_line = place.before.chars().next_back().is_none_or(|c| c == '\n');
    let is_plain = place.found.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    let is_date = place.found.contains('/');
    (8..=15).contains(&n_digits) && !(begins_line && is_plain) && !is_date && place.stands_alone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, &str)> {
        personal(text).into_iter().map(|p| (p.kind, &text[p.range])).collect()
    }

    #[test]
    fn personal_data_is_found_by_its_form() {
        for (text, kind, value) in [
            ("mail to ada.lovelace@math.cam.ac.uk.", "email", "ada.lovelace@math.cam.ac.uk"),
            ("<A+b@Firm.DE>", "email", "A+b@Firm.DE"),
            ("card 4111 1111 1111 1111, please", "payment_card", "4111 1111 1111 1111"),
            ("4111-1111-1111-1111", "payment_card", "4111-1111-1111-1111"),
            ("n=5555555555554444;", "payment_card", "5555555555554444"),
            ("378282246310005.", "payment_card", "378282246310005"),
            ("3782 822463 10005", "payment_card", "3782 822463 10005"),
            ("IBAN DE89 3704 0044 0532 0130 00", "iban", "DE89 3704 0044 0532 0130 00"),
            ("GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
            ("NO9386011117947", "iban", "NO9386011117947"),
            ("ssn: 123-45-6789", "us_ssn", "123-45-6789"),
            ("call +1 (415) 555-2671 now", "phone", "+1 (415) 555-2671"),
            ("call +4915123456789", "phone", "+4915123456789"),
            ("\n+49 30 1234567", "phone", "+49 30 1234567"),
            (r#"{"a":"\n4111111111111111"}"#, "payment_card", "4111111111111111"),
            (r#"see https://x.org\nada@firm.de"#, "email", "ada@firm.de"),
            (r#"\\\tada@firm.de"#, "email", "ada@firm.de"),
            (r#"\u003cada@firm.de\u003e"#, "email", "ada@firm.de"),
            (r#"J\u00fcrgen@firm.de"#, "email", "rgen@firm.de"),
            (r#"é\rDE89 3704 0044 0532 0130 00\n"#, "iban", "DE89 3704 0044 0532 0130 00"),
        ] {
            assert_eq!(found(text), [(kind, value)], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_personal_data_stays() {
        for text in [
            "Co-Authored-By: Claude <noreply@anthropic.com>",
            "1234+somebody.noreply@users.noreply.github.com or noreply@github.com",
            "git@github.com:owner/repo.git and user@example.com, a@b.test",
            "icon@2x.png, package@1.2.3, @app.route, x@y",
            "https://user:word@host.com/ and ssh://somebody@host.org:/path",
            "4111 1111 1111 1112",
            "4111111111111111111111",
            "a4111111111111111 and 0.4111111111111111",
            "1700000000000000 1700000000000000000 20240101123456",
            "3f2b8c1a-9d4e-4f60-8a7b-012345678901",
            "4444444444444444 41 11 11 11 11 11 11 11",
            "DE89 3704 0044 0532 0130 01 and DE8937040044053201300",
            "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000 1123-45-6789",
            "2024-01-01T00:00:00+02:00 and 1e+10000000 and C++17",
            "\n+123456789012\n+20240101",
            r"\n+123456789012\n+20240101",
            "2125551212 and 415-555-2671",
            "version 6.0.1-20240101, 10.0.0.1, 255.255.255.255",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn what_overlaps_is_counted_once() {
        let text = "+4915123456789@firm.de";
        assert_eq!(found(text), [("email", text)]);
    }
}
