//! Public runbooks with odd corners, read in place where they are at hand. They are other people's
//! texts, so the repository holds none of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use regex::Regex;

use super::{FrontMatter, Part, Runbook};

/// Where the samples lie, from the package's folder.
const SAMPLES: &str = "../shared/samples/runbooks";

#[test]
fn public_runbooks_are_read_as_expected() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLES);
    let Ok(expected) = fs::read_to_string(samples.join("expected.tsv")) else {
        println!("skipped: there are no samples in {}", samples.display());
        return;
    };
    for row in expected.lines().skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        let bytes = fs::read(samples.join(cells[0])).unwrap();
        let runbook =
            Runbook::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", cells[0]));
        assert_eq!(front_matter_row(bytes.len(), runbook.front_matter()), expected_row(&cells));
        check_variables(&runbook, cells[11], cells.get(12).copied().unwrap_or_default());
    }
}

/// The columns before the variables, in the table's own spelling.
fn front_matter_row(n_bytes: usize, front_matter: &FrontMatter) -> Vec<String> {
    assert_eq!(front_matter.unknown, []);
    let secrets = front_matter.secrets.iter().map(|(name, secret)| {
        assert_eq!(&secret.env, name);
        if secret.required { format!("{name}!") } else { name.clone() }
    });
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        n_bytes.to_string(),
        text(&front_matter.version),
        text(&front_matter.evaluation),
        text(&front_matter.agent),
        text(&front_matter.model),
        text(&front_matter.model_provider),
        text(&front_matter.snapshot),
        sorted(secrets.collect()),
        front_matter.primary_outputs.join(","),
    ]
}

/// The same columns of the table. Declaring no secret and not speaking of secrets is one to us.
fn expected_row(cells: &[&str]) -> Vec<String> {
    let mut row: Vec<String> = cells[1..=9].iter().map(|&cell| cell.to_owned()).collect();
    row[7] = match row[7].as_str() {
        "{}" | "absent" | "null" => String::new(),
        secrets => sorted(secrets.split(',').map(str::to_owned).collect()),
    };
    row
}

fn sorted(mut words: Vec<String>) -> String {
    words.sort();
    words.join(",")
}

/// Supplies every variable: all are found, and what only looks like one stays.
fn check_variables(runbook: &Runbook, variables: &str, lookalikes: &str) {
    let names = || variables.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
    let values: BTreeMap<_, _> = names().map(|name| (name, "VALUE".to_owned())).collect();
    let rendered = runbook.render(Part::Whole, &values);
    assert_ne!(runbook.parameters(), [], "each has a table of parameters");
    assert_eq!(sorted(rendered.filled), sorted(names().collect()));
    assert_eq!(rendered.unfilled, []);
    assert!(!Regex::new(r"\{\{\s*[A-Za-z_]+\s*\}\}").unwrap().is_match(&rendered.text));

    let lines: Vec<&str> = rendered.text.lines().collect();
    let start = Regex::new(r"(?:^|; )L(\d+):").unwrap();
    let ends: Vec<usize> = start.find_iter(lookalikes).map(|place| place.start()).collect();
    let ends = ends.into_iter().skip(1).chain([lookalikes.len()]);
    for (place, end) in start.captures_iter(lookalikes).zip(ends) {
        let line = lines[place[1].parse::<usize>().unwrap() - 1];
        let lookalike = &lookalikes[place.get_match().end()..end];
        assert!(line.contains(lookalike), "{lookalike:?} is not in {line:?}");
    }

    assert_eq!(runbook.render(Part::Whole, &BTreeMap::new()).text, runbook.text());
}
