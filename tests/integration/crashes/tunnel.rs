//! A server that is killed while its run has a tunnel out through the proxy.

use std::path::PathBuf;
use std::time::Duration;

use runbookd::provider::scripted::{Listen, Script, ScriptedProvider};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::answers::submit;
use super::waiting::end_of;
use crate::support::{Site, is_required, trajectory_in, until};

/// Longer than a server's start takes.
const SOON: Duration = Duration::from_secs(60);

/// Opens a tunnel, keeps what comes out of it and sends it back, until it is closed.
const ECHO: &str = r"python3 - <<'END'
import socket
proxy = socket.create_connection(('127.0.0.1', 3128))
proxy.sendall(b'CONNECT web.test:PORT HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n')
head = b''
while not head.endswith(b'\r\n\r\n'):
    head += proxy.recv(1)
out = open('/app/results/out', 'wb', 0)
while got := proxy.recv(4096):
    out.write(got)
    proxy.sendall(got)
END
";

/// Says something at the far end of the tunnel, and hears it back from the sandbox.
async fn says(tunnel: &mut TcpStream, text: &str) {
    tunnel.write_all(text.as_bytes()).await.unwrap();
    let mut heard = vec![0; text.len()];
    let echo = timeout(SOON, tunnel.read_exact(&mut heard)).await;
    echo.expect("the sandbox answers").unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

/// What the sandbox of the only run has kept so far.
fn kept(site: &Site) -> String {
    let sandboxes = std::fs::read_dir(site.folder().join("sandboxes")).into_iter().flatten();
    let file = |folder: PathBuf| std::fs::read_to_string(folder.join("rw/app/results/out")).ok();
    sandboxes.flatten().find_map(|sandbox| file(sandbox.path())).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_through_the_proxy_outlives_the_server() {
    if !rustix::process::geteuid().is_root() {
        assert!(!is_required(), "the full promises are given to root");
        println!("SKIPPED: the full promises are given to root");
        return;
    }
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = web.local_addr().unwrap().port();
    let command = ECHO.replace("PORT", &port.to_string());
    let turns = json!({ "turns": [{ "tools": [{ "Bash": { "command": command } }] }, { "text": "Done." }] });
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let script = Script::parse(&turns.to_string()).unwrap();
    let model = ScriptedProvider::start(script, listen).await.unwrap();
    let Listen::Tcp(address) = model.address() else { panic!("a TCP address") };
    let site = Site::new(&[
        ("RUNBOOKD_ENGINE", "bubblewrap"),
        ("RUNBOOKD_MIN_FREE_BYTES", "0"),
        ("RUNBOOKD_EGRESS_PRIVATE", &format!("127.0.0.1:{port}")),
        ("RUNBOOKD_EGRESS_HOSTS", "web.test=127.0.0.1"),
    ])
    .await;
    let (serving, server) = site.start().await;
    let runbook = format!(
        "---\nmodel_provider: anthropic\nnetwork: {{ mode: allowlist, allow: [\"web.test:{port}\"] }}\n\
         ---\n# A story\n\nDo what the model says.\n"
    );
    let path = submit(&server, &runbook, &format!("http://{address}")).await;
    let (mut tunnel, _) = timeout(SOON, web.accept()).await.expect("the agent asks").unwrap();
    says(&mut tunnel, "before\n").await;
    serving.kill().await;
    says(&mut tunnel, "while nobody served\n").await;
    let (serving, server) = site.start().await;
    says(&mut tunnel, "after\n").await;
    let all = "before\nwhile nobody served\nafter\n";
    timeout(SOON, until(|| kept(&site) == all)).await.expect("it is all there");
    drop(tunnel);
    let ended = end_of(&site, &server, &path).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let folder = site.run_folder(&path);
    assert_eq!(std::fs::read_to_string(folder.join("results/out")).unwrap(), all);
    // It was one attempt, let through once and ended once.
    let ledger = std::fs::read_to_string(folder.join("logs/egress.jsonl")).unwrap();
    let lines = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<Value> = lines
        .map(|line| json!([line["seq"], line["method"], line["outcome"], line["bytes_down"]]))
        .collect();
    let expected =
        [json!([1, "CONNECT", "in_flight", 0]), json!([1, "CONNECT", "passed", all.len()])];
    assert_eq!(told, expected, "{ledger}");
    assert_eq!(trajectory_in(&folder)["egress"]["allowed"], 1);
    // What the second server settled stands in its figures.
    let (_, figures) = server.ask("GET", "/metrics", None, None).await.unwrap();
    let figures = figures.as_str().unwrap();
    let line = r#"runbookd_egress_attempts_total{outcome="allowed",rule="allowlist"} 1"#;
    assert!(figures.contains(line) && !figures.contains("web.test"), "{figures}");
    serving.signal(Signal::TERM);
    assert_eq!(serving.ended().await.0, Some(0));
    assert_eq!(site.leftovers(), Vec::<String>::new());
    model.stop().await;
}
