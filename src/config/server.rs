//! What `runbookd serve` needs beside the rest.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::absolute;
use super::reader::Reader;
use crate::egress::{EgressSettings, Resolver};
use crate::run::Networks;

/// Where the API listens: this machine alone can reach it. 8000 is what Jetty's clients try first.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// Connections served at the same time. Each may hold a followed run; a file descriptor each.
const DEFAULT_MAX_CONNECTIONS: usize = 1024;

/// Connections of them from one address: more than a browser and a few programs behind one router
/// need, and few enough to leave places for others.
const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 256;

/// Largest body of JSON. The largest known runbook has 40 KiB, but messages may carry pictures.
const DEFAULT_MAX_JSON_BYTES: usize = 16 * 1024 * 1024;

/// Longest ordinary answer, in seconds. Jetty's SDK gives up after 60.
const DEFAULT_ANSWER_SECONDS: u64 = 30;

/// Free disk that is kept, in bytes: runs write logs of up to 1 GiB.
const DEFAULT_MIN_FREE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Largest body with files, in bytes: data sets, not disk images.
const DEFAULT_MAX_UPLOAD_BYTES: usize = 2 * 1024 * 1024 * 1024;

/// How long `run-sync` waits, in seconds: as long as a run may take when nobody says otherwise.
const DEFAULT_SYNC_SECONDS: u64 = 1200;

/// Runs that one token follows at the same time. A page of runs follows each of its lines.
const DEFAULT_MAX_STREAMS: usize = 64;

/// How long uploads and what became of webhooks are kept, in days: somebody who was away for some weeks
/// still finds them, and a disk does not fill up with them.
const DEFAULT_KEEP_DAYS: u32 = 30;

/// How long runs may go on after a stop, in seconds. What is left then is left running and taken up
/// again by the next start.
const DEFAULT_DRAIN_SECONDS: u64 = 20;

/// What `runbookd serve` needs beside the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// The address to listen on (`RUNBOOKD_LISTEN`).
    pub listen: SocketAddr,
    /// The results directory (`RUNBOOKD_RESULTS`, else `results` in the state folder).
    pub results_dir: PathBuf,
    /// How many runs go on at the same time (`RUNBOOKD_SLOTS`); `None` follows the machine.
    pub slots: Option<usize>,
    /// How many connections are served at the same time (`RUNBOOKD_MAX_CONNECTIONS`).
    pub max_connections: usize,
    /// How many of them from one address, other than this machine
    /// (`RUNBOOKD_MAX_CONNECTIONS_PER_ADDRESS`).
    pub max_connections_per_address: usize,
    /// Largest body of JSON, in bytes (`RUNBOOKD_MAX_JSON_BYTES`).
    pub max_json_bytes: usize,
    /// Longest time for an ordinary answer (`RUNBOOKD_ANSWER_SECONDS`).
    pub answer_limit: Duration,
    /// Less free disk than this, in bytes, and no work is taken (`RUNBOOKD_MIN_FREE_BYTES`).
    pub min_free_disk_bytes: u64,
    /// How long runs may go on after the stop was asked for (`RUNBOOKD_DRAIN_SECONDS`).
    pub drain_limit: Duration,
    /// Largest body with files, in bytes (`RUNBOOKD_MAX_UPLOAD_BYTES`).
    pub max_upload_bytes: usize,
    /// How long `run-sync` waits at most (`RUNBOOKD_SYNC_SECONDS`).
    pub sync_wait: Duration,
    /// Runs that one token may follow at the same time (`RUNBOOKD_MAX_STREAMS`).
    pub max_streams: usize,
    /// Whether webhooks may lead to private addresses (`RUNBOOKD_WEBHOOK_PRIVATE=1`).
    pub private_webhooks: bool,
    /// How long uploads are kept (`RUNBOOKD_KEEP_UPLOADS`, in days); `None` keeps them for ever.
    pub keep_uploads: Option<Duration>,
    /// How long it is kept what became of webhooks (`RUNBOOKD_KEEP_DELIVERIES`, in days); `None` keeps
    /// it for ever.
    pub keep_deliveries: Option<Duration>,
    /// What the sandboxes of runs may reach (`RUNBOOKD_NETWORKS`), private addresses that they may
    /// reach (`RUNBOOKD_EGRESS_PRIVATE`), hosts that they may not (`RUNBOOKD_EGRESS_DENY`), and names
    /// that are not looked up (`RUNBOOKD_EGRESS_HOSTS`).
    pub egress: EgressSettings,
    /// Whether the addresses of model services may be private, and without TLS
    /// (`RUNBOOKD_UPSTREAM_PRIVATE=1`).
    pub private_upstreams: bool,
}

