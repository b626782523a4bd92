//! How long after an agent has said something a client hears it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::server::{SOON, Server};
use super::tail::Tail;
use crate::common::Outcome;

/// Follows one run of an agent that says what time it is, and gives the milliseconds from each of its
/// words to the client.
#[expect(
    clippy::disallowed_methods,
    reason = "the agent is another process: its clock is the wall's"
)]
pub(crate) async fn lag(server: &Server) -> Outcome<Tail> {
    let run = server.submit().await?;
    let mut stream = server.events(&run).await?;
    let mut buffer = Vec::new();
    let mut lags = Vec::new();
    let heard = async {
        while let Some(chunk) = stream.chunk().await? {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                lags.extend(said(&line).map(|then| ms(now) - ms(then)));
            }
        }
        Outcome::Ok(())
    };
    tokio::time::timeout(SOON, heard).await.map_err(|_| "the run did not end")??;
    if lags.is_empty() {
        return Err("the client heard nothing of what the agent said".into());
    }
    Ok(lags.into_iter().collect())
}

/// The time that an event tells, where it is a word of the agent.
fn said(line: &[u8]) -> Option<Duration> {
    let event: Value = serde_json::from_slice(line.strip_prefix(b"data: ")?).ok()?;
    let text = event["text"].as_str().filter(|_| event["kind"] == "said")?;
    let (seconds, micros) = text.split_once('.')?;
    let micros = Duration::from_micros(micros.parse().ok()?);
    Some(Duration::from_secs(seconds.parse().ok()?) + micros)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
