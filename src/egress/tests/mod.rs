//! The proxy on this machine's loopback, with real clients and servers behind real sockets.

pub(super) mod servers;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::hello::ACCESS_DENIED;
use super::policy::{EgressSettings, Policy, Scope};
use super::{EgressRecord, Outcome, Proxy, ProxyParts};
use servers::{Server, greeting};

/// A proxy, and what it told.
struct Stage {
    folder: tempfile::TempDir,
    records: Arc<Mutex<Vec<EgressRecord>>>,
    proxy: Proxy,
}

impl Stage {
    /// Names that end in `.test` lead to this machine; its ports may be reached.
    fn new(scope: Scope, ports: &[u16]) -> Self {
        let settings = EgressSettings {
            private: ports.iter().map(|p| format!("127.0.0.1:{p}").parse().unwrap()).collect(),
            deny: vec!["denied.test".parse().unwrap()],
            resolver: "web.test=127.0.0.1,other.test=127.0.0.1,denied.test=127.0.0.1,\
                       mixed.test=127.0.0.1,mixed.test=10.0.0.1,inside.test=10.0.0.1,\
                       api.anthropic.com=127.0.0.1"
                .parse()
                .unwrap(),
            ..EgressSettings::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let records: Arc<Mutex<Vec<EgressRecord>>> = Arc::default();
        let told = Arc::clone(&records);
        let proxy = Proxy::start(ProxyParts {
            listener,
            policy: Policy::new(scope, &settings),
            resolver: settings.resolver,
            last_seq: 0,
            note: Box::new(move |record| told.lock().unwrap().push(record.clone())),
            clock: || Timestamp::UNIX_EPOCH,
        });
        Self { folder, records, proxy }
    }

    async fn connect(&self) -> UnixStream {
        let path: &Path = self.folder.path();
        UnixStream::connect(path.join("s")).await.unwrap()
    }

    /// What comes back for these bytes, to the end of the connection.
    async fn says(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset at the end is one too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A tunnel; `None` where it was refused.
    async fn tunnel(&self, to: &str) -> Result<UnixStream, String> {
        let mut stream = self.connect().await;
        let asked = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        if head.starts_with(b"HTTP/1.1 200") {
            return Ok(stream);
        }
        let _ = stream.read_to_end(&mut head).await;
        Err(String::from_utf8_lossy(&head).into_owned())
    }

    /// Ends it, and gives the last line of each attempt: method, host, port, outcome, rule.
    async fn end(self) -> Vec<String> {
        self.proxy.stop().await;
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: std::collections::BTreeMap<u64, &EgressRecord> = [].into();
        records.iter().for_each(|record| {
            last.insert(record.seq, record);
        });
        let line = |r: &&EgressRecord| {
            let word = match r.outcome {
                Outcome::InFlight => "in flight",
                Outcome::Passed => "passed",
                Outcome::Denied => "denied",
                Outcome::Failed => "failed",
            };
            format!("{} {} {word} {}", r.method, r.host, r.rule)
        };
        last.values().map(line).collect()
    }
}

fn listed(hosts: &[String]) -> Scope {
    Scope::Allowlist(hosts.iter().map(|host| host.parse().unwrap()).collect())
}

#[tokio::test]
async fn every_request_of_a_connection_is_judged_anew() {
    let web = Server::web().await;
    let port = web.port;
    let stage = Stage::new(Scope::Public, &[port]);
    let get = |host: &str| format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let host = format!("web.test:{port}");
    let asked = format!("{}{}{}", get(&host), get(&host), get("inside.test"));
    let said = stage.says(&asked).await;
    assert_eq!(said.matches("hello from the web").count(), 2, "{said}");
    assert!(
        said.contains("403 Forbidden") && said.contains(r#""rule":"private-address""#),
        "{said}"
    );
    assert!(
        said.contains("blocked by policy: ") && said.contains("RUNBOOKD_EGRESS_PRIVATE"),
        "{said}"
    );
    assert_eq!(
        stage.end().await,
        [
            "GET web.test passed public",
            "GET web.test passed public",
            "GET inside.test denied private-address",
        ]
    );
}

#[tokio::test]
async fn a_request_arrives_without_what_was_meant_for_the_proxy() {
    let web = Server::web().await;
    let port = web.port;
    let stage = Stage::new(Scope::Public, &[port]);
    let host = format!("web.test:{port}");
    let body = "a=1&b=2";
    let said = stage
        .says(&format!(
            "POST http://{host}/form?q=1 HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic x\r\n\
             Proxy-Connection: keep-alive\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
             X-Kept: yes\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let heard = web.heard();
    assert_eq!(heard.len(), 1);
    let heard = heard[0].to_lowercase();
    assert!(heard.starts_with("post /form?q=1 http/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("host: {host}\r\n")) && heard.ends_with(body), "{heard}");
    assert!(heard.contains("x-kept: yes"), "{heard}");
    for gone in ["proxy-", "x-hop", "te:"] {
        assert!(!heard.contains(gone), "{gone}: {heard}");
    }
    stage.end().await;
}

#[tokio::test]
async fn what_is_not_written_to_a_proxy_or_names_two_hosts_is_refused() {
    let web = Server::web().await;
    let port = web.port;
    let stage = Stage::new(Scope::Public, &[port]);
    let host = format!("web.test:{port}");
    for (asked, rule) in [
        (format!("GET http://{host}/ HTTP/1.1\r\nHost: other.test\r\n\r\n"), "host-mismatch"),
        (format!("GET http://{host}/ HTTP/1.1\r\nHost: web.test\r\n\r\n"), "host-mismatch"),
        (format!("GET http://{host}/ HTTP/1.1\r\n\r\n"), "host-mismatch"),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nHost: x.test\r\n\r\n"),
            "host-mismatch",
        ),
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "not-for-proxy"),
        (format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"), "not-for-proxy"),
        (format!("GET ftp://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"), "not-for-proxy"),
        ("CONNECT web.test HTTP/1.1\r\nHost: web.test\r\n\r\n".to_owned(), "not-for-proxy"),
        ("GET http://web.test:443/ HTTP/1.1\r\nHost: web.test:443\r\n\r\n".to_owned(), "not-tls"),
        (
            format!("GET http://denied.test:{port}/ HTTP/1.1\r\nHost: denied.test:{port}\r\n\r\n"),
            "operator-deny",
        ),
        (format!("CONNECT denied.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n"), "operator-deny"),
        (format!("CONNECT mixed.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n"), "private-address"),
        ("CONNECT inside.test:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "private-address"),
        ("CONNECT 2852039166:80 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "private-address"),
        ("CONNECT [::ffff:127.0.0.1]:80 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "private-address"),
        ("CONNECT web.test:22 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "port"),
        (format!("CONNECT api.anthropic.com:{port} HTTP/1.1\r\nHost: x\r\n\r\n"), "model-service"),
    ] {
        let said = stage.says(&asked).await;
        let rule = format!(r#""rule":"{rule}""#);
        assert!(said.contains(&rule) && !said.contains("hello"), "{asked}{said}");
    }
    assert_eq!(web.heard(), Vec::<String>::new());
    stage.end().await;
}

#[tokio::test]
async fn two_ideas_of_a_bodys_end_do_not_make_a_second_request() {
    let web = Server::web().await;
    let port = web.port;
    let stage = Stage::new(Scope::Public, &[port]);
    let host = format!("web.test:{port}");
    let inner = "GET /smuggled HTTP/1.1\r\nHost: inside.test\r\n\r\n";
    let asked = format!(
        "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\
         Content-Length: {}\r\n\r\n0\r\n\r\n{inner}",
        5 + inner.len()
    );
    let said = stage.says(&asked).await;
    assert!(
        !web.heard().iter().any(|heard| heard.contains("smuggled")),
        "{:?} {said}",
        web.heard()
    );
    let lines = stage.end().await;
    assert!(lines.iter().all(|line| !line.contains("inside.test passed")), "{lines:?}");
}

/// What comes back for a TLS greeting that names a host.
async fn greeted(mut tunnel: UnixStream, name: &'static str) -> Vec<u8> {
    tunnel.write_all(&greeting(name)).await.unwrap();
    let mut said = Vec::new();
    tunnel.read_to_end(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn a_tunnel_leads_where_its_greeting_says_or_nowhere() {
    let tls = Server::tls().await;
    let (by_name, by_address) =
        (format!("web.test:{}", tls.port), format!("127.0.0.1:{}", tls.port));
    let stage = Stage::new(listed(&[by_name.clone(), by_address.clone()]), &[tls.port]);
    for (to, name, expected) in [
        (&by_name, "web.test", &b"hello from TLS"[..]),
        (&by_name, "other.test", &ACCESS_DENIED),
        // To an address no name is sent.
        (&by_name, "127.0.0.1", &ACCESS_DENIED),
        // It was named, so nobody else can be meant.
        (&by_address, "127.0.0.1", b"hello from TLS"),
        (&by_address, "web.test", &ACCESS_DENIED),
    ] {
        let tunnel = stage.tunnel(to).await.unwrap();
        assert_eq!(greeted(tunnel, name).await, expected, "{to} {name}");
    }
    let refused = stage.tunnel(&format!("other.test:{}", tls.port)).await.unwrap_err();
    assert!(refused.contains(r#""rule":"not-in-allowlist""#), "{refused}");
    assert_eq!(tls.heard().len(), 2);
    assert_eq!(
        stage.end().await,
        [
            format!("CONNECT web.test passed allowlist {by_name}"),
            "CONNECT web.test denied sni-mismatch".to_owned(),
            "CONNECT web.test denied sni-mismatch".to_owned(),
            format!("CONNECT 127.0.0.1 passed allowlist {by_address}"),
            "CONNECT 127.0.0.1 denied sni-mismatch".to_owned(),
            "CONNECT other.test denied not-in-allowlist".to_owned(),
        ]
    );
}

#[tokio::test]
async fn behind_a_connect_plain_requests_are_judged_one_by_one() {
    let web = Server::web().await;
    let port = web.port;
    let stage = Stage::new(Scope::Public, &[port]);
    let host = format!("web.test:{port}");
    let mut tunnel = stage.tunnel(&host).await.unwrap();
    let get = |host: &str| format!("GET /behind HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let asked = format!("{}{}", get(&host), get("other.test"));
    tunnel.write_all(asked.as_bytes()).await.unwrap();
    let mut said = String::new();
    tunnel.read_to_string(&mut said).await.unwrap();
    assert_eq!(said.matches("hello from the web").count(), 1, "{said}");
    assert!(said.contains(r#""rule":"host-mismatch""#), "{said}");
    assert_eq!(web.heard().len(), 1);
    drop(tunnel);
    assert_eq!(
        stage.end().await,
        [
            "CONNECT web.test passed public",
            "GET web.test passed public",
            "GET web.test denied host-mismatch",
        ]
    );
}

#[tokio::test]
async fn a_port_that_was_named_takes_what_is_neither_and_lets_the_server_speak_first() {
    let banner = Server::banner().await;
    let port = banner.port;
    let stage = Stage::new(listed(&[format!("web.test:{port}")]), &[port]);
    let mut tunnel = stage.tunnel(&format!("web.test:{port}")).await.unwrap();
    let mut said = [0; 6];
    tunnel.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"220 hi");
    tunnel.write_all(b"QUIT").await.unwrap();
    let mut rest = String::new();
    tunnel.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye QUIT");
    let lines = stage.end().await;
    assert_eq!(lines, [format!("CONNECT web.test passed allowlist web.test:{port}")]);
}

#[tokio::test]
async fn bytes_are_counted_and_what_is_on_its_way_at_the_end_has_its_line() {
    let web = Server::web().await;
    let port = web.port;
    let stage = Stage::new(Scope::Public, &[port]);
    let host = format!("web.test:{port}");
    let said = stage
        .says(&format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 4\r\n\r\nabcd"
        ))
        .await;
    assert!(said.contains("hello from the web"), "{said}");
    let banner = Server::banner().await;
    let open = Stage::new(Scope::Public, &[banner.port]);
    let mut tunnel = open.tunnel(&format!("web.test:{}", banner.port)).await.unwrap();
    let mut byte = [0];
    tunnel.read_exact(&mut byte).await.unwrap();
    let records = Arc::clone(&open.records);
    assert_eq!(records.lock().unwrap().last().unwrap().outcome, Outcome::InFlight);
    open.end().await;
    let last = records.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.outcome, last.bytes_down), (Outcome::Passed, 6));
    let records = Arc::clone(&stage.records);
    stage.end().await;
    let last = records.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.status, Some(200));
    assert_eq!((last.bytes_up, last.bytes_down), (4, "hello from the web".len() as u64));
    assert_eq!(last.addresses, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn nobody_at_the_other_end_is_said_and_is_no_denial() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stage = Stage::new(Scope::Public, &[port]);
    let refused = stage.tunnel(&format!("web.test:{port}")).await.unwrap_err();
    assert!(
        refused.contains("502 Bad Gateway") && refused.contains("cannot be reached"),
        "{refused}"
    );
    let refused = stage.tunnel("nowhere.invalid:443").await.unwrap_err();
    assert!(
        refused.contains("502 Bad Gateway") && refused.contains("cannot be resolved"),
        "{refused}"
    );
    assert_eq!(stage.end().await, ["CONNECT web.test failed ", "CONNECT nowhere.invalid failed "]);
}

#[tokio::test]
async fn the_machine_itself_is_not_reached_by_a_public_name() {
    let web = Server::web().await;
    // As a public address of this machine would be: allowed by its number, and our own.
    let policy = Policy::new(Scope::Public, &EgressSettings::default());
    let own = ["127.0.0.1".parse().unwrap()];
    let refused = super::dial::connect(&policy, &own, web.port).await.unwrap_err();
    assert!(format!("{refused:?}").contains("OwnMachine"));
}

#[tokio::test]
async fn nothing_that_a_client_says_makes_a_line_of_the_ledger_long() {
    let stage = Stage::new(Scope::Public, &[]);
    let method = "M".repeat(50_000);
    let host = "h".repeat(50_000);
    for asked in [
        format!("{method} http://inside.test/ HTTP/1.1\r\nHost: inside.test\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ] {
        let said = stage.says(&asked).await;
        assert!(said.contains("blocked by policy"), "{}", &said[..said.len().min(500)]);
    }
    let records = Arc::clone(&stage.records);
    stage.end().await;
    let lines = records.lock().unwrap();
    let longest = lines.iter().map(|record| serde_json::to_vec(record).unwrap().len()).max();
    assert_eq!((lines.len(), longest.is_some_and(|bytes| bytes < 4096)), (3, true));
}
