//! What goes wrong between a client and its server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Most of an answer's text that is shown when it is no JSON, in characters.
const SHOWN_CHARS: usize = 300;

/// A call did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificates could not be read.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
    /// The file with more certificate authorities could not be read.
    #[error("could not read the certificates in `{}`", path.display())]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The client could not be built.
    #[error("could not set up the HTTP client")]
    Build(#[source] reqwest::Error),
    /// No answer came.
    #[error("could not reach the server at {server}")]
    Reach {
        /// The server.
        server: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer broke off.
    #[error("the answer of the server at {server} broke off")]
    Broken {
        /// The server.
        server: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server refused, in its own words.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server says.
        detail: String,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server answered something that its API never says.
    #[error("{server} does not answer like a runbookd server: {found}; is this its address?")]
    Foreign {
        /// The server.
        server: String,
        /// What came instead.
        found: String,
    },
    /// The answer is larger than any that is expected.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// A file of this machine could not be read or written.
    #[error("could not {act} `{}`", path.display())]
    File {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A run was followed, and nothing was heard of the server for long.
    #[error("nothing was heard of the server at {server} for {limit_s} s; the run may go on there")]
    Lost {
        /// The server.
        server: String,
        /// How long, in seconds.
        limit_s: u64,
    },
    /// The server left events of a run out.
    #[error("the server sent event {got} of the run where {expected} was due")]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// A download ended before its file was whole.
    #[error("the server broke the archive off: try again")]
    Torn,
    /// There is no such run among those that the token opens.
    #[error("there is no run `{run}` among those that the token opens: write COLLECTION/TASK/ID")]
    NoRun {
        /// The run as it was asked for.
        run: String,
    },
    /// Several runs have this id.
    #[error("`{run}` is not one run but {}: write one of these", names.join(" and "))]
    Ambiguous {
        /// The run as it was asked for.
        run: String,
        /// The runs.
        names: Vec<String>,
    },
}

impl ClientError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Tls(_)
            | Self::ExtraCa { .. }
            | Self::Build(_)
            | Self::Reach { .. }
            | Self::Broken { .. }
            | Self::Foreign { .. }
            | Self::TooLarge { .. }
            | Self::File { .. }
            | Self::Lost { .. }
            | Self::Gap { .. }
            | Self::Torn
            | Self::NoRun { .. }
            | Self::Ambiguous { .. } => None,
        }
    }

    /// Whether the same call may end otherwise in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Reach { .. } | Self::Broken { .. } | Self::Lost { .. } | Self::Torn => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Tls(_)
            | Self::ExtraCa { .. }
            | Self::Build(_)
            | Self::Foreign { .. }
            | Self::TooLarge { .. }
            | Self::File { .. }
            | Self::Gap { .. }
            | Self::NoRun { .. }
            | Self::Ambiguous { .. } => false,
        }
    }

    /// Whether the server never heard of the call.
    pub(super) fn was_unheard(&self) -> bool {
        matches!(self, Self::Reach { source, .. } if source.is_connect())
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// What a refusal's body says, in one line.
pub(super) fn detail(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return shown(&String::from_utf8_lossy(body));
    };
    // FastAPI's form, then OpenAI's.
    let said = [&body["detail"], &body["error"]["message"], &body["error"]];
    match said.into_iter().find(|said| !said.is_null()) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(problems)) => problems.iter().map(problem).collect::<Vec<_>>().join("; "),
        Some(other) => shown(&other.to_string()),
        None => shown(&body.to_string()),
    }
}

/// One entry of a 422's list.
fn problem(problem: &Value) -> String {
    let place = problem["loc"].as_array().into_iter().flatten();
    let place = place.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned));
    // The first part only says that it is the body or the query.
    let place = place.skip(1).collect::<Vec<_>>().join(".");
    match (place.as_str(), problem["msg"].as_str()) {
        (_, None) => shown(&problem.to_string()),
        ("", Some(msg)) => msg.to_owned(),
        (place, Some(msg)) => format!("{place}: {msg}"),
    }
}

pub(super) fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "it gave no reason".to_owned();
    }
    line.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_words_are_shown_whatever_form_they_have() {
        for (body, expected) in [
            (r#"{"detail": "Task 't' not found"}"#, "Task 't' not found"),
            (
                r#"{"detail": [{"loc": ["body", "name"], "msg": "Field required", "type": "missing"},
                    {"loc": ["body"], "msg": "no object", "type": "type_error"}]}"#,
                "name: Field required; no object",
            ),
            (r#"{"error": {"message": "No model", "type": "x"}}"#, "No model"),
            ("<html>\n  <b>502</b></html>", "<html> <b>502</b></html>"),
            ("", "it gave no reason"),
        ] {
            assert_eq!(detail(body.as_bytes()), expected);
        }
    }
}
