//! Reading a text from a URL that a client gave.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use tokio::sync::OnceCell;
use tokio::task::JoinError;
use url::Url;

use super::address::{GuardedResolver, Reach, parse_target};
use super::tls::tls_config;
use crate::run::error_chain;

/// What a host's log shows of this program.
const USER_AGENT: &str = concat!("runbookd/", env!("CARGO_PKG_VERSION"));

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take to have the whole text, redirects included.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Longest text, in bytes. The longest public runbook has 40 thousand.
const MAX_BYTES: usize = 1 << 20;

/// How often a host may send us elsewhere.
const MAX_REDIRECTS: usize = 3;

/// Where GitHub shows a file, and where it has the file itself.
const GITHUB: &str = "github.com";
const GITHUB_RAW: &str = "raw.githubusercontent.com";

/// Reads texts. Clones share it.
#[derive(Debug, Clone)]
pub struct Documents {
    reach: Reach,
    client: Arc<OnceCell<reqwest::Client>>,
}

/// A text could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The URL or what it leads to is at fault: a sentence for the client without its beginning.
    #[error("{0}")]
    Refused(String),
    /// The certificates could not be read.
    #[error("could not set up TLS for documents")]
    Tls(#[source] rustls::Error),
    /// The client could not be built.
    #[error("could not set up the client for documents")]
    Client(#[source] reqwest::Error),
    /// The thread that made it is gone.
    #[error("setting the client for documents up broke off")]
    Gone(#[source] JoinError),
}

impl Documents {
    /// Reads from the addresses that may be called. Only those of the operator's own network may do
    /// without TLS.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { reach, client: Arc::default() }
    }

    /// Reads the text at a URL.
    ///
    /// # Errors
    /// [`DocumentError::Refused`] says what is wrong with the URL or the text.
    pub async fn read(&self, url: &str) -> Result<String, DocumentError> {
        let client = self.client.get_or_try_init(|| client(self.reach)).await?;
        match tokio::time::timeout(READ_LIMIT, self.follow(client, url)).await {
            Ok(read) => read.map_err(DocumentError::Refused),
            Err(_) => {
                let limit = READ_LIMIT.as_secs();
                Err(DocumentError::Refused(format!("did not answer in full within {limit} s")))
            }
        }
    }

    async fn follow(&self, client: &reqwest::Client, url: &str) -> Result<String, String> {
        let mut url = self.target(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let asked = client.get(url.clone()).send().await;
            // The URL may have a token in its query.
            let answer =
                asked.map_err(|e| format!("cannot be read: {}", error_chain(&e.without_url())))?;
            let status = answer.status();
            if status.is_redirection() {
                let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                let next = location.and_then(|to| url.join(to).ok());
                let next = next.ok_or("leads on to nowhere: the redirect has no URL")?;
                url = self
                    .target(next.as_str())
                    .map_err(|why| format!("leads on to one that {why}"))?;
                continue;
            }
            if !status.is_success() {
                return Err(format!("cannot be read: the host answered {status}"));
            }
            return text(answer).await;
        }
        Err(format!("leads on more than {MAX_REDIRECTS} times"))
    }

    fn target(&self, url: &str) -> Result<Url, String> {
        let url = parse_target(url, self.reach).map_err(|bad| bad.to_string())?;
        match (url.scheme(), self.reach) {
            ("https", _) | (_, Reach::Private) => Ok(the_file_itself(url)),
            (_, Reach::Public) => Err("must start with `https://`".to_owned()),
        }
    }
}

/// GitHub's page of a file stands for the file.
fn the_file_itself(url: Url) -> Url {
    if url.host_str() != Some(GITHUB) {
        return url;
    }
    let parts: Vec<&str> = url.path().trim_start_matches('/').splitn(4, '/').collect();
    let [owner, repository, "blob" | "raw", rest] = parts.as_slice() else { return url };
    let raw = format!("https://{GITHUB_RAW}/{owner}/{repository}/{rest}");
    Url::parse(&raw).unwrap_or(url)
}

async fn text(mut answer: Response) -> Result<String, String> {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html")) {
        return Err("leads to a web page: give the URL of the text itself".to_owned());
    }
    let too_long = || format!("leads to more than {MAX_BYTES} bytes");
    let mut bytes = Vec::new();
    loop {
        let chunk = answer.chunk().await;
        let chunk =
            chunk.map_err(|e| format!("cannot be read: {}", error_chain(&e.without_url())))?;
        let Some(chunk) = chunk else { break };
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| "leads to something that is not UTF-8 text".to_owned())
}

