//! The table under `## Parameters`: what a runbook can be told, and its defaults.

use std::ops::Range;

use pulldown_cmark::{Event, HeadingLevel, OffsetIter, Options, Parser, Tag, TagEnd};

use super::name::is_name;
use super::template::first_variable;

/// The heading that announces the table, in lower case.
const HEADING: &str = "parameters";

/// Headers of each column, in lower case, the usual one first.
const NAME_HEADERS: [&str; 3] = ["parameter", "name", "variable name"];
const VARIABLE_HEADERS: [&str; 4] = ["template variable", "variable", "placeholder", "value"];
const DEFAULT_HEADERS: [&str; 2] = ["default", "default value"];
const DESCRIPTION_HEADERS: [&str; 3] = ["description", "purpose", "notes"];

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// What people call it.
    pub name: String,
    /// The variable that stands for it in the text: the one that its row shows as `{{variable}}`,
    /// or else its name in snake case.
    pub variable: String,
    /// The value where none is supplied. Only a cell that holds nothing but one literal in
    /// backticks is one: "`a` (hosted) / `b` (local)" is prose, and so is *(optional)*.
    pub default: Option<String>,
    /// What it is for.
    pub description: String,
}

/// The parameters of a runbook's Markdown, in the order of its table. A row without a usable
/// variable is left out.
pub(super) fn read(markdown: &str) -> Vec<Parameter> {
    let mut rows = rows(markdown).into_iter();
    let Some(header) = rows.next() else { return Vec::new() };
    let columns = Columns::find(&header);
    rows.filter_map(|row| columns.parameter(&row)).collect()
}

/// Where the columns stand. Authors leave some out and order them as they like.
struct Columns {
    name: usize,
    variable: Option<usize>,
    default: Option<usize>,
    description: Option<usize>,
}

impl Columns {
    fn find(header: &[Cell<'_>]) -> Self {
        let titles: Vec<String> = header.iter().map(|cell| cell.plain.to_lowercase()).collect();
        let find = |headers: &[&str]| {
            headers.iter().find_map(|&wanted| titles.iter().position(|title| title == wanted))
        };
        Self {
            name: find(&NAME_HEADERS).unwrap_or(0),
            variable: find(&VARIABLE_HEADERS),
            default: find(&DEFAULT_HEADERS),
            description: find(&DESCRIPTION_HEADERS),
        }
    }

    fn parameter(&self, row: &[Cell<'_>]) -> Option<Parameter> {
        let cell = |column: Option<usize>| row.get(column?);
        let name = row.get(self.name)?;
        let shown = cell(self.variable).and_then(Cell::variable).or_else(|| name.variable());
        let variable = shown.map_or_else(|| snake_case(&name.plain), str::to_owned);
        is_name(&variable).then(|| Parameter {
            name: name.plain.clone(),
            variable,
            default: cell(self.default).and_then(Cell::literal),
            description: cell(self.description).map(|cell| cell.plain.clone()).unwrap_or_default(),
        })
    }
}

/// A cell of the table.
#[derive(Default)]
struct Cell<'m> {
    /// Its text without markup.
    plain: String,
    /// Its Markdown, where underscores are still underscores.
    markdown: &'m str,
    /// Whether all of it is one code span.
    is_code: bool,
    n_events: usize,
}

impl<'m> Cell<'m> {
    fn add(&mut self, event: &Event<'_>) {
        self.is_code = self.n_events == 0 && matches!(event, Event::Code(_));
        self.n_events += 1;
        self.plain.push_str(plain(event));
    }

    fn variable(&self) -> Option<&'m str> {
        first_variable(self.markdown)
    }

    /// A default. A literal that shows a variable would only put the variable in its own place.
    fn literal(&self) -> Option<String> {
        (self.is_code && self.variable().is_none()).then(|| self.plain.clone())
    }
}

/// The rows of the first table under the heading, its header first.
fn rows(markdown: &str) -> Vec<Vec<Cell<'_>>> {
    let mut events = Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter();
    if enter_section(&mut events) && enter_table(&mut events) {
        table_rows(&mut events, markdown)
    } else {
        Vec::new()
    }
}

fn enter_section(events: &mut OffsetIter<'_>) -> bool {
    while let Some((event, _)) = events.next() {
        if matches!(event, Event::Start(Tag::Heading { level: HeadingLevel::H2, .. })) {
            let title: String = events
                .map_while(|(event, _)| (!is_heading_end(&event)).then(|| plain(&event).to_owned()))
                .collect();
            if title.trim().to_lowercase() == HEADING {
                return true;
            }
        }
    }
    false
}

/// Goes to the section's first table. There is none where the next section begins before it.
fn enter_table(events: &mut OffsetIter<'_>) -> bool {
    for (event, _) in events {
        if matches!(event, Event::Start(Tag::Table(_))) {
            return true;
        }
        if matches!(event, Event::Start(Tag::Heading { level, .. }) if level <= HeadingLevel::H2) {
            return false;
        }
    }
    false
}

