//! The engines that can be compared on this machine.

use std::process::Stdio;

use tokio::process::Command;

use crate::common::Outcome;

/// Where sandboxes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// Docker.
    Docker,
    /// Bubblewrap.
    Bubblewrap,
}

impl Engine {
    /// Its name for `runbookd run --engine` and for the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Bubblewrap => "bubblewrap",
        }
    }

    /// Whether it is here. An error says what is missing.
    pub(crate) async fn check(self, image: &str) -> Outcome<()> {
        let (program, args, mend) = match self {
            Self::Docker => (
                "docker",
                vec!["image", "inspect", image],
                format!("start Docker and pull the image `{image}`, or name another with --image"),
            ),
            Self::Bubblewrap => ("bwrap", vec!["--version"], "install bubblewrap".to_owned()),
        };
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("`{program}` ended with {status}: {mend}").into()),
            Err(e) => Err(format!("`{program}`: {e}: {mend}").into()),
        }
    }
}
