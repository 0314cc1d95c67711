//! The same work for many, some of them at a time: each waits for something else most of its time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{iter, thread};

use anyhow::anyhow;

/// Does `work` for each item, at most `lanes` at the same time. After a failure, no further item is started, and
/// started ones are completed. Returns the failures in the order of the items.
pub(crate) fn each<T: Sync>(
    items: &[T],
    lanes: usize,
    work: impl Fn(&T) -> anyhow::Result<()> + Sync,
) -> Vec<anyhow::Error> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let one = || {
        if has_failed.load(Ordering::SeqCst) {
            return None;
        }
        let place = next.fetch_add(1, Ordering::SeqCst);
        let outcome = work(items.get(place)?);
        has_failed.fetch_or(outcome.is_err(), Ordering::SeqCst);
        Some((place, outcome))
    };
    let mut failed: Vec<(usize, anyhow::Error)> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes.min(items.len()))
            .map(|_| scope.spawn(|| iter::from_fn(one).collect::<Vec<_>>()))
            .collect();
        let ends = lanes.into_iter().flat_map(|lane| {
            let end = lane.join();
            end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let failed = ends.filter_map(|(place, outcome)| Some((place, outcome.err()?)));
        failed.collect()
    });
    failed.sort_by_key(|(place, _)| *place);
    failed.into_iter().map(|(_, error)| error).collect()
}

/// What came of all of them: one error with every reason, and the hint of the first that has one.
pub(crate) fn outcome(failed: Vec<anyhow::Error>) -> anyhow::Result<()> {
    if failed.len() < 2 {
        return failed.into_iter().next().map_or(Ok(()), Err);
    }
    let texts: Vec<String> = failed.iter().map(|error| format!("{error:#}")).collect();
    let parts = texts
        .iter()
        .map(|text| text.split_once("\nhint: ").unwrap_or((text, "")));
    let reasons: Vec<&str> = parts.clone().map(|(reason, _)| reason).collect();
    let hint = parts.map(|(_, hint)| hint).find(|hint| !hint.is_empty());
    let hint = hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"));
    Err(anyhow!("{}{hint}", reasons.join("\n")))
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use anyhow::bail;

    use super::*;

    #[test]
    fn as_many_as_asked_for_are_done_at_the_same_time_and_no_more() {
        let items: Vec<usize> = (0..12).collect();
        // Nobody would get past it if there were fewer.
        let barrier = Barrier::new(3);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done = Mutex::new(Vec::new());
        let failed = each(&items, 3, |item| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            barrier.wait();
            done.lock().unwrap().push(*item);
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        });
        assert!(failed.is_empty() && most.into_inner() == 3);
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, items);
        assert!(each(&[] as &[u8], 3, |_| bail!("nobody")).is_empty());
    }

    #[test]
    fn several_failures_are_one_with_a_hint_at_its_end() {
        let failed = ["a\nhint: b", "c", "d\nhint: e"].map(|text| anyhow!("{text}"));
        let error = outcome(failed.into()).unwrap_err();
        assert_eq!(error.to_string(), "a\nc\nd\nhint: b");
        assert!(outcome(Vec::new()).is_ok());
    }

    #[test]
    fn after_a_failure_none_is_begun_any_more() {
        let begun = Mutex::new(Vec::new());
        let failed = each(&[0, 1, 2, 3], 1, |item| {
            begun.lock().unwrap().push(*item);
            if *item == 1 {
                bail!("{item} fails");
            }
            Ok(())
        });
        assert_eq!(begun.into_inner().unwrap(), [0, 1]);
        assert_eq!(outcome(failed).unwrap_err().to_string(), "1 fails");
    }
}