fn table_rows<'m>(events: &mut OffsetIter<'m>, markdown: &'m str) -> Vec<Vec<Cell<'m>>> {
    let mut rows: Vec<Vec<Cell<'m>>> = Vec::new();
    for (event, range) in events.take_while(|(event, _)| *event != Event::End(TagEnd::Table)) {
        if matches!(event, Event::Start(Tag::TableHead | Tag::TableRow)) {
            rows.push(Vec::new());
        } else if event == Event::Start(Tag::TableCell)
            && let Some(row) = rows.last_mut()
        {
            row.push(cell_at(markdown, range));
        } else if !matches!(
            event,
            Event::End(TagEnd::TableCell | TagEnd::TableRow | TagEnd::TableHead)
        ) && let Some(cell) = rows.last_mut().and_then(|row| row.last_mut())
        {
            cell.add(&event);
        }
    }
    rows
}

fn cell_at(markdown: &str, range: Range<usize>) -> Cell<'_> {
    Cell { markdown: &markdown[range], ..Cell::default() }
}

fn is_heading_end(event: &Event<'_>) -> bool {
    matches!(event, Event::End(TagEnd::Heading(_)))
}

/// The words of an event, without markup.
fn plain<'e>(event: &'e Event<'_>) -> &'e str {
    if let Event::Text(text) | Event::Code(text) = event { text } else { "" }
}

/// A name as a variable: `Source repo URL` is `source_repo_url`.
fn snake_case(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each parameter as `variable=default (name: description)`.
    fn summary(markdown: &str) -> Vec<String> {
        let one = |Parameter { name, variable, default, description }: Parameter| {
            let default = default.map_or_else(|| "-".to_owned(), |default| format!("{default:?}"));
            format!("{variable}={default} ({name}: {description})")
        };
        read(markdown).into_iter().map(one).collect()
    }

    fn section(table: &str) -> String {
        format!("# Title\n\n## Parameters\n\nSome words.\n\n{table}\n\n## Next\n")
    }

    #[test]
    fn columns_are_found_by_their_headers() {
        let cases = [
            (
                "| Parameter | Template Variable | Default | Description |\n|-|-|-|-|\n\
                 | Colour | `{{ colour }}` | `red` | Of the *roof* |",
                "colour=\"red\" (Colour: Of the roof)",
            ),
            (
                "| Parameter | Default | Required | Description |\n|-|-|-|-|\n\
                 | Source repo URL | `none` | no | Where |",
                "source_repo_url=\"none\" (Source repo URL: Where)",
            ),
            (
                "| Description | PARAMETER | Default |\n|:-|-:|-|\n| Why | `max_rounds` | `3` |",
                "max_rounds=\"3\" (max_rounds: Why)",
            ),
            (
                "Parameter | Value | Description\n-|-|-\nFolder | {{out_dir}} | Where\n",
                "out_dir=- (Folder: Where)",
            ),
            ("| {{topic}} |\n|-|\n| {{_a_b_}} |", "_a_b_=- ({{a_b}}: )"),
        ];
        for (table, expected) in cases {
            assert_eq!(summary(&section(table)), [expected], "{table}");
            let crlf = section(table).replace('\n', "\r\n");
            assert_eq!(summary(&crlf), [expected], "{crlf}");
        }
    }

    #[test]
    fn only_a_single_literal_is_a_default() {
        let cases = [
            ("`a b`", Some("a b")),
            ("  `/out/x`  ", Some("/out/x")),
            (r"`a \| b`", Some("a | b")),
            ("``a ` b``", Some("a ` b")),
            ("`\"quoted\"`", Some("\"quoted\"")),
            ("", None),
            ("-", None),
            ("red", None),
            ("*(optional)*", None),
            ("`a` or `b`", None),
            ("`/app/x` (hosted) / `./x` (local)", None),
            ("**`a`**", None),
            ("`{{x}}`", None),
            ("`a", None),
        ];
        for (cell, default) in cases {
            let table = section(&format!("| Parameter | Default |\n|-|-|\n| x | {cell} |"));
            let found: Vec<_> = read(&table).into_iter().map(|found| found.default).collect();
            assert_eq!(found, [default.map(str::to_owned)], "{cell}");
        }
    }

    #[test]
    fn only_the_first_table_of_the_section_counts() {
        let table = "| Parameter | Default |\n|-|-|\n| x | `1` |\n";
        let none: [&str; 0] = [];
        assert_eq!(summary(table), none);
        assert_eq!(summary(&format!("### Parameters\n\n{table}")), none);
        assert_eq!(summary(&format!("## Parameters\n\n## Other\n\n{table}")), none);
        assert_eq!(summary(&format!("```md\n## Parameters\n\n{table}```\n")), none);
        let two = format!("##  `PARAMETERS` ##\n### Sub\n\n{table}\nand\n\n{table}");
        assert_eq!(summary(&two), ["x=\"1\" (x: )"]);
    }

    #[test]
    fn short_rows_and_rows_without_a_usable_variable_are_harmless() {
        let table = "| Parameter | Template Variable | Default |\n|-|-|-|\n\
                     | | | `1` |\n| \u{96f6} | | `1` |\n| 2nd car | | `1` |\n| Car |\n";
        assert_eq!(summary(&section(table)), ["car=- (Car: )"]);
    }
}
