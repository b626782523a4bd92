//! Template variables: `{{name}}` becomes a value where one was supplied, and stays where not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::position::Lines;
use super::secrets::SecretDeclaration;

/// A secret's reference, with or without `$` before it, or a variable. Runbooks are full of other
/// things between double braces (Python's f-strings, JSX, shell, prose): they do not match, or they
/// name nothing that was supplied.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let name = "[A-Za-z_][A-Za-z0-9_]*";
    Regex::new(&format!(
        r"\$?\{{\{{\s*secrets\.(?<secret>{name})\s*\}}\}}|\{{\{{\s*(?<variable>{name})\s*\}}\}}"
    ))
    .expect("the pattern is valid")
});

/// A text with its variables filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The variables that were filled in, in the order of their first places.
    pub filled: Vec<String>,
    /// The declared variables that stand in the text as they were, in the order of their first
    /// places. A runbook may look for that itself, to use a default of its own.
    pub unfilled: Vec<UnfilledVariable>,
}

/// A declared variable without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfilledVariable {
    /// Its name.
    pub name: String,
    /// The line of its first place in the file, counted from 1.
    pub line: usize,
}

/// What names in a text stand for.
pub(super) struct Names<'a> {
    /// What replaces a variable, byte for byte: variables in a value are not looked for.
    pub(super) values: &'a BTreeMap<String, String>,
    /// What `secrets.NAME` may name. The environment variable replaces it, never the value.
    pub(super) secrets: &'a BTreeMap<String, SecretDeclaration>,
    /// The variables that are missed if they have no value.
    pub(super) declared: BTreeSet<String>,
}

/// Fills in what `names` knows in a text whose first line is the file's line `first_line`, and
/// leaves everything else as it is.
pub(super) fn render(text: &str, first_line: usize, names: &Names<'_>) -> Rendered {
    let lines = Lines::new(text, first_line);
    let mut rendered =
        Rendered { text: String::with_capacity(text.len()), filled: vec![], unfilled: vec![] };
    let mut seen = BTreeSet::new();
    let mut copied = 0;
    for reference in REFERENCE.captures_iter(text) {
        let place = reference.get_match();
        if let Some(name) = reference.name("variable").map(|name| name.as_str())
            && seen.insert(name)
        {
            if names.values.contains_key(name) {
                rendered.filled.push(name.to_owned());
            } else if names.declared.contains(name) {
                let line = lines.position(place.start()).line;
                rendered.unfilled.push(UnfilledVariable { name: name.to_owned(), line });
            }
        }
        if let Some(replacement) = replacement(&reference, &text[place.end()..], names) {
            rendered.text.push_str(&text[copied..place.start()]);
            rendered.text.push_str(&replacement);
            copied = place.end();
        }
    }
    rendered.text.push_str(&text[copied..]);
    rendered
}

/// The names of all variables in a text.
#[must_use]
pub fn referenced_variables(text: &str) -> BTreeSet<&str> {
    REFERENCE
        .captures_iter(text)
        .filter_map(|found| Some(found.name("variable")?.as_str()))
        .collect()
}

/// The name of the first variable in a text.
pub(super) fn first_variable(text: &str) -> Option<&str> {
    REFERENCE.captures_iter(text).find_map(|found| Some(found.name("variable")?.as_str()))
}

