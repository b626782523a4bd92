//! From a target to a connection: resolved once, every address checked, connected to one of these.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::policy::{Denial, Grant, Policy};
use super::refusal::Refusal;
use super::resolver::Resolver;
use super::target::Target;

/// How long one address may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Most addresses that are tried. A client gives up before more have timed out.
const MAX_TRIES: usize = 4;

/// The addresses of a target that is admitted: all of them checked.
pub(super) async fn checked(
    policy: &Policy,
    resolver: &Resolver,
    target: &Target,
    found: &mut Vec<IpAddr>,
) -> Result<Grant, Refusal> {
    let grant = policy.admit(target)?;
    *found = match target.literal() {
        Some(address) => vec![address],
        None => {
            let resolved = resolver.resolve(target.host()).await;
            resolved.map_err(|e| Refusal::Unresolved(e.to_string()))?
        }
    };
    if found.is_empty() {
        return Err(Refusal::Unresolved("it has no address".to_owned()));
    }
    // One private address among public ones is how a guard is led astray.
    for address in found.iter() {
        policy.admit_address(&grant, *address, target.port())?;
    }
    Ok(grant)
}

/// Connects to one of the checked addresses.
pub(super) async fn connect(
    policy: &Policy,
    addresses: &[IpAddr],
    port: u16,
) -> Result<TcpStream, Refusal> {
    let mut refusal = Refusal::Silent;
    for address in addresses.iter().take(MAX_TRIES) {
        let place = SocketAddr::new(*address, port);
        match timeout(CONNECT_LIMIT, TcpStream::connect(place)).await {
            Ok(Ok(stream)) if is_ourselves(&stream) && !policy.is_granted(*address, port) => {
                // A public address of this machine: its firewall does not stand before us.
                return Err(Denial::OwnMachine.into());
            }
            Ok(Ok(stream)) => {
                // Small packets of a handshake must not wait for each other.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => refusal = Refusal::Unreachable(e.to_string()),
            Err(_) => refusal = Refusal::Silent,
        }
    }
    Err(refusal)
}

/// Whether both ends of a connection are on this machine.
fn is_ourselves(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(own), Ok(other)) => own.ip() == other.ip(),
        // It has ended already.
        (Err(_), _) | (_, Err(_)) => false,
    }
}
