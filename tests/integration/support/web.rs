//! A web server of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A web server. Dropped, it ends.
pub(crate) struct Web {
    pub(crate) port: u16,
    n_heard: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Web {
    /// `/inside` leads to a private address; everything else is answered.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let n_heard = Arc::new(AtomicUsize::new(0));
        let heard = Arc::clone(&n_heard);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = request(&mut stream).await;
                if head.is_empty() {
                    continue;
                }
                heard.fetch_add(1, Ordering::SeqCst);
                let answer = if head.contains(" /inside ") {
                    "HTTP/1.1 302 Found\r\nLocation: http://inside.test/\r\nContent-Length: 0\r\n\r\n"
                } else {
                    "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, n_heard, _serving: serving }
    }

    /// How many requests came.
    pub(crate) fn n_heard(&self) -> usize {
        self.n_heard.load(Ordering::SeqCst)
    }
}

/// The head of a request; empty where the connection ended without one.
async fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
