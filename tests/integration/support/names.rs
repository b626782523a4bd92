//! A name server of this machine that changes its mind: asked once more for a name's address, it
//! gives the next one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Length of what stands before the question.
const HEAD: usize = 12;
/// The type of a question for addresses of version 4.
const TYPE_A: u8 = 1;

/// A name server. Dropped, it ends.
pub(crate) struct Names {
    address: Ipv4Addr,
    n_asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Names {
    /// Serves every name: its address is each of these in turn.
    pub(crate) async fn start(addresses: &'static [Ipv4Addr]) -> Self {
        // Two stories at a time differ in their processes.
        let [_, _, third, fourth] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 113, third, fourth);
        let socket = UdpSocket::bind(SocketAddr::from((address, 53))).await.unwrap();
        let n_asked = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&n_asked);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut question = [0; 512];
            loop {
                let (n, from) = socket.recv_from(&mut question).await.unwrap();
                let answer = answer(&question[..n], || {
                    addresses[asked.fetch_add(1, Ordering::SeqCst) % addresses.len()]
                });
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { address, n_asked, _serving: serving }
    }

    /// How often somebody asked for an address.
    pub(crate) fn n_asked(&self) -> usize {
        self.n_asked.load(Ordering::SeqCst)
    }

    /// A program that does what `program` does and asks nobody else for names. Its files lie in
    /// `folder`.
    pub(crate) fn asked_by(&self, program: &Path, folder: &Path) -> PathBuf {
        let resolv = folder.join("resolv.conf");
        std::fs::write(&resolv, format!("nameserver {}\n", self.address)).unwrap();
        let script = folder.join("asks-for-names.sh");
        let text = format!(
            "#!/bin/sh\nexec /usr/bin/unshare --mount /bin/sh -c \
             '/bin/mount --bind {} /etc/resolv.conf && exec {} \"$@\"' runbookd \"$@\"\n",
            resolv.display(),
            program.display()
        );
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        script
    }
}

/// The answer to a question: an address where one of version 4 is asked for, else none.
fn answer(question: &[u8], address: impl FnOnce() -> Ipv4Addr) -> Vec<u8> {
    let name = question[HEAD..].iter().position(|byte| *byte == 0).unwrap();
    // The end of the name, its type and its class.
    let end = HEAD + name + 5;
    let is_a = question[end - 3] == TYPE_A;
    // The same number; an answer without an error; one question, one answer or none.
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&question[HEAD..end]);
    if is_a {
        // The name of the question, an address, of the internet, not to be kept, four bytes.
        answer.extend([0xc0, HEAD as u8, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address().octets());
    }
    answer
}
