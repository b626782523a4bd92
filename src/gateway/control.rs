//! How a server speaks to the gateway of a run, which may be of another version: the server is
//! upgraded while its runs go on, and the next one meets the gateways of the one before.
//!
//! A line of JSON each way, over `own/control.sock` in the run's folder. **Never to be changed**: the
//! socket's place, lines that are JSON objects, the wishes `who`, `end` and `abort`, and the fields
//! `control`, `run` and `pid` of the answer to `who`. With them every version can find out whom it
//! meets, and end it. Whatever else is said may change with [`CONTROL_VERSION`].

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The version of what a server and a gateway say to each other. It grows when a gateway cannot do
/// for a newer server what that one needs of it.
pub const CONTROL_VERSION: u32 = 1;

/// The oldest version with which this program goes on.
const OLDEST_VERSION: u32 = 1;

/// Longest line, in bytes.
pub(super) const MAX_LINE_BYTES: u64 = 4 << 10;

/// Most connections at the same time: a server has one, and whoever ends a gateway another one.
const MAX_CONNECTIONS: usize = 16;

/// How long those that asked for the end may take to hear of it.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

/// What a gateway is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Wish {
    /// Who it is.
    Who,
    /// To take no more requests, to let answers end for a moment, and to end.
    End,
    /// To end at once.
    Abort,
}

/// Who a gateway is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The version of what can be said to it.
    pub control: u32,
    /// Whose it is: collection, task and id.
    pub run: String,
    /// Its process.
    pub pid: u32,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
}

impl Who {
    /// Whether a server can go on with it for a run. One that is of no use is ended.
    #[must_use]
    pub fn serves(&self, run: &str) -> bool {
        self.run == run && (OLDEST_VERSION..=CONTROL_VERSION).contains(&self.control)
    }
}

/// How a gateway is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// Answers may end.
    Finish,
    /// At once.
    Cut,
}

/// Those who speak to a gateway.
#[derive(Debug)]
pub(super) struct Control {
    partings: mpsc::Receiver<Parting>,
    is_over: CancellationToken,
    serving: JoinSet<()>,
}

/// What the connections share.
struct Desk {
    who: Who,
    partings: mpsc::Sender<Parting>,
    is_over: CancellationToken,
}

impl Control {
    pub(super) fn start(listener: UnixListener, who: Who) -> Self {
        let (tell, partings) = mpsc::channel(1);
        let is_over = CancellationToken::new();
        let desk = Desk { who, partings: tell, is_over: is_over.clone() };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::new(desk)));
        Self { partings, is_over, serving }
    }

    /// Waits until somebody wants the end.
    pub(super) async fn parting(&mut self) -> Parting {
        match self.partings.recv().await {
            Some(parting) => parting,
            // Nobody can say so any more: the other reasons to end stay.
            None => std::future::pending().await,
        }
    }

    /// Tells those who wait for it that the end has come.
    pub(super) async fn finish(mut self) {
        self.is_over.cancel();
        let _ = tokio::time::timeout(FAREWELL_LIMIT, self.serving.join_next()).await;
    }
}

async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = desk.is_over.cancelled() => break,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, Arc::clone(&desk)));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Answers until the other side goes, or the end has come.
async fn connection(stream: UnixStream, desk: Arc<Desk>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = async { (&mut stream).take(MAX_LINE_BYTES).read_line(&mut line).await };
        let read = tokio::select! {
            read = read => read,
            () = desk.is_over.cancelled() => return,
        };
        if !matches!(read, Ok(n_bytes) if n_bytes > 0) {
            return;
        }
        let mut answer = desk.answer(&line).await;
        answer.push('\n');
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Desk {
    async fn answer(&self, line: &str) -> String {
        match serde_json::from_str(line) {
            Ok(Wish::Who) => serde_json::to_string(&self.who).unwrap_or_default(),
            Ok(Wish::End) => self.part(Parting::Finish).await,
            Ok(Wish::Abort) => self.part(Parting::Cut).await,
            Err(e) => json!({ "problem": format!("this is no wish: {e}") }).to_string(),
        }
    }

    async fn part(&self, parting: Parting) -> String {
        // One that is told already is ending.
        let _ = self.partings.try_send(parting);
        self.is_over.cancelled().await;
        json!({ "ended": true }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(answer: &str) -> Who {
        serde_json::from_str(answer).unwrap()
    }

    #[test]
    fn a_gateway_of_another_version_is_known_for_what_it_is() {
        let same = r#"{"control": 1, "run": "team/story/1", "pid": 7, "version": "0.0.9"}"#;
        assert!(who(same).serves("team/story/1"));
        assert!(!who(same).serves("team/story/2"), "it is of another run");
        let newer = r#"{"control": 2, "run": "team/story/1", "pid": 7, "more": {"a": []}}"#;
        assert!(!who(newer).serves("team/story/1"), "what it wants cannot be known");
        assert_eq!(who(newer).pid, 7);
        // What every version says and understands.
        for (wish, text) in [
            (Wish::Who, r#"{"ask":"who"}"#),
            (Wish::End, r#"{"ask":"end"}"#),
            (Wish::Abort, r#"{"ask":"abort"}"#),
        ] {
            assert_eq!(serde_json::to_string(&wish).unwrap(), text);
            let with_more = text.replace('}', r#","more":1}"#);
            assert_eq!(serde_json::from_str::<Wish>(&with_more).unwrap(), wish);
        }
    }

    #[tokio::test]
    async fn what_is_no_wish_is_answered_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let me = who(r#"{"control": 1, "run": "a/b/c", "pid": 7}"#);
        let mut control = Control::start(UnixListener::bind(&path).unwrap(), me.clone());
        let mut stream = BufReader::new(UnixStream::connect(&path).await.unwrap());
        stream.write_all(b"{\"ask\":\"dance\"}\n{\"ask\":\"who\"}\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.contains("problem"), "{line}");
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(who(&line), me);
        stream.write_all(b"{\"ask\":\"end\"}\n").await.unwrap();
        assert_eq!(control.parting().await, Parting::Finish);
        control.finish().await;
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line.trim_end(), r#"{"ended":true}"#);
    }
}
