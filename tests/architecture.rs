//! The import table: which room may import which. A new room without a row fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may import. Layers go down this list; nothing goes back or sideways.
const ALLOWED: &[(&str, &[&str])] = &[
    // Domain: plain data and rules.
    ("secret", &[]),
    ("guard", &["secret"]),
    ("run", &["guard", "secret"]),
    ("runbook", &["run"]),
    ("trajectory", &["guard", "run"]),
    ("workflow", &["run", "runbook"]),
    ("cadence", &[]),
    ("budget", &["run"]),
    // Adapters: each owns one outside thing.
    ("archive", &[]),
    ("host", &["run"]),
    ("database", &["run", "secret"]),
    ("queue", &["database", "run"]),
    ("catalog", &["cadence", "database", "run", "runbook", "secret", "workflow"]),
    ("store", &["run", "secret"]),
    ("client", &["run", "secret"]),
    ("egress", &["host", "reach", "run", "trajectory"]),
    (
        "gateway",
        &[
            "budget",
            "egress",
            "guard",
            "host",
            "provider",
            "reach",
            "run",
            "secret",
            "spend",
            "trajectory",
        ],
    ),
    ("spend", &["budget", "run"]),
    ("reach", &["run"]),
    ("sandbox", &["host", "run", "secret"]),
    ("snapshot", &["run"]),
    ("toolchain", &["run", "secret"]),
    ("runtime", &["run", "trajectory"]),
    ("provider", &["run", "secret"]),
    // Flow.
    ("plan", &["budget", "guard", "provider", "run", "runbook", "runtime", "secret", "snapshot"]),
    ("job", &["guard", "plan", "run", "secret", "workflow"]),
    ("inputs", &["archive", "job", "run", "store"]),
    (
        "worker",
        &[
            "database",
            "egress",
            "gateway",
            "guard",
            "host",
            "inputs",
            "job",
            "plan",
            "provider",
            "queue",
            "records",
            "run",
            "runbook",
            "runtime",
            "sandbox",
            "secret",
            "snapshot",
            "spend",
            "store",
            "telemetry",
            "toolchain",
            "trajectory",
            "webhook",
            "workflow",
        ],
    ),
    (
        "intake",
        &[
            "archive", "budget", "catalog", "database", "gateway", "guard", "host", "inputs",
            "job", "plan", "provider", "queue", "reach", "run", "runbook", "secret", "snapshot",
            "spend", "store", "workflow",
        ],
    ),
    ("records", &["job", "queue", "run", "store"]),
    ("routines", &["catalog", "intake", "run"]),
    ("upstream", &["provider", "reach", "run", "secret"]),
    ("webhook", &["catalog", "queue", "reach", "records", "run", "secret", "telemetry"]),
    // What every layer above the domain may tell of itself.
    ("telemetry", &["secret"]),
    // Edge.
    (
        "api",
        &[
            "archive",
            "budget",
            "cadence",
            "catalog",
            "database",
            "guard",
            "intake",
            "provider",
            "queue",
            "reach",
            "records",
            "routines",
            "run",
            "secret",
            "spend",
            "store",
            "telemetry",
            "trajectory",
            "upstream",
            "webhook",
            "workflow",
        ],
    ),
    (
        "config",
        &[
            "budget",
            "egress",
            "guard",
            "run",
            "sandbox",
            "secret",
            "snapshot",
            "telemetry",
            "toolchain",
        ],
    ),
    (
        "daemon",
        &[
            "api",
            "catalog",
            "config",
            "database",
            "intake",
            "queue",
            "reach",
            "records",
            "run",
            "secret",
            "snapshot",
            "spend",
            "store",
            "telemetry",
            "webhook",
            "worker",
        ],
    ),
    (
        "cli",
        &[
            "api",
            "catalog",
            "client",
            "config",
            "daemon",
            "egress",
            "gateway",
            "host",
            "plan",
            "provider",
            "queue",
            "reach",
            "routines",
            "run",
            "runbook",
            "runtime",
            "sandbox",
            "secret",
            "snapshot",
            "spend",
            "store",
            "telemetry",
            "toolchain",
            "trajectory",
            "webhook",
            "worker",
        ],
    ),
];

