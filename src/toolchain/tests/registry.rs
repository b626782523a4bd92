//! A made-up npm registry on this machine, and the small packages it serves.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::toolchain::AgentCli;
use crate::toolchain::pins::{Content, Pin};

/// The content of the made-up agent CLI.
pub(super) const EXECUTABLE: &[u8] = b"made-up agent";

const MEMBER: &str = "package/claude";

/// A package whose tarball is always the pinned one, whatever it holds.
pub(super) struct Package {
    tarball: Vec<u8>,
}

impl Package {
    /// The executable between two other members.
    pub(super) fn good() -> Self {
        Self::of(&[
            Member::File("package/README.md", b"read me"),
            Member::File(MEMBER, EXECUTABLE),
            Member::File("package/package.json", b"{}"),
        ])
    }

    pub(super) fn with_executable(content: &[u8]) -> Self {
        Self::of(&[Member::File(MEMBER, content)])
    }

    pub(super) fn with_symlink() -> Self {
        Self::of(&[Member::Link(tar::EntryType::Symlink, MEMBER, "/bin/sh")])
    }

    pub(super) fn with_hard_link() -> Self {
        Self::of(&[
            Member::File("package/other", EXECUTABLE),
            Member::Link(tar::EntryType::Link, MEMBER, "package/other"),
        ])
    }

    pub(super) fn without_executable() -> Self {
        Self::of(&[Member::File("package/bin/claude", EXECUTABLE)])
    }

    pub(super) fn with_large_stranger() -> Self {
        let zeros = vec![0; 17 << 20];
        Self::of(&[Member::File("package/bomb", &zeros), Member::File(MEMBER, EXECUTABLE)])
    }

    pub(super) fn without_gzip() -> Self {
        Self { tarball: b"not a tarball".to_vec() }
    }

    fn of(members: &[Member<'_>]) -> Self {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for member in members {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            match *member {
                Member::File(path, content) => {
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, content).unwrap();
                }
                Member::Link(kind, path, target) => {
                    header.set_entry_type(kind);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target).unwrap();
                }
            }
        }
        let mut gzip = tar.into_inner().unwrap();
        gzip.flush().unwrap();
        Self { tarball: gzip.finish().unwrap() }
    }

    /// The pin of this tarball and of the good executable.
    pub(super) fn pin(&self) -> Pin {
        let sha256 = Sha256::digest(EXECUTABLE).iter().map(|b| format!("{b:02x}")).collect();
        Pin {
            tarball: Content { n_bytes: self.tarball.len() as u64, hash: integrity(&self.tarball) },
            executable: Content { n_bytes: EXECUTABLE.len() as u64, hash: sha256 },
            ..Pin::of(AgentCli::ClaudeCode, "linux-x64".parse().unwrap())
        }
    }
}

/// The integrity of `content`, as npm writes it.
pub(super) fn integrity(content: &[u8]) -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(content)))
}

/// What [`Reply::OtherContent`] answers in place of `n_bytes` bytes.
pub(super) fn other_content(n_bytes: u64) -> Vec<u8> {
    vec![b'x'; usize::try_from(n_bytes).unwrap()]
}

enum Member<'a> {
    File(&'a str, &'a [u8]),
    Link(tar::EntryType, &'a str, &'a str),
}

/// How the registry answers one request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// With the package.
    Package,
    /// With the package, once the test says so.
    After(Arc<Notify>),
    /// With an error page.
    Status(u16),
    /// With a redirect.
    RedirectTo(String),
    /// With other bytes, as many as the package has.
    OtherContent,
    /// With another file of another length.
    OtherLength,
    /// With the package and more, and no announced length.
    LongerWithoutLength,
    /// With half of the package, while the whole length is announced.
    Truncated,
    /// With half of the package and a clean end, and no announced length.
    ShortWithoutLength,
    /// With half of the package, and then silence.
    Stalled,
}

/// What one request asked for: the path, and the `Authorization` header.
pub(super) type Asked = (String, Option<String>);

/// A running registry. It gives its replies in order and repeats the last one.
pub(super) struct Registry {
    /// Its base URL, with a path and a final slash.
    pub(super) url: String,
    script: Arc<Script>,
    server: JoinSet<()>,
}

struct Script {
    tarball: Vec<u8>,
    replies: Mutex<VecDeque<Reply>>,
    requests: Mutex<Vec<Asked>>,
}

impl Registry {
    pub(super) async fn start(package: &Package, replies: Vec<Reply>) -> Self {
        let script = Arc::new(Script {
            tarball: package.tarball.clone(),
            replies: Mutex::new(replies.into()),
            requests: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/npm/", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut server = JoinSet::new();
        server.spawn(async { axum::serve(listener, app).await.unwrap() });
        Self { url, script, server }
    }

    pub(super) fn requests(&self) -> Vec<Asked> {
        self.script.requests.lock().unwrap().clone()
    }

    /// Closes the port.
    pub(super) async fn stop(mut self) -> Vec<Asked> {
        self.server.shutdown().await;
        self.requests()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let authorization =
        request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    script.requests.lock().unwrap().push((request.uri().path().to_owned(), authorization));
    let reply = {
        let mut replies = script.replies.lock().unwrap();
        if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() }
    };
    let whole = script.tarball.clone();
    let half = whole[..whole.len() / 2].to_vec();
    let length = whole.len();
    let response = Response::builder();
    match reply.expect("a script has a reply") {
        Reply::Package => response.body(Body::from(whole)),
        Reply::After(notify) => {
            notify.notified().await;
            response.body(Body::from(whole))
        }
        Reply::Status(status) => response.status(status).body(Body::empty()),
        Reply::RedirectTo(url) => response.status(302).header(LOCATION, url).body(Body::empty()),
        Reply::OtherContent => response.body(Body::from(other_content(length as u64))),
        Reply::OtherLength => response.body(Body::from("<html>please log in</html>")),
        Reply::LongerWithoutLength => response.body(streamed([whole, half].concat())),
        Reply::Truncated => {
            let end = stream::once(async {
                // Lets the server send what it has before it sees that the rest will not come.
                tokio::task::yield_now().await;
                Err("the disk of the registry broke")
            });
            let half = stream::iter([Ok(Bytes::from(half))]);
            response.header(CONTENT_LENGTH, length).body(Body::from_stream(half.chain(end)))
        }
        Reply::ShortWithoutLength => response.body(streamed(half)),
        Reply::Stalled => {
            let silence = stream::pending::<Result<Bytes, Infallible>>();
            let half = stream::iter([Ok(Bytes::from(half))]);
            response.header(CONTENT_LENGTH, length).body(Body::from_stream(half.chain(silence)))
        }
    }
    .unwrap()
}

/// A body without a length.
fn streamed(content: Vec<u8>) -> Body {
    Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from(content))]))
}
