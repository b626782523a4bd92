//! How long a sandbox may take until its agent is started: its launcher waits for the relay, which
//! may never say that it listens.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::host_folder::HostFolder;

/// From the start of a sandbox to its agent, or its setup script. It takes a tenth of a second; the
/// rest is for a machine that is very busy.
pub(super) const HANDOVER_LIMIT: Duration = Duration::from_secs(30);

/// How often it is looked whether the launcher has handed over. It is the look at one file.
const POLL: Duration = Duration::from_millis(100);

/// Returns when the launcher takes too long, and never where it hands over in time. Whoever takes a
/// sandbox over from an earlier daemon gives it the whole time again.
pub(super) async fn overdue(folder: &HostFolder) {
    let limit = Instant::now() + HANDOVER_LIMIT;
    while !folder.launched() {
        if Instant::now() >= limit {
            return;
        }
        sleep(POLL).await;
    }
    std::future::pending().await
}

/// What a person is told of such a sandbox.
pub(super) fn words() -> String {
    format!(
        "nothing was started in it within {} s. Either its way out did not open (the relay to the \
         proxy did not say that it listens), or the machine is overloaded",
        HANDOVER_LIMIT.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::super::launcher::LAUNCHED_FILE;
    use super::super::spec::SandboxId;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_launcher_that_does_not_hand_over_is_overdue_after_the_limit_and_no_sooner() {
        let state = tempfile::tempdir().unwrap();
        let folder = HostFolder::at(state.path(), &SandboxId::new("a").unwrap());
        let before = HANDOVER_LIMIT - POLL;
        assert!(timeout(before, overdue(&folder)).await.is_err());
        assert!(timeout(HANDOVER_LIMIT + POLL, overdue(&folder)).await.is_ok());
        std::fs::create_dir_all(folder.root().join("out")).unwrap();
        // Opened, and nothing said yet.
        std::fs::write(folder.out(LAUNCHED_FILE), "").unwrap();
        assert!(timeout(HANDOVER_LIMIT + POLL, overdue(&folder)).await.is_ok());
        std::fs::write(folder.out(LAUNCHED_FILE), "launched\n").unwrap();
        assert!(timeout(HANDOVER_LIMIT * 100, overdue(&folder)).await.is_err());
    }
}
