//! The commands about a server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use url::Url;

use crate::client::NamedRun;
use crate::run::Slug;

/// What every command about a server takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServerArguments {
    /// The server's address [default: RUNBOOKD_SERVER, JETTY_API_URL, or http://127.0.0.1:8000].
    #[arg(long, value_name = "URL", value_parser = server)]
    pub(in crate::cli) server: Option<Url>,
    /// Shows the server's own JSON.
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Which collection.
#[derive(Debug, Args)]
pub(in crate::cli) struct CollectionArgument {
    /// The collection [default: the one that the token opens].
    #[arg(long, value_name = "COLLECTION", value_parser = slug)]
    pub(in crate::cli) collection: Option<Slug>,
}

/// What a scripted check of a server takes.
#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArguments {
    #[command(flatten)]
    pub(in crate::cli) server: ServerArguments,
    /// Asks whether it can take work, not only whether it lives.
    #[arg(long)]
    pub(in crate::cli) ready: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArguments {
    /// The run: COLLECTION/TASK/ID, the workflow id, or the id alone.
    #[arg(value_name = "RUN")]
    pub(in crate::cli) run: NamedRun,
    #[command(flatten)]
    pub(in crate::cli) server: ServerArguments,
    /// Goes on until the run has ended.
    #[arg(short, long)]
    pub(in crate::cli) follow: bool,
    /// Shows what the agent CLI wrote, byte for byte (secrets masked).
    #[arg(long, conflicts_with_all = ["follow", "json"])]
    pub(in crate::cli) raw: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RunsCommand {
    /// Lists runs, newest first.
    List {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
        /// Only the runs of this task.
        #[arg(long, value_parser = slug)]
        task: Option<Slug>,
        /// Only those that are `pending`, `running`, `completed`, `failed`, `cancelled` or
        /// `archived`.
        #[arg(long)]
        status: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
        limit: u64,
    },
    /// Shows one run.
    Show {
        /// The run: COLLECTION/TASK/ID, the workflow id, or the id alone.
        #[arg(value_name = "RUN")]
        run: NamedRun,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Stops a run and keeps what it made.
    Cancel {
        /// The run: COLLECTION/TASK/ID, the workflow id, or the id alone.
        #[arg(value_name = "RUN")]
        run: NamedRun,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Downloads the files of a run.
    Download {
        /// The run: COLLECTION/TASK/ID, the workflow id, or the id alone.
        #[arg(value_name = "RUN")]
        run: NamedRun,
        #[command(flatten)]
        server: ServerArguments,
        /// Only this file of the run's folder, such as `results/report.md`.
        #[arg(long, value_name = "PATH")]
        file: Option<String>,
        /// Where to write it [default: TASK-ID.zip, or the file's own name; never over a file].
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TaskCommand {
    /// Lists a collection's tasks.
    List {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
    },
    /// Shows a task.
    Show {
        /// The task.
        #[arg(value_name = "TASK", value_parser = slug)]
        task: Slug,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
    },
    /// Makes a task of a runbook or of a workflow's JSON, or changes the task that is there.
    Put {
        /// A runbook (Markdown), or JSON: a workflow, or a task with its `workflow`.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
        /// The task [default: the JSON's `name`, or the file's name].
        #[arg(long, value_parser = slug)]
        task: Option<Slug>,
    },
    /// Removes a task. The records of its runs stay.
    Delete {
        /// The task.
        #[arg(value_name = "TASK", value_parser = slug)]
        task: Slug,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
    },
}

/// What `runbookd usage` is asked.
#[derive(Debug, Args)]
pub(in crate::cli) struct UsageArguments {
    #[command(flatten)]
    pub(super) server: ServerArguments,
    #[command(flatten)]
    pub(super) collection: CollectionArgument,
    /// The first day in UTC, such as `2026-11-01` [default: the first of this month].
    #[arg(long, value_name = "DAY")]
    pub(super) from: Option<String>,
    /// The last day in UTC [default: today].
    #[arg(long, value_name = "DAY")]
    pub(super) to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EnvCommand {
    /// Lists the names of a collection's variables. Their values never leave the server.
    List {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
    },
    /// Sets a variable to what standard input says. On a terminal it is asked for, unseen.
    Set {
        /// The variable, such as `ANTHROPIC_API_KEY`.
        #[arg(value_name = "NAME", value_parser = variable)]
        name: String,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
    },
    /// Removes a variable.
    Unset {
        /// The variable.
        #[arg(value_name = "NAME", value_parser = variable)]
        name: String,
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        collection: CollectionArgument,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CollectionCommand {
    /// Lists the collections that the token opens.
    List {
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Makes a collection. Wants an admin token.
    Create {
        /// Its name.
        #[arg(value_name = "NAME", value_parser = slug)]
        name: Slug,
        #[command(flatten)]
        server: ServerArguments,
    },
}

/// A server's address.
pub(in crate::cli) fn server(text: &str) -> Result<Url, String> {
    let wrong = "write an address such as https://runbooks.example.org or http://127.0.0.1:8000";
    let url = Url::parse(text).map_err(|_| wrong.to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave the password out: the token comes from JETTY_API_TOKEN".to_owned());
    }
    Ok(url)
}

fn slug(text: &str) -> Result<Slug, String> {
    Slug::new(text).map_err(|e| e.to_string())
}

/// The name of a variable; a value beside it would be seen by everybody on this machine.
pub(in crate::cli) fn variable(text: &str) -> Result<String, String> {
    if text.contains('=') {
        return Err("write the name alone: its value must not be an argument".to_owned());
    }
    if text.is_empty() { Err("write a name".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_no_password() {
        for text in ["localhost:8000", "ftp://a", "http://", "http://u:p@host", "", "file:///x"] {
            assert!(server(text).is_err(), "{text:?}");
        }
        for text in ["http://127.0.0.1:8000", "https://host/prefix/"] {
            assert!(server(text).is_ok(), "{text:?}");
        }
    }
}
