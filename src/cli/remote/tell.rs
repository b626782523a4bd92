//! What went wrong, in words and as an exit code.

use super::super::complain;
use super::super::exit::ExitCode;
use crate::client::ClientError;
use crate::run::error_chain;

/// What a person is told when there is no token, or a wrong one.
const TOKEN_HINT: &str = "put a token into JETTY_API_TOKEN or ~/.config/jetty/token; on the \
                          server's machine `runbookd token create NAME --admin` makes one";

/// Why a command ends before it has done its work.
#[derive(Debug)]
pub(super) struct Trouble {
    code: ExitCode,
    words: String,
}

impl Trouble {
    pub(super) fn new(code: ExitCode, words: String) -> Self {
        Self { code, words }
    }

    /// Tells the person.
    pub(super) fn tell(&self) -> ExitCode {
        complain(&self.words);
        self.code
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let mut words = error_chain(&error);
        match error.status() {
            Some(401) => words = format!("{words}: {TOKEN_HINT}"),
            Some(status) if status >= 500 => {
                words = format!("the server failed ({status}): {words}");
            }
            Some(_) | None => {}
        }
        Self { code: code(&error), words }
    }
}

fn code(error: &ClientError) -> ExitCode {
    match error {
        ClientError::Refused { status, .. } if *status >= 500 => ExitCode::Unavailable,
        ClientError::Refused { .. }
        | ClientError::NoRun { .. }
        | ClientError::Ambiguous { .. }
        | ClientError::File { act: "read", .. } => ExitCode::Refused,
        ClientError::File { .. } => ExitCode::NotWritten,
        ClientError::Tls(_) | ClientError::ExtraCa { .. } | ClientError::Build(_) => {
            ExitCode::BadConfig
        }
        ClientError::Reach { .. }
        | ClientError::Broken { .. }
        | ClientError::Foreign { .. }
        | ClientError::TooLarge { .. }
        | ClientError::Lost { .. }
        | ClientError::Gap { .. }
        | ClientError::Torn => ExitCode::Unavailable,
    }
}
