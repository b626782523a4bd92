//! Work that waits for the disk, on a thread that may.

use tokio::task::{JoinError, spawn_blocking};

/// Does work that blocks where it holds nobody up.
///
/// A runtime that ends takes back what it has not begun. Whoever waited for it must not go on as if
/// something had failed, such as writing down that a run has: it waits, and goes down with the
/// runtime.
///
/// # Errors
/// The panic of `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match spawn_blocking(work).await {
        Err(taken_back) if taken_back.is_cancelled() => std::future::pending().await,
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_is_done_and_a_panic_is_told() {
        assert_eq!(blocking(|| 1 + 1).await.unwrap(), 2);
        assert!(blocking(|| panic!("on purpose")).await.unwrap_err().is_panic());
    }

    #[test]
    fn nobody_goes_on_after_work_that_an_ending_runtime_took_back() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let (told, hear) = mpsc::channel();
        runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            held.recv()
        });
        has_begun.recv().unwrap();
        // The only thread is taken, so this one waits until the runtime ends.
        runtime.spawn(async move {
            let done = blocking(|| ()).await;
            told.send(done.is_ok())
        });
        runtime.shutdown_background();
        drop(hold);
        assert_eq!(
            hear.recv_timeout(Duration::from_secs(10)),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
