//! The first bytes behind a CONNECT: TLS with the name of a host, HTTP, or something else.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// How long a client may take for its greeting. It has just asked for the connection.
const HELLO_LIMIT: Duration = Duration::from_secs(30);

/// Longest greeting, in bytes. With keys that resist quantum computers it has about 2 KiB.
const MAX_HELLO_BYTES: usize = 64 << 10;

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 4 << 10;

/// What a TLS record with a greeting begins with.
const HANDSHAKE: u8 = 22;

/// The alert with which TLS says no: `access_denied`, fatal.
pub(super) const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What a client begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    /// A TLS greeting, with the host that it names.
    Tls(Option<String>),
    /// A TLS record that holds no greeting that can be read.
    BrokenTls,
    /// A request of HTTP.
    Http,
    /// Something else.
    Other,
    /// Nothing: the client went away, or waits for the other side.
    Nothing,
}

/// Reads a client's first bytes into `bytes`, and says what they are. Dropped, it loses nothing.
pub(super) async fn read_hello(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
) -> io::Result<Hello> {
    match timeout(HELLO_LIMIT, read_on(stream, bytes)).await {
        Ok(hello) => hello,
        Err(_) if bytes.first() == Some(&HANDSHAKE) => Ok(Hello::BrokenTls),
        Err(_) if bytes.is_empty() => Ok(Hello::Nothing),
        Err(_) => Ok(Hello::Other),
    }
}

async fn read_on(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<Hello> {
    let mut acceptor = Acceptor::default();
    loop {
        let from = bytes.len();
        if (&mut *stream).take(PIECE_BYTES as u64).read_buf(bytes).await? == 0 {
            return Ok(if bytes.is_empty() { Hello::Nothing } else { Hello::Other });
        }
        if bytes.first() != Some(&HANDSHAKE) {
            match begins_http(bytes) {
                Some(true) => return Ok(Hello::Http),
                Some(false) => return Ok(Hello::Other),
                None => continue,
            }
        }
        let mut piece = bytes.get(from..).unwrap_or_default();
        while !piece.is_empty() {
            if acceptor.read_tls(&mut piece).is_err() {
                return Ok(Hello::BrokenTls);
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Ok(Hello::Tls(name));
                }
                Err(_) => return Ok(Hello::BrokenTls),
            }
        }
        if bytes.len() > MAX_HELLO_BYTES {
            return Ok(Hello::BrokenTls);
        }
    }
}

/// Whether these bytes begin a request of HTTP; `None` where more are needed.
fn begins_http(bytes: &[u8]) -> Option<bool> {
    /// Longest method, in bytes: `PROPPATCH` and the like.
    const MAX_METHOD_BYTES: usize = 16;
    let method = bytes.iter().take(MAX_METHOD_BYTES).take_while(|b| b.is_ascii_uppercase()).count();
    match bytes.get(method) {
        Some(b' ') => Some(method > 0),
        Some(_) => Some(false),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::servers::greeting;
    use super::*;

    async fn read(mut bytes: &[u8]) -> Hello {
        read_hello(&mut bytes, &mut Vec::new()).await.unwrap()
    }

    #[tokio::test]
    async fn what_a_client_begins_with_is_told_apart() {
        let named = Hello::Tls(Some("example.org".to_owned()));
        assert_eq!(read(&greeting("example.org")).await, named);
        assert_eq!(read(&greeting("192.0.2.1")).await, Hello::Tls(None));
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Hello::Http),
            (b"SSH-2.0-x\r\n", Hello::Other),
            (b" GET", Hello::Other),
            (b"GET", Hello::Other),
            (b"", Hello::Nothing),
            (&[HANDSHAKE, 9, 9, 9, 9, 9, 9], Hello::BrokenTls),
            (&[HANDSHAKE, 3, 1, 0, 4, 99, 0, 0, 0], Hello::BrokenTls),
        ] {
            assert_eq!(read(bytes).await, expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_greeting_in_pieces_is_read_whole_and_given_back_as_it_came() {
        let greeting = greeting("example.org");
        let (mut client, mut proxy) = tokio::io::duplex(7);
        let sent = greeting.clone();
        let send = async {
            use tokio::io::AsyncWriteExt as _;
            client.write_all(&sent).await.unwrap();
            client
        };
        let mut bytes = Vec::new();
        let (read, _client) = tokio::join!(read_hello(&mut proxy, &mut bytes), send);
        assert_eq!(read.unwrap(), Hello::Tls(Some("example.org".to_owned())));
        assert_eq!(bytes, greeting);
    }
}
