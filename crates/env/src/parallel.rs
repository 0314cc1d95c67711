//! Does the same for many items with as many threads as there are processors: the slow part waits for the file system,
//! not for the network.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The results in the order of `items`; the first error where there are any, and then some items are left out.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    act: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            let result = act(item).inspect_err(|_| {
                // No further item is started.
                next.store(items.len(), Ordering::Relaxed);
            });
            done.push((index, result?));
        }
        Ok(done)
    };
    let count = thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<anyhow::Result<Vec<(usize, R)>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count.min(items.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let ends = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ends.collect()
    });
    let mut done = Vec::with_capacity(items.len());
    for part in parts {
        done.extend(part?);
    }
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(map(&items, |item| Ok(*item)).unwrap(), items);
        assert_eq!(map(&[], |(): &()| Ok(())).unwrap(), []);
    }

    #[test]
    fn an_error_ends_it() {
        let items: Vec<usize> = (0..1000).collect();
        let error = map(&items, |item| {
            ensure!(*item != 500, "it is 500");
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "it is 500");
        let error: anyhow::Result<Vec<()>> = map(&items, |_| bail!("never"));
        assert_eq!(error.unwrap_err().to_string(), "never");
    }
}