/// Words that only one file or folder may say, and why.
const DOORS: &[(&str, &[&str], &str)] = &[
    ("bollard", &["src/sandbox/docker"], "only docker speaks to the container engine"),
    ("std::env::var", &["src/config/"], "only the configuration reads the environment"),
    ("std::env::vars", &["src/config/"], "only the configuration reads the environment"),
    (
        "reqwest::",
        &[
            "src/toolchain/",
            "src/webhook/",
            "src/client/",
            "src/reach/",
            "src/upstream/",
            "src/gateway/",
        ],
        "only the toolchain downloads, only webhooks and model calls go out, only the client asks a \
         server, only `reach` reads what a client points to",
    ),
    ("zip::", &["src/archive/"], "only the archive knows the format"),
    (
        "axum::",
        &["src/provider/scripted/", "src/api/", "src/gateway/", "src/egress/"],
        "only the API, the scripted provider, the gateway and the proxy serve HTTP",
    ),
    (
        "StatusCode::",
        &["src/api/error.rs", "src/api/chat/error.rs", "src/gateway/", "src/egress/"],
        "the API's status codes stand in one place, those of chats, of the gateway and of the proxy \
         in theirs",
    ),
    ("metrics::", &["src/telemetry/"], "every figure's name stands in one place"),
    (
        "sqlx::",
        &["src/database/", "src/queue/", "src/catalog/", "src/spend/"],
        "only these speak to a database",
    ),
    ("SystemTime::now", &[], "time comes in as an argument"),
    ("tokio::spawn", &[], "shutdown waits for every task"),
];

/// Domain rooms do no I/O and know no time.
const DOMAIN: &[&str] =
    &["secret", "guard", "run", "runbook", "trajectory", "job", "workflow", "cadence", "budget"];
const NOT_IN_DOMAIN: &[&str] =
    &["async fn", ".await", "tokio::", "std::fs", "std::net", "std::process", "tracing::", "now()"];

/// The rooms whose statements must run on SQLite and on PostgreSQL alike.
const SQL_ROOMS: &[&str] = &["database", "queue", "catalog", "spend"];
/// The files that speak to SQLite as such.
const SQLITE_ONLY: &[&str] = &["src/database/open.rs", "src/spend/open.rs"];
/// What only one of the two understands, in capitals.
#[rustfmt::skip]
const DIALECT: &[&str] = &[
    "AUTOINCREMENT", "INSERT OR ", "REPLACE INTO", "UPDATE OR ", "DATETIME(", "STRFTIME(", "JULIANDAY(",
    "UNIXEPOCH(", "ROWID", "JSON_EXTRACT", "JSON_EACH", "IFNULL(", " GLOB ", "INSTR(", "PRINTF(",
    "GROUP_CONCAT", "STRING_AGG", " TOTAL(", "(TOTAL(", "PRAGMA", "BLOB", "BYTEA", "INTEGER PRIMARY KEY", "SERIAL", "JSONB",
    "ILIKE", " NOW()", "(NOW()", "CURRENT_TIMESTAMP", "::TEXT", "::BIGINT", "= ANY(", "= ?", "(?,", ", ?,", "?1",
    "LIMIT ?", "COLLATE", "LAST_INSERT",
];

