//! A client that wants to fill, to stall or to get around the gateway.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::egress::MAX_LINE_BYTES;
use crate::run::MAX_CLIPPED_CHARS;

impl Door {
    /// What comes back for these bytes, to the end of the connection.
    async fn says(&self, head: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("model.sock")).await.unwrap();
        let head = format!(
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: {TOKEN}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn nothing_that_a_client_says_makes_a_line_of_the_ledger_long() {
    let door = Door::to("http://127.0.0.1:1".to_owned(), Wire::Messages, key());
    let long = "\\u0001".repeat(300_000);
    let method = "M".repeat(50_000);
    let path = "%01".repeat(10_000);
    for (head, body) in [
        (format!("{method} /v1/messages"), "{}".to_owned()),
        (format!("POST /{path}"), "{}".to_owned()),
        ("POST /v1/messages".to_owned(), format!(r#"{{"model":"{long}"}}"#)),
        ("POST /v1/messages".to_owned(), format!(r#"{{"messages":"{long}"}}"#)),
        (
            "POST /v1/messages".to_owned(),
            format!(r#"{{"model":"m","tools":[{{"type":"{long}"}}]}}"#),
        ),
    ] {
        let answer = door.says(&head, &body).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{}", &answer[..answer.len().min(500)]);
        assert!(answer.len() < 4096, "{} bytes", answer.len());
    }
    let told = door.closed().await;
    assert_eq!(outline(&told).len(), 5);
    assert!(told.longest < 4096, "{} bytes", told.longest);
    assert_eq!(told.last_seq(), 5);
}

#[tokio::test]
async fn a_models_name_is_short_wherever_it_stands() {
    let name = "m".repeat(201);
    for (wire, head, body) in [
        (Wire::Messages, "POST /v1/messages".to_owned(), json!({"model": name})),
        (Wire::Bedrock, format!("POST /model/{name}/invoke"), json!({})),
        (
            Wire::Vertex,
            format!(
                "POST /projects/p/locations/l/publishers/anthropic/models/{name}:streamRawPredict"
            ),
            json!({}),
        ),
    ] {
        let door = Door::to("http://127.0.0.1:1".to_owned(), wire, key());
        let answer = door.says(&head, &body.to_string()).await;
        assert!(answer.contains("longer than 200 bytes"), "{wire:?} {answer}");
        assert_eq!(outline(&door.closed().await), ["Refused message 400"]);
    }
}

#[test]
fn the_longest_line_is_one_that_every_reader_takes() {
    // Four bytes in UTF-8; a quote is two.
    let longest = |c: char| Some(crate::run::clipped(&c.to_string().repeat(5 * MAX_CLIPPED_CHARS)));
    let finding = |kind: &str| crate::guard::GuardFinding {
        kind: kind.to_owned(),
        count: u64::MAX,
        action: crate::guard::GuardAction::Mask,
    };
    let text = r#"{"seq":18446744073709551615,"at":"1970-01-01T00:00:00.123456789Z",
        "outcome":"in_flight","method":"","path":"","n_request_bytes":18446744073709551615,
        "n_answer_bytes":18446744073709551615}"#;
    let mut record: GatewayRecord = serde_json::from_str(text).unwrap();
    for c in ['"', '\u{10ffff}', '\u{1}'] {
        record.method = longest(c).unwrap();
        record.path = longest(c).unwrap();
        record.endpoint = longest(c);
        record.model = longest(c);
        record.model_served = longest(c);
        record.provider_request_id = longest(c);
        record.problem = longest(c);
        // More kinds than there are.
        record.guard = vec![finding("a_kind_with_a_name_of_some_length"); 100];
        let line = serde_json::to_vec(&record).unwrap();
        assert!(line.len() < MAX_LINE_BYTES / 2, "{} bytes", line.len());
        assert_eq!(Ledger::read(line.as_slice()).unwrap().last_seq(), u64::MAX);
    }
}

#[test]
fn a_ledger_that_cannot_be_read_to_its_end_is_no_short_one() {
    struct Broken<'b>(&'b [u8]);

    impl std::io::Read for Broken<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match std::io::Read::read(&mut self.0, into)? {
                0 => Err(std::io::Error::other("the disk")),
                n => Ok(n),
            }
        }
    }

    let line = r#"{"seq":7,"at":"1970-01-01T00:00:00Z","outcome":"complete","method":"","path":"","n_request_bytes":0,"n_answer_bytes":0}"#;
    let lines = format!("{line}\n{}\n{}", " ".repeat(3 * MAX_LINE_BYTES), line.replace('7', "9"));
    assert_eq!(Ledger::read(lines.as_bytes()).unwrap().last_seq(), 9);
    assert!(Ledger::read(std::io::BufReader::new(Broken(lines.as_bytes()))).is_err());
    let egress = crate::egress::EgressLedger::read(std::io::BufReader::new(Broken(b"{}\n")));
    assert!(egress.is_err());
}

#[tokio::test]
async fn a_proxy_of_this_machine_does_not_lead_to_a_private_address() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let ask = async |upstream: &str| {
        let client = Client::builder().proxy(reqwest::Proxy::all(&address).unwrap());
        let upstreams = Upstream::with(client.build().unwrap(), Reach::Public);
        let route = (upstream.to_owned(), Wire::Messages, key());
        let door = Door::through(upstreams, route, None);
        let answer = door.ask("/v1/messages", prompt(false)).send().await.unwrap();
        let status = answer.status();
        let words = answer.text().await.unwrap();
        assert_eq!(outline(&door.closed().await), ["Unreachable message 502"]);
        (status, words)
    };
    for (upstream, word) in [
        ("https://localhost:9", "leads to a private address"),
        ("https://nowhere.invalid", "cannot be resolved on this machine"),
    ] {
        let (status, words) = ask(upstream).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(words.contains(word), "{words}");
    }
    let heard = async {
        // The first that comes is for the one that is well known: nothing came before.
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut head = [0; 64];
        let n = stream.read(&mut head).await.unwrap();
        String::from_utf8_lossy(&head[..n]).into_owned()
    };
    let (heard, _) = tokio::join!(heard, ask("https://api.anthropic.com"));
    assert!(heard.starts_with("CONNECT api.anthropic.com:443 "), "{heard}");
}