impl ServerSettings {
    pub(super) fn from_vars(
        vars: &BTreeMap<String, String>,
        state_dir: &Path,
        faults: &mut Vec<String>,
    ) -> Self {
        let mut read = Reader { vars, faults };
        Self {
            listen: read.or("RUNBOOKD_LISTEN", "an address such as 127.0.0.1:8000", DEFAULT_LISTEN),
            results_dir: vars
                .get("RUNBOOKD_RESULTS")
                .and_then(|path| absolute(Path::new(path)))
                .unwrap_or_else(|| state_dir.join("results")),
            slots: read.at_all("RUNBOOKD_SLOTS", "a number of runs").map(NonZeroUsize::get),
            max_connections: read.number("RUNBOOKD_MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS),
            max_connections_per_address: read.number(
                "RUNBOOKD_MAX_CONNECTIONS_PER_ADDRESS",
                DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            ),
            max_json_bytes: read.number("RUNBOOKD_MAX_JSON_BYTES", DEFAULT_MAX_JSON_BYTES),
            answer_limit: read.seconds("RUNBOOKD_ANSWER_SECONDS", DEFAULT_ANSWER_SECONDS),
            min_free_disk_bytes: read.or(
                "RUNBOOKD_MIN_FREE_BYTES",
                "a number of bytes",
                DEFAULT_MIN_FREE_BYTES,
            ),
            drain_limit: read.seconds("RUNBOOKD_DRAIN_SECONDS", DEFAULT_DRAIN_SECONDS),
            max_upload_bytes: read.number("RUNBOOKD_MAX_UPLOAD_BYTES", DEFAULT_MAX_UPLOAD_BYTES),
            sync_wait: read.seconds("RUNBOOKD_SYNC_SECONDS", DEFAULT_SYNC_SECONDS),
            max_streams: read.number("RUNBOOKD_MAX_STREAMS", DEFAULT_MAX_STREAMS),
            private_webhooks: read.flag("RUNBOOKD_WEBHOOK_PRIVATE"),
            keep_uploads: read.days("RUNBOOKD_KEEP_UPLOADS", DEFAULT_KEEP_DAYS),
            keep_deliveries: read.days("RUNBOOKD_KEEP_DELIVERIES", DEFAULT_KEEP_DAYS),
            egress: egress(&mut read),
            private_upstreams: read.flag("RUNBOOKD_UPSTREAM_PRIVATE"),
        }
    }
}

fn egress(read: &mut Reader<'_>) -> EgressSettings {
    EgressSettings {
        networks: read.or(
            "RUNBOOKD_NETWORKS",
            "some of none, allowlist, public and open, with commas between them",
            Networks::default(),
        ),
        private: read.list(
            "RUNBOOKD_EGRESS_PRIVATE",
            "ranges such as 10.1.0.0/16 or 10.1.2.3:8080, with commas between them",
        ),
        deny: read.list(
            "RUNBOOKD_EGRESS_DENY",
            "hosts such as example.org or *.example.org, with commas between them",
        ),
        resolver: read.or(
            "RUNBOOKD_EGRESS_HOSTS",
            "names and addresses such as mirror.example=10.1.2.3, with commas between them",
            Resolver::default(),
        ),
    }
}