#[test]
fn every_statement_is_understood_by_both_databases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let migrations = fs::read_dir(root.join("src/database/migrations")).expect("it is there");
    let mut texts: Vec<(PathBuf, String)> = migrations
        .map(|entry| entry.expect("the folder can be listed").path())
        .map(|path| (path.clone(), fs::read_to_string(path).expect("a migration is text")))
        .chain([root.join("src/spend/schema.sql")].map(|path| {
            let text = fs::read_to_string(&path).expect("the schema is text");
            (path, text)
        }))
        .collect();
    texts.extend(sources().into_iter().filter(|(path, _)| {
        let sql_room = room_of(path).is_some_and(|room| SQL_ROOMS.contains(&room.as_str()));
        sql_room && !SQLITE_ONLY.iter().any(|file| path == Path::new(file))
    }));
    let mut faults = Vec::new();
    let mut n_statements = 0;
    for (path, text) in &texts {
        for line in product(text).lines().map(|line| code(line.split("--").next().unwrap_or(line)))
        {
            let said = line.to_uppercase();
            n_statements +=
                usize::from(["SELECT ", "UPDATE ", "CREATE "].iter().any(|w| said.contains(w)));
            let words = DIALECT.iter().filter(|word| said.contains(**word));
            faults.extend(words.map(|word| format!("{}: says `{word}`", path.display())));
        }
    }
    assert!(n_statements > 20, "the scan found too little: {n_statements}");
    assert!(faults.is_empty(), "one database would not understand:\n{}", faults.join("\n"));
}

#[test]
fn every_import_is_in_the_table() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let Some(may) = allowed.get(room.as_str()) else {
            faults.push(format!("{}: room `{room}` has no row in ALLOWED", path.display()));
            continue;
        };
        for target in imports(&text) {
            if target != room && !may.contains(&target.as_str()) {
                faults.push(format!("{}: `{room}` must not import `{target}`", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "forbidden imports:\n{}", faults.join("\n"));
}

#[test]
fn every_outside_thing_has_one_door() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        for (word, doors, why) in DOORS {
            let shown = path.display().to_string();
            let at_the_door = doors.iter().any(|door| shown.starts_with(door));
            if !at_the_door && product(&text).lines().any(|line| code(line).contains(word)) {
                faults.push(format!("{shown}: says `{word}`, but {why}"));
            }
        }
    }
    assert!(faults.is_empty(), "words behind the wrong door:\n{}", faults.join("\n"));
}

#[test]
fn the_domain_is_plain_data_and_rules() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room_of(&path) else { continue };
        if !DOMAIN.contains(&room.as_str()) {
            continue;
        }
        for word in NOT_IN_DOMAIN {
            if product(&text).lines().any(|line| code(line).contains(word)) {
                faults.push(format!("{}: says `{word}`", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "the domain does I/O:\n{}", faults.join("\n"));
}

/// The product's source files, relative to the package.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be listed") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                found.push((path.strip_prefix(root).expect("it is below").to_owned(), text));
            }
        }
    }
    assert!(found.len() > 10, "the scan found too little: {}", found.len());
    let tests: Vec<PathBuf> =
        found.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    found.retain(|(path, _)| !tests.iter().any(|test| path.starts_with(test)));
    found
}

/// The files and folders that a `mod.rs` declares for tests alone.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().expect("a source file lies in a folder");
    text.split("#[cfg(test)]\nmod ")
        .skip(1)
        .filter_map(|after| after.split_once(';'))
        .filter(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .flat_map(|(name, _)| [folder.join(name), folder.join(format!("{name}.rs"))])
        .collect()
}

/// The room that a file belongs to; `None` for `lib.rs` and `main.rs`, which import anything.
fn room_of(path: &Path) -> Option<String> {
    let name = path.components().nth(1)?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
    (name != "lib" && name != "main").then_some(name)
}

/// A file without its unit tests, which stand at its end.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The rooms named by `crate::…` paths, grouped imports included.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in product(text).lines().map(code) {
        for after in line.split("crate::").skip(1) {
            let group = after.strip_prefix('{').map(|group| group.split('}').next().unwrap_or(""));
            for item in group.unwrap_or(after).split(',') {
                let name: String =
                    item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_') {
                    found.push(name);
                }
                if group.is_none() {
                    break;
                }
            }
        }
    }
    found
}
