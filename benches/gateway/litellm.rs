//! LiteLLM's proxy, as people put it before an agent: one worker, a key, no database.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::common::{Outcome, peak_bytes};

/// It loads for 10 to 40 seconds.
const START_LIMIT: Duration = Duration::from_secs(180);

/// The model's name at the proxy.
pub(crate) const MODEL: &str = "claude-sonnet-4-6";

/// The proxy's key.
pub(crate) const KEY: &str = "sk-made-up";

/// The running proxy.
#[derive(Debug)]
pub(crate) struct LiteLlm {
    child: Child,
    base_url: String,
    _folder: tempfile::TempDir,
}

impl LiteLlm {
    /// Starts the program `litellm` before a model service.
    pub(crate) async fn start(program: &Path, upstream: &str) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.yaml");
        std::fs::write(
            &config,
            format!(
                "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      \
                 model: anthropic/{MODEL}\n      api_base: {upstream}\n      \
                 api_key: sk-ant-made-up\ngeneral_settings:\n  master_key: {KEY}\n"
            ),
        )?;
        // Free a moment ago; nothing else on a quiet machine takes it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_LOG", "ERROR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let proxy = Self { child, base_url: format!("http://127.0.0.1:{port}"), _folder: folder };
        proxy.wait_until_it_answers().await?;
        Ok(proxy)
    }

    async fn wait_until_it_answers(&self) -> Outcome<()> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{}/health/liveliness", self.base_url);
        let since = Instant::now();
        while since.elapsed() < START_LIMIT {
            if http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        Err("LiteLLM's proxy does not answer after three minutes".into())
    }

    /// Its address.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The most memory that it had so far, in bytes.
    pub(crate) fn peak(&self) -> Option<u64> {
        peak_bytes(&self.child.id()?.to_string())
    }
}
