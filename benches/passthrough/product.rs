//! The release binary as a server, with a collection that reaches the model.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::common::{Outcome, peak_bytes};

/// Longer than a start or a stop takes.
const SOON: Duration = Duration::from_secs(60);

/// A server in a folder of its own.
#[derive(Debug)]
pub(crate) struct Product {
    child: Child,
    address: String,
    token: String,
    _reader: JoinSet<()>,
    _home: tempfile::TempDir,
}

impl Product {
    /// Starts the server. Its collection finds the model at this address.
    pub(crate) async fn start(model: &str) -> Outcome<Self> {
        let home = tempfile::tempdir()?;
        let command = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_runbookd"));
            command
                .args(arguments)
                .env("HOME", home.path())
                .env("XDG_STATE_HOME", home.path())
                .env("RUNBOOKD_UPSTREAM_PRIVATE", "1")
                .env_remove("RUNBOOKD_STATE")
                .stdin(Stdio::null())
                .kill_on_drop(true);
            command
        };
        let made = command(&["token", "create", "bench", "--collection", "bench"]).output().await?;
        let token = String::from_utf8(made.stdout)?.trim().to_owned();
        let mut child =
            command(&["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?).lines();
        let address = tokio::time::timeout(SOON, async {
            while let Some(line) = log.next_line().await? {
                if let Some((_, rest)) = line.split_once("listening on http://") {
                    return Outcome::Ok(rest.split(',').next().unwrap_or(rest).to_owned());
                }
            }
            Err("the server ended before it listened".into())
        });
        let address = address.await??;
        // Read on, so that the server never waits for its reader.
        let mut reader = JoinSet::new();
        reader.spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let product = Self { child, address, token, _reader: reader, _home: home };
        product.furnish(model).await?;
        Ok(product)
    }

    async fn furnish(&self, model: &str) -> Outcome<()> {
        let variables = json!({ "OPENAI_API_KEY": "sk-made-up", "OPENAI_BASE_URL": model });
        let body = json!({ "environment_variables": variables }).to_string();
        let url = format!("http://{}/api/v1/collections/bench/environment", self.address);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let sent = http.patch(url).bearer_auth(&self.token).body(body).timeout(SOON).send().await?;
        sent.error_for_status()?;
        Ok(())
    }

    /// Its base URL, as OpenAI's clients have it.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The collection's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Ends the server. Gives its peak memory, in bytes.
    pub(crate) async fn stop(mut self) -> Outcome<u64> {
        let process = self.child.id().ok_or("the server ended before its time")?;
        let peak = peak_bytes(&process.to_string()).ok_or("the server ended before its time")?;
        self.child.kill().await?;
        Ok(peak)
    }
}
