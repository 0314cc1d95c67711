//! Panics of this program and its libraries: they become an ordinary error, after which nothing incomplete remains.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;

/// Runs `act`. If it panics, or one of the threads that it waits for does, the first panic is the error.
///
/// # Errors
///
/// Those of `act`, and panics.
pub(crate) fn caught(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let first = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&first);
    panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("without a message");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get_or_insert_with(|| format!("{message} ({place})"));
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(act));
    // The standard library's own.
    let _ = panic::take_hook();
    let noted = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, noted) {
        (Ok(Ok(())), _) => Ok(()),
        (Ok(Err(error)), None) => Err(error),
        (_, noted) => Err(anyhow!(
            "internal error: {}\nhint: nothing was created; please report the command",
            noted.unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// One after the other, as the hook is the process's.
    #[test]
    fn a_panic_is_one_error_wherever_it_happens() {
        let message_of =
            |act: fn() -> anyhow::Result<()>| format!("{:#}", caught(act).unwrap_err());
        assert_eq!(message_of(|| bail!("as usual")), "as usual");
        assert!(caught(|| Ok(())).is_ok());
        let here = message_of(|| panic!("here"));
        assert!(
            here.starts_with("internal error: here (crates/env/src/failure.rs:"),
            "{here}"
        );
        let there = message_of(|| {
            std::thread::spawn(|| panic!("there"))
                .join()
                .map_err(|_| anyhow!("a thread"))
        });
        assert!(
            there.contains("there (crates/env/src/failure.rs:"),
            "{there}"
        );
    }
}
