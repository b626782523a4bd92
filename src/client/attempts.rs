//! Trying again: which calls, after what, how often.

use std::time::Duration;

use super::error::ClientError;

/// The waits between the attempts: a server that restarts on the same machine is back in time.
const WAITS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(3200),
];

/// Longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// When a call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Whenever it may end otherwise: it does the same the second time.
    Safe,
    /// Only when the server never heard of it.
    Unheard,
}

impl Again {
    fn allows(self, error: &ClientError) -> bool {
        match self {
            Self::Safe => error.may_pass(),
            Self::Unheard => error.was_unheard(),
        }
    }
}

/// Makes a call until it ends well, may not be made again, or was tried often enough.
pub(super) async fn attempt<T>(
    again: Again,
    call: impl AsyncFn() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    for wait in WAITS {
        match call().await {
            Err(error) if again.allows(&error) => {
                tracing::debug!(error = crate::run::error_chain(&error), "trying again");
                let wait = error.retry_after().map_or(wait, |asked| asked.clamp(wait, MAX_WAIT));
                tokio::time::sleep(wait).await;
            }
            ended => return ended,
        }
    }
    call().await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn refused(status: u16) -> ClientError {
        ClientError::Refused { status, detail: "no".to_owned(), retry_after: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_made_again_only_where_that_changes_nothing() {
        for (again, status, expected) in [
            (Again::Safe, 503, WAITS.len() + 1),
            (Again::Safe, 429, WAITS.len() + 1),
            (Again::Safe, 404, 1),
            (Again::Unheard, 503, 1),
        ] {
            let n_calls = Cell::new(0);
            let ended = attempt(again, async || {
                n_calls.set(n_calls.get() + 1);
                Err::<(), _>(refused(status))
            })
            .await;
            assert_eq!(ended.unwrap_err().status(), Some(status));
            assert_eq!(n_calls.get(), expected, "{again:?} {status}");
        }
    }
}