/// What stands for a reference, where `names` knows it. `behind` is the text after it.
fn replacement(reference: &Captures<'_>, behind: &str, names: &Names<'_>) -> Option<String> {
    if let Some(variable) = reference.name("variable") {
        return names.values.get(variable.as_str()).cloned();
    }
    let SecretDeclaration { env, .. } = names.secrets.get(reference.name("secret")?.as_str())?;
    // A shell would read a letter that follows as a part of the name.
    let runs_on = behind.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    Some(if runs_on { format!("${{{env}}}") } else { format!("${env}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn render_with(text: &str, values: &[(&str, &str)], declared: &[&str]) -> Rendered {
        let secret = |env: &str| SecretDeclaration {
            env: env.to_owned(),
            description: None,
            required: false,
        };
        let secrets = [("KEY", "KEY"), ("OTHER", "OTHER_TOKEN")]
            .map(|(name, env)| (name.to_owned(), secret(env)));
        let names = Names {
            values: &map(values),
            secrets: &BTreeMap::from(secrets),
            declared: declared.iter().map(|&name| name.to_owned()).collect(),
        };
        render(text, 1, &names)
    }

    #[test]
    fn supplied_variables_are_filled_in() {
        let values =
            [("a", "1"), ("b_2", ""), ("_C", "x y"), ("r", "{{a}} $1 ${0} \\"), ("e", "é")];
        let cases = [
            ("{{a}}", "1"),
            ("{{ a }}{{\ta\n}}", "11"),
            ("<{{b_2}}>", "<>"),
            ("{{_C}}/{{e}}", "x y/é"),
            ("{{{a}}}", "{1}"),
            ("costs ${{a}}", "costs $1"),
            ("{{{{a}}}}", "{{1}}"),
            ("`{{a}}` \"{{a}}\"", "`1` \"1\""),
            // A value is taken as it is: nothing in it is looked for again.
            ("{{r}}{{a}}", "{{a}} $1 ${0} \\1"),
        ];
        for (text, expected) in cases {
            assert_eq!(render_with(text, &values, &[]).text, expected, "{text}");
        }
    }

    #[test]
    fn lookalikes_stay_as_they_are() {
        // The names in them are supplied, so that only their form can save them.
        let values = ["x", "name", "secrets", "len", "y", "SECRET_KEY"].map(|name| (name, "BAD"));
        let lookalikes = [
            "{{...}}",
            "\"{{\" + \"x}}\"",
            "f'{{\"name\": <0-10>}}'",
            "\"${{SECRET_KEY:-}}\"",
            "|| {{ echo \"x\"; exit 1; }}",
            "{{len(x)}}",
            "{{name['y']}}",
            "{{name.y}}",
            "{{x, y}}",
            "style={{ name: 1 }}",
            "style={{}}",
            "{{ x y }}",
            "{{x-y}}",
            "{{1x}}",
            "{{é}}",
            "{ {x} }",
            "{{x}",
            "{x}}",
            "{{#x}}{{/x}}{{!x}}{{x|y}}",
            "{% x %}{# x #}",
            "{{undeclared}}",
            "${{ github.ref }}",
            "{{secrets.UNDECLARED}} ${{ secrets.UNDECLARED }}",
            "{{secrets.KEY.x}}",
        ];
        for text in lookalikes {
            let expected = Rendered { text: text.to_owned(), filled: vec![], unfilled: vec![] };
            assert_eq!(render_with(text, &values, &["x", "name"]), expected, "{text}");
        }
    }

    #[test]
    fn a_declared_secret_becomes_its_environment_variable() {
        let values = [("KEY", "BAD"), ("secrets", "BAD")];
        let cases = [
            ("{{secrets.KEY}}", "$KEY"),
            ("'${{ secrets.KEY }}'", "'$KEY'"),
            ("{{ secrets.OTHER }}-x", "$OTHER_TOKEN-x"),
            ("{{secrets.KEY}}_x", "${KEY}_x"),
            ("$${{secrets.KEY}}", "$$KEY"),
        ];
        for (text, expected) in cases {
            assert_eq!(render_with(text, &values, &[]).text, expected, "{text}");
        }
    }

    #[test]
    fn it_is_said_what_was_filled_in_and_what_is_missing() {
        let text = "{{b}}\n{{a}} {{now}}\n{{c}} {{a}} {{b}}\n{{d}} {{c}} {{secrets.KEY}}\n";
        let rendered = render_with(text, &[("b", "B"), ("a", "A"), ("z", "Z")], &["d", "c", "a"]);
        let missing = |name: &str, line| UnfilledVariable { name: name.to_owned(), line };
        let expected = Rendered {
            text: "B\nA {{now}}\n{{c}} A B\n{{d}} {{c}} $KEY\n".to_owned(),
            filled: vec!["b".to_owned(), "a".to_owned()],
            unfilled: vec![missing("c", 3), missing("d", 4)],
        };
        assert_eq!(rendered, expected);
    }

    proptest! {
        #[test]
        fn without_names_rendering_changes_nothing(text in "[a{} $.\n\u{e9}]{0,40}") {
            let names = Names {
                values: &BTreeMap::new(),
                secrets: &BTreeMap::new(),
                declared: BTreeSet::new(),
            };
            prop_assert_eq!(render(&text, 1, &names).text, text);
        }

        #[test]
        fn rendering_changes_only_the_places_of_supplied_names(
            parts in prop::collection::vec(("[^{}$]{0,8}", "[ab]", 0_usize..3), 0..12),
            value in any::<String>(),
        ) {
            let (mut text, mut expected) = (String::new(), String::new());
            for (between, name, n_blanks) in &parts {
                let blanks = " ".repeat(*n_blanks);
                let reference = format!("{{{{{blanks}{name}{blanks}}}}}");
                text.extend([between.as_str(), &reference]);
                expected.extend([between.as_str(), if name == "a" { &value } else { &reference }]);
            }
            prop_assert_eq!(render_with(&text, &[("a", &value)], &[]).text, expected);
        }
    }
}
