//! Tests of all kinds in one queue, several at once, the longest first. Nothing waits for a whole group of others: a
//! test is added as soon as its requirements are ready, and there are no other barriers.
//!
//! cargo-nextest has slots and priorities, too, but covers only a part of this: it starts when everything is compiled,
//! only knows tests of cargo, and does not order tests by their duration. A fresh machine would have to compile it
//! first.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::timings::Timings;

/// How much of the time something waits for a processor, in per cent, when the processors are busy: more tests at once
/// would then end no earlier, and run into their own time limits.
const BUSY: f64 = 80.0;
/// How long it takes until a started test counts in that.
const SETTLED: Duration = Duration::from_secs(3);

/// A sign of life while tests run.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The result of a test.
pub(crate) struct Finished {
    pub(crate) passed: bool,
    /// Its complete output, in order.
    pub(crate) output: String,
}

/// One test, or several that one process runs.
pub(crate) struct Job<'run> {
    /// Which part of the suite it belongs to.
    pub(crate) part: &'static str,
    /// Unique in its part.
    pub(crate) name: String,
    /// Duration in seconds of a test of its kind, if it has not been measured yet. Rather too long, so that it is not
    /// the last one.
    pub(crate) usual: f64,
    /// How many of the pool's slots it uses; computing tests use more than waiting ones.
    pub(crate) slots: usize,
    pub(crate) work: Box<dyn FnOnce() -> Finished + Send + 'run>,
}

/// What became of the tests of one part.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// The seconds of all of them, which is more than has passed meanwhile.
    pub(crate) sum: Duration,
}

/// The queue, and what has come of it.
pub(crate) struct Pool<'run> {
    state: Mutex<State<'run>>,
    changed: Condvar,
    slots: usize,
    timings: &'run Timings,
}

struct State<'run> {
    /// Ordered by the expected duration, the longest last.
    waiting: Vec<(f64, Job<'run>)>,
    running: BTreeMap<String, Instant>,
    free: usize,
    /// When the last test was started.
    started: Option<Instant>,
    is_closed: bool,
    outcomes: BTreeMap<&'static str, Outcome>,
    failures: Vec<String>,
}

impl State<'_> {
    /// Whether what runs shows in the pressure on the processors.
    fn is_settled(&self) -> bool {
        self.started
            .is_none_or(|started| started.elapsed() >= SETTLED)
    }
}

impl<'run> Pool<'run> {
    /// An empty queue that `slots` slots work on once [`Pool::run`] is called.
    pub(crate) fn new(slots: usize, timings: &'run Timings) -> Self {
        let state = State {
            waiting: Vec::new(),
            running: BTreeMap::new(),
            free: slots,
            started: None,
            is_closed: false,
            outcomes: BTreeMap::new(),
            failures: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            slots,
            timings,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'run>> {
        self.state.lock().expect("no test panics in here")
    }

    /// Adds tests, to be run after waiting ones that are expected to take longer.
    pub(crate) fn add(&self, jobs: impl IntoIterator<Item = Job<'run>>) {
        let mut state = self.state();
        for mut job in jobs {
            job.slots = job.slots.min(self.slots);
            state.outcomes.entry(job.part).or_default();
            let known = self.timings.known(job.part, &job.name);
            let expected = known.unwrap_or(job.usual);
            state.waiting.push((expected, job));
        }
        state
            .waiting
            .sort_by(|one, other| one.0.total_cmp(&other.0));
        self.changed.notify_all();
    }

    /// Nothing is added from now on.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Runs what is added, until it is closed and nothing is left.
    pub(crate) fn run(&self) {
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..self.slots {
                scope.spawn(|| {
                    while let Some(job) = self.next() {
                        self.carry_out(job);
                    }
                });
            }
            scope.spawn(|| self.beat(started));
        });
    }

    /// The next test, once there are slots for it; the last quarter of the slots is for processors that have time. Only
    /// the first in the queue is looked at: one that needs many slots would else be passed over for ever.
    fn next(&self) -> Option<Job<'run>> {
        let mut state = self.state();
        loop {
            let needed = state.waiting.last().map(|(_, job)| job.slots);
            let used = self.slots - state.free;
            match needed {
                Some(slots) if used == 0 || used + slots <= self.slots * 3 / 4 => break,
                Some(slots) if slots <= state.free && state.is_settled() && !is_busy() => break,
                None if state.is_closed => return None,
                _ => {
                    let waited = self.changed.wait_timeout(state, SETTLED);
                    (state, _) = waited.expect("no test panics in here");
                }
            }
        }
        let (_, job) = state.waiting.pop()?;
        state.free -= job.slots;
        state.started = Some(Instant::now());
        state.running.insert(title(&job), Instant::now());
        self.changed.notify_all();
        Some(job)
    }

    fn carry_out(&self, job: Job<'run>) {
        let title = title(&job);
        let Job {
            part,
            name,
            slots,
            work,
            ..
        } = job;
        let started = Instant::now();
        let finished = work();
        let took = started.elapsed();
        self.timings.keep(part, &name, took);

        let mut state = self.state();
        state.free += slots;
        state.running.remove(&title);
        let outcome = state.outcomes.entry(part).or_default();
        outcome.sum += took;
        let seconds = took.as_secs_f64();
        if finished.passed {
            outcome.passed += 1;
            eprintln!("ok      {seconds:6.1} s  {title}");
        } else {
            outcome.failed += 1;
            eprintln!(
                "FAILED  {seconds:6.1} s  {title}\n{}\n----- end of {title}",
                finished.output.trim_end()
            );
            state.failures.push(title);
        }
        self.changed.notify_all();
    }

    fn beat(&self, started: Instant) {
        let mut state = self.state();
        while !(state.is_closed && state.waiting.is_empty() && state.running.is_empty()) {
            let (next, timeout) = self
                .changed
                .wait_timeout(state, HEARTBEAT)
                .expect("no test panics in here");
            state = next;
            if timeout.timed_out() && !state.running.is_empty() {
                let running: Vec<String> = state
                    .running
                    .iter()
                    .map(|(title, since)| format!("{title} {:.0} s", since.elapsed().as_secs_f64()))
                    .collect();
                eprintln!(
                    "      {:.0} s, {} tests are waiting; running: {}",
                    started.elapsed().as_secs_f64(),
                    state.waiting.len(),
                    running.join(", ")
                );
            }
        }
    }

    /// What has come of each part, by its name.
    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, Outcome> {
        self.state().outcomes.clone()
    }

    /// The tests that have failed, each with its part.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.state().failures.clone()
    }
}

