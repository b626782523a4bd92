//! This machine as a run needs it: folders that can be written, room on the disk, memory, sockets.

mod aside;
mod blocking;
mod connections;
mod folder;
mod memory;

pub use aside::aside;
pub use blocking::blocking;
pub use connections::Doorway;
pub use folder::{Purpose, examine_folder};
pub use memory::examine_memory;

/// A number of bytes for people.
fn sized(n_bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    let mib = n_bytes / MIB;
    if mib < 10 * 1024 { format!("{mib} MiB") } else { format!("{} GiB", mib / 1024) }
}
