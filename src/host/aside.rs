//! Work on a file system that may never answer, kept from holding up the end of the process.

use std::thread;

use tokio::sync::oneshot;

/// Does `work` on a thread of its own; `None` where it panicked or no thread could be made.
///
/// A dead network file system blocks whoever asks it, for ever. The runtime waits for its own
/// blocking threads before the process ends; nobody waits for this one.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let started = thread::Builder::new().spawn(move || {
        // Whoever stopped waiting needs no answer.
        let _ = tell.send(work());
    });
    started.ok()?;
    told.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_done_is_told_and_a_panic_is_nothing() {
        assert_eq!(aside(|| 2 + 2).await, Some(4));
        assert_eq!(aside(|| -> u8 { panic!("made up") }).await, None);
    }
}