fn title(job: &Job<'_>) -> String {
    format!("{}: {}", job.part, job.name)
}

/// Whether more wants to compute than there are processors for, as the kernel has seen it in the last ten seconds. One
/// that does not measure this knows of no pressure.
fn is_busy() -> bool {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    pressure(&text).is_some_and(|percent| percent > BUSY)
}

/// From the first line of a file of `/proc/pressure`: `some avg10=1.53 avg60=...`.
fn pressure(text: &str) -> Option<f64> {
    let (_, rest) = text.lines().next()?.split_once("avg10=")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn job<'run>(name: &str, slots: usize, work: impl FnOnce() -> bool + Send + 'run) -> Job<'run> {
        Job {
            part: "part",
            name: name.to_owned(),
            usual: 1.0,
            slots,
            work: Box::new(move || Finished {
                passed: work(),
                output: String::new(),
            }),
        }
    }

    #[test]
    fn the_longest_come_first() {
        let timings = Timings::of("part\tshort\t1\npart\tlong\t9\npart\tmiddle\t5\n");
        let order = Mutex::new(Vec::new());
        let order_ref = &order;
        let pool = Pool::new(1, &timings);
        let names = ["short", "long", "middle"];
        pool.add(names.map(|name| {
            job(name, 1, move || {
                order_ref.lock().expect("nobody panics").push(name);
                true
            })
        }));
        pool.close();
        pool.run();
        assert_eq!(
            *order.lock().expect("nobody panics"),
            ["long", "middle", "short"]
        );
    }

    #[test]
    fn slots_are_never_exceeded_and_a_test_of_many_is_not_passed_over() {
        let timings = Timings::of("");
        let (busy, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (busy, most) = (&busy, &most);
        let pool = Pool::new(3, &timings);
        let of = |index: usize| {
            let slots = [1, 5, 2, 1][index % 4];
            job(&index.to_string(), slots, move || {
                let slots = slots.min(3);
                let now = busy.fetch_add(slots, Ordering::SeqCst) + slots;
                most.fetch_max(now, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(2));
                busy.fetch_sub(slots, Ordering::SeqCst);
                true
            })
        };
        pool.add((0..40).map(of));
        pool.close();
        pool.run();
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(pool.outcomes()["part"].passed, 40);
    }

    #[test]
    fn the_pressure_is_that_of_the_last_ten_seconds() {
        let text = "some avg10=81.50 avg60=2.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(text), Some(81.5));
        assert_eq!(pressure(""), None);
        assert_eq!(pressure("some avg10="), None);
    }

    #[test]
    fn a_failure_is_named_and_hides_no_other_test() {
        let timings = Timings::of("");
        let pool = Pool::new(2, &timings);
        pool.add([job("good", 1, || true), job("bad", 1, || false)]);
        pool.close();
        pool.run();
        assert_eq!(pool.failures(), ["part: bad"]);
        let outcome = pool.outcomes()["part"];
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
    }
}
