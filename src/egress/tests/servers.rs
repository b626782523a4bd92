//! Servers that answer, and note what they heard.

use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server on a port of its own. Dropped, it ends.
pub(super) struct Server {
    pub(super) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

/// How a server treats a connection: what it heard comes back.
type Serve = fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = String> + Send>>;

impl Server {
    async fn start(serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&heard);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let words = serve(stream).await;
                if !words.is_empty() {
                    told.lock().unwrap().push(words);
                }
            }
        });
        Self { port, heard, _serving: serving }
    }

    /// Answers every request of HTTP, one on each connection.
    pub(super) async fn web() -> Self {
        Self::start(|stream| Box::pin(web(stream))).await
    }

    /// Says whether a TLS greeting came, and no more of TLS.
    pub(super) async fn tls() -> Self {
        Self::start(|stream| Box::pin(tls(stream))).await
    }

    /// Speaks first, as mail servers do.
    pub(super) async fn banner() -> Self {
        Self::start(|stream| Box::pin(banner(stream))).await
    }

    /// What it heard, a text for each connection on which something came.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn web(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    let is_whole = |heard: &[u8]| {
        let text = String::from_utf8_lossy(heard).to_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let n = head.split("content-length: ").nth(1).and_then(|n| n.lines().next());
        let n = n.map_or(0, |n| n.parse().unwrap());
        (head.contains("chunked") || body.len() >= n).then_some(())
    };
    while is_whole(&heard).is_none() {
        if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            break;
        }
    }
    let text = "hello from the web";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    String::from_utf8(heard).unwrap()
}

async fn tls(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
        return String::new();
    }
    let _ = stream.write_all(b"hello from TLS").await;
    format!("{} bytes", heard.len())
}

async fn banner(mut stream: TcpStream) -> String {
    let _ = stream.write_all(b"220 hi").await;
    let mut heard = [0; 4];
    if stream.read_exact(&mut heard).await.is_err() {
        return String::new();
    }
    let heard = String::from_utf8_lossy(&heard).into_owned();
    let _ = stream.write_all(format!("bye {heard}").as_bytes()).await;
    heard
}

/// The greeting of a real client.
pub(in super::super) fn greeting(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
