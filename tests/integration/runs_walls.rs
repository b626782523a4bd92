//! What must not get out: secrets into the record, the agent into the network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use runbookd::run::Network;

use crate::support::{Scene, Stage, Story};

stories! {
    a_secret_reaches_the_agent_and_no_file,
    a_run_without_network_reaches_nothing_of_the_host,
}

/// A key that exists nowhere.
const KEY: &str = "sk-made-up-4f9a\"b\\c/7e1d+2026";

/// What any file may not hold: the key as it is, in JSON, in a URL, and in base64 at each of the
/// three places that it can have in a longer text.
fn spellings() -> Vec<Vec<u8>> {
    let json = serde_json::to_string(KEY).unwrap();
    let url: String = KEY
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let mut spellings = vec![KEY.to_owned(), json.trim_matches('"').to_owned(), url];
    for before in 0..3 {
        let text = format!("{}{KEY}", "x".repeat(before));
        // The first and last digits hold bits of the neighbours.
        let digits = STANDARD_NO_PAD.encode(&text);
        let from = (before * 8).div_ceil(6);
        let to = text.len() * 8 / 6;
        spellings.push(digits[from..to].to_owned());
    }
    spellings.into_iter().map(String::into_bytes).collect()
}

/// Whether a text gives the key away.
fn holds_the_key(bytes: &[u8]) -> bool {
    spellings().iter().any(|key| bytes.windows(key.len()).any(|window| window == key))
}

fn files_with_the_key(scene: &Scene) -> Vec<String> {
    let files = scene.files().into_iter();
    files
        .filter(|file| holds_the_key(&std::fs::read(file).unwrap()))
        .map(|file| file.strip_prefix(scene.folder()).unwrap().display().to_string())
        .collect()
}

async fn a_secret_reaches_the_agent_and_no_file(stage: &Stage) {
    let story = Story {
        runbook: "---\nsecrets:\n  shop: { env: SHOP_TOKEN, required: true }\n---\n# Buy with {{secrets.shop}}\n"
            .to_owned(),
        keys: vec![("SHOP_TOKEN", KEY), ("OTHER_TOKEN", "made-up-other-token")],
        ..Story::scripted(
            r#"
turns:
  - tools:
      - Bash: { command: "printf %s \"$SHOP_TOKEN\" | wc -c >/app/results/length" }
      - Bash: { command: "echo \"the token is $SHOP_TOKEN\"; printf %s \"$SHOP_TOKEN\" | base64 -w0; env" }
      - Bash: { command: "printf %s \"x$SHOP_TOKEN\" | base64 -w0; printf %s \"$SHOP_TOKEN\" >&2; exit 1" }
      - Bash: { command: "for i in 1 2 3 4 5 6 7 8; do head -c 5000 /dev/zero | tr '\\0' x; echo \"$SHOP_TOKEN\"; done" }
  - text: Bought.
"#,
        )
    };
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(scene.text("results/length").trim(), KEY.len().to_string());
    assert_eq!(files_with_the_key(&scene), Vec::<String>::new());
    assert!(scene.text("instruction.md").ends_with("# Buy with $SHOP_TOKEN\n"));
    let log = String::from_utf8(scene.log.clone()).unwrap();
    assert!(log.contains("the token is [redacted]"));
    assert!(!log.contains("made-up-other-token"), "a secret that was not declared is not given");
    // The search itself would find the key.
    for before in ["", "x", "xx", "xxx"] {
        let text = format!("{before}{KEY} and more");
        assert!(holds_the_key(text.as_bytes()));
        assert!(holds_the_key(STANDARD_NO_PAD.encode(&text).as_bytes()), "{before}");
    }
    assert!(!holds_the_key(format!("{:?}", scene.updates).as_bytes()), "nobody is shown the key");
}

/// Tries the host's listener by each way that a sandbox could have.
fn knocking(port: u16, network: Network) -> Story {
    let knock = format!(
        "
import socket
ways = ['127.0.0.1', '::1', 'localhost']
routes = [line.split() for line in open('/proc/net/route')][1:]
ways += [socket.inet_ntoa(bytes.fromhex(route[2])[::-1]) for route in routes]
for way in ways:
    try:
        socket.create_connection((way, {port}), 3).sendall(b'knock')
        print('reached')
    except OSError:
        pass
"
    );
    let mut story = Story::scripted(
        "turns: [{ tools: [{ Bash: { command: python3 /app/assets/knock.py >/app/results/reached } }] }, { text: Done. }]",
    );
    story.overrides.network = Some(network);
    story.assets = vec![("knock.py", String::leak(knock))];
    story
}

async fn a_run_without_network_reaches_nothing_of_the_host(stage: &Stage) {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scene = knocking(port, Network::None).run(stage).await;
    assert_eq!((scene.ending(), scene.text("results/reached").as_str()), ("completed", ""));
    // The same knock is heard where the network is open, so it would have been heard.
    let scene = knocking(port, Network::Open).run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert!(scene.text("results/reached").starts_with("reached\n"));
}
