//! Attacks on the network: through the proxy to what no sandbox may reach. `runs_network` has the ways
//! around the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runbookd::run::Network;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Attack, withstand};
use crate::support::Stage;

stories! {
    the_proxy_leads_to_nothing_of_the_machine_or_its_neighbours,
}

/// Metadata services, by each spelling of their addresses and by their names.
const METADATA: [&str; 12] = [
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://0251.0376.0251.0376/latest/meta-data/",
    "http://169.254.43518/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "http://[::ffff:a9fe:a9fe]/latest/meta-data/",
    "http://[64:ff9b::a9fe:a9fe]/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
];

/// This machine and its neighbours, before a port.
const INSIDE: [&str; 10] = [
    "127.0.0.1",
    "localhost",
    "0.0.0.0",
    "2130706433",
    "127.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "172.17.0.1",
    "10.0.0.1",
    "[fe80::1]",
];

/// Asks in plain HTTP, and through a tunnel: the status, and whether it says why. The empty list makes
/// nothing of `NO_PROXY`, which names the sandbox's own loopback.
const ASK: &str = r#"
rm -f /tmp/answer
curl -s -g --noproxy '' -o /tmp/answer -w '%{http_code} ' -m 9 "$url"; grep -o 'blocked by policy' /tmp/answer | head -n 1
curl -s -g --noproxy '' -o /dev/null -w '%{http_connect}\n' -m 9 -p "$url"
"#;

async fn the_proxy_leads_to_nothing_of_the_machine_or_its_neighbours(stage: &Stage) {
    let n_heard = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut listening = JoinSet::new();
    let heard = Arc::clone(&n_heard);
    // As the server's own API, or that of the engine, would listen.
    listening.spawn(async move {
        while listener.accept().await.is_ok() {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    });
    let inside = INSIDE.map(|host| format!("http://{host}:{port}/api/v1/collections"));
    let urls = METADATA.map(str::to_owned).into_iter().chain(inside);
    let attack = |url: String| Attack {
        name: format!("S5: {url}").leak(),
        command: format!("url='{url}'{ASK}").leak(),
        prints: "403 blocked by policy\n403",
    };
    let attacks: Vec<Attack> = urls.map(attack).collect();
    let public = |story: &mut crate::support::Story| {
        story.overrides.network = Some(Network::Public);
    };
    let aftermath = withstand(stage, &attacks, public).await;
    assert_eq!(n_heard.load(Ordering::Relaxed), 0);
    let egress = aftermath.scene.text("logs/egress.jsonl");
    let n_denied = egress.lines().filter(|line| line.contains(r#""outcome":"denied""#)).count();
    assert_eq!(n_denied, 2 * attacks.len(), "each is kept: {egress}");
}
