//! A server's side of a gateway that runs: it is met, held, and ended, whoever started it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::control::{MAX_LINE_BYTES, Who, Wish};
use super::place::Place;
use super::server::STOP_LIMIT;

/// How long a gateway may take to say who it is. It takes a millisecond on an idle machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// From the wish to end to the end, beyond what the answers on their way may take.
const END_SLACK: Duration = Duration::from_secs(3);

/// How long a killed gateway may take to go. Only the kernel can hold it up.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A gateway that was not understood.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// The connection broke.
    #[error("the run's gateway cannot be spoken to")]
    Speak(#[source] io::Error),
    /// It answered nothing in time.
    #[error("the run's gateway does not answer")]
    Silent,
    /// What it answered makes no sense.
    #[error("the run's gateway answers what cannot be read")]
    Answer(#[source] serde_json::Error),
}

/// A connection to a gateway's process, which it holds: its number cannot come to mean another one.
#[derive(Debug)]
pub struct Contact {
    stream: BufReader<UnixStream>,
    /// Readable when the process has ended.
    process: AsyncFd<OwnedFd>,
}

impl Contact {
    /// Meets the gateway of a place; `None` where none serves.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub async fn open(place: &Place) -> io::Result<Option<Self>> {
        let nobody = |e: &io::Error| {
            matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        };
        let opened = async { UnixStream::connect(place.control()?.as_path()).await };
        let stream = match opened.await {
            Ok(stream) => stream,
            Err(e) if nobody(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("its process has no number here"))?;
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // A process that is gone has closed its connections: one that has not is the one held.
        let mut none = [0_u8];
        match recv(&stream, &mut none[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::WOULDBLOCK) => {}
            Ok(_) | Err(_) => return Ok(None),
        }
        #[expect(
            deprecated,
            reason = "its safe successor does not exist; an owned descriptor keeps its promise"
        )]
        let process = AsyncFd::with_interest(process, Interest::READABLE)?;
        Ok(Some(Self { stream: BufReader::new(stream), process }))
    }

    /// Asks who it is.
    ///
    /// # Errors
    /// [`ContactError`] when it does not say.
    pub async fn who(&mut self) -> Result<Who, ContactError> {
        let asked = async {
            self.say(Wish::Who).await?;
            let mut line = String::new();
            (&mut self.stream).take(MAX_LINE_BYTES).read_line(&mut line).await?;
            Ok(line)
        };
        let line = timeout(ANSWER_LIMIT, asked).await.map_err(|_| ContactError::Silent)?;
        serde_json::from_str(&line.map_err(ContactError::Speak)?).map_err(ContactError::Answer)
    }

    /// Waits for its end. Losing the wait loses nothing.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub async fn ended(&self) -> io::Result<()> {
        self.process.readable().await.map(drop)
    }

    /// Ends it: answers on their way may end within the stop's limit. One that does not end by itself
    /// is killed.
    pub async fn end(self) {
        self.part(Wish::End, STOP_LIMIT + END_SLACK).await;
    }

    /// Ends it at once.
    pub async fn abort(self) {
        self.part(Wish::Abort, END_SLACK).await;
    }

    async fn part(mut self, wish: Wish, limit: Duration) {
        let parted = async {
            // One that cannot be told is ending, or is killed below.
            let _ = self.say(wish).await;
            self.ended().await
        };
        if matches!(timeout(limit, parted).await, Ok(Ok(()))) {
            return;
        }
        tracing::warn!("a gateway did not end in time, and is killed");
        if let Err(e) = pidfd_send_signal(self.process.get_ref(), Signal::KILL) {
            tracing::error!(error = %e, "a gateway cannot be killed");
        }
        if timeout(KILL_LIMIT, self.ended()).await.is_err() {
            tracing::error!("a gateway that was killed lives on");
        }
    }

    async fn say(&mut self, wish: Wish) -> io::Result<()> {
        let mut line = serde_json::to_vec(&wish)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }
}