async fn client(reach: Reach) -> Result<reqwest::Client, DocumentError> {
    let tls = tokio::task::spawn_blocking(tls_config).await.map_err(DocumentError::Gone)?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.map_err(DocumentError::Tls)?)
        .user_agent(USER_AGENT)
        .referer(false)
        // Each redirect is looked at as the URL was.
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would resolve the name anew, past the guard.
        .no_proxy()
        .dns_resolver(Arc::new(GuardedResolver { reach }))
        .connect_timeout(CONNECT_LIMIT)
        .pool_max_idle_per_host(0)
        .build()
        .map_err(DocumentError::Client)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// A host that answers each path in its own way.
    async fn host(hosts: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        hosts.spawn(async move {
            loop {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let n = peer.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let plain = |body: &str| {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                };
                let to = |path: &str| {
                    format!("HTTP/1.1 302 Found\r\nlocation: {path}\r\ncontent-length: 0\r\n\r\n")
                };
                let answer = match path {
                    "/RUNBOOK.md" => plain("# R\n"),
                    "/once" => to("/RUNBOOK.md"),
                    "/ever" => to("/ever"),
                    "/astray" => to("ftp://example.org/x"),
                    "/long" => plain(&"x".repeat(MAX_BYTES + 1)),
                    "/page" => plain("<html>")
                        .replace("content-length", "content-type: text/html\r\ncontent-length"),
                    _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                };
                let answer = answer.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
                // Who is told more than it wants hangs up.
                let _ = peer.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_text_is_read_and_everything_else_is_refused_with_its_reason() {
        let mut hosts = JoinSet::new();
        let host = host(&mut hosts).await;
        let documents = Documents::new(Reach::Private);
        for (path, expected) in [
            ("/RUNBOOK.md", Ok("# R\n")),
            ("/once", Ok("# R\n")),
            ("/ever", Err("leads on more than 3 times")),
            ("/astray", Err("leads on to one that must start with")),
            ("/long", Err("leads to more than 1048576 bytes")),
            ("/page", Err("leads to a web page")),
            ("/gone", Err("the host answered 404")),
        ] {
            let read = documents.read(&format!("{host}{path}")).await;
            match (read, expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{path}"),
                (Err(DocumentError::Refused(why)), Err(expected)) => {
                    assert!(why.contains(expected), "{path}: {why}");
                }
                (read, _) => panic!("{path}: {read:?}"),
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_read_from_inside_the_network_or_without_tls() {
        let mut hosts = JoinSet::new();
        let inside = host(&mut hosts).await;
        let documents = Documents::new(Reach::Public);
        for (url, expected) in [
            (format!("{inside}/RUNBOOK.md"), "private address"),
            ("https://169.254.169.254/latest".to_owned(), "private address"),
            ("https://localhost/RUNBOOK.md".to_owned(), "private address"),
            ("http://example.org/RUNBOOK.md".to_owned(), "must start with `https://`"),
            ("file:///etc/passwd".to_owned(), "must start with"),
        ] {
            match documents.read(&url).await {
                Err(DocumentError::Refused(why)) => assert!(why.contains(expected), "{url}: {why}"),
                read => panic!("{url}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_page_of_github_stands_for_its_file() {
        for (url, expected) in [
            (
                "https://github.com/o/r/blob/main/a/RUNBOOK.md",
                "https://raw.githubusercontent.com/o/r/main/a/RUNBOOK.md",
            ),
            ("https://github.com/o/r", "https://github.com/o/r"),
            ("https://example.org/o/r/blob/main/x", "https://example.org/o/r/blob/main/x"),
        ] {
            assert_eq!(the_file_itself(Url::parse(url).unwrap()).as_str(), expected);
        }
    }
}
