//! Measures whole processes: commands are run alternately, so that other load on the machine affects all of them alike.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// A command under a name.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) command: Command,
    /// Index of the contender that this one is compared with.
    pub(super) against: Option<usize>,
    /// Highest ratio of the medians that is wanted.
    pub(super) wanted: Option<f64>,
}

/// A contender's figures, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) name: String,
    pub(super) runs: usize,
    pub(super) minimum: f64,
    pub(super) median: f64,
    pub(super) maximum: f64,
    /// Name of what it is compared with.
    pub(super) against: Option<String>,
    /// Its median over the other's.
    pub(super) ratio: Option<f64>,
    pub(super) wanted: Option<f64>,
}

/// Runs every contender `runs` times in turn, after one run that warms the caches.
///
/// # Errors
///
/// When a command cannot be started or fails.
pub(super) fn compete(mut contenders: Vec<Contender>, runs: usize) -> Result<Vec<Figures>> {
    let mut times: Vec<Vec<Duration>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..=runs {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let time = once(contender)?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    let named = contenders
        .iter()
        .zip(times)
        .map(|(contender, times)| Series {
            name: contender.name.clone(),
            times,
            against: contender.against,
            wanted: contender.wanted,
        });
    Ok(compare(named.collect()))
}

/// The times of one thing, measured in turn with those of the others.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) times: Vec<Duration>,
    /// Index of the series that this one is compared with.
    pub(super) against: Option<usize>,
    /// Highest ratio of the medians that is wanted.
    pub(super) wanted: Option<f64>,
}

/// Medians, extremes and ratios.
pub(super) fn compare(mut series: Vec<Series>) -> Vec<Figures> {
    let medians: Vec<f64> = series
        .iter_mut()
        .map(|series| median(&mut series.times))
        .collect();
    let figures = series.iter().enumerate().map(|(index, one)| Figures {
        name: one.name.clone(),
        runs: one.times.len(),
        minimum: one.times.first().map_or(0.0, milliseconds),
        median: medians[index],
        maximum: one.times.last().map_or(0.0, milliseconds),
        against: one.against.map(|other| series[other].name.clone()),
        ratio: one.against.map(|other| medians[index] / medians[other]),
        wanted: one.wanted,
    });
    figures.collect()
}

fn once(contender: &mut Contender) -> Result<Duration> {
    let command = contender.command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let time = start.elapsed();
    let status = status.with_context(|| format!("run `{}`", contender.name))?;
    ensure!(
        status.success(),
        "`{}` failed with {status}",
        contender.name
    );
    Ok(time)
}

/// The middle of the sorted times, in milliseconds; sorts them.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, milliseconds)
}

fn milliseconds(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The figures as an aligned table.
pub(super) fn table(figures: &[Figures]) -> String {
    let width = figures
        .iter()
        .map(|figures| figures.name.len())
        .max()
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{:width$}  {:>8}  {:>8}  {:>8}  {:>7}  compared with",
        "milliseconds", "minimum", "median", "maximum", "ratio"
    )];
    for figures in figures {
        let ratio = figures
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        let against = figures.against.clone().unwrap_or_default();
        let wanted = figures
            .wanted
            .map_or_else(String::new, |wanted| format!(" (wanted: at most {wanted})"));
        let line = format!(
            "{:width$}  {:>8.3}  {:>8.3}  {:>8.3}  {ratio:>7}  {against}{wanted}",
            figures.name, figures.minimum, figures.median, figures.maximum
        );
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians() {
        let contender = |name: &str, program: &str, against| Contender {
            name: name.to_owned(),
            command: Command::new(program),
            against,
            wanted: None,
        };
        let figures = compete(
            vec![
                contender("a", "true", None),
                contender("b", "true", Some(0)),
            ],
            5,
        )
        .expect("`true` runs");
        assert_eq!(figures[0].ratio, None);
        let ratio = figures[1]
            .ratio
            .expect("it has something to be compared with");
        assert!((ratio - figures[1].median / figures[0].median).abs() < 1e-9);
        assert!(figures[0].minimum <= figures[0].median && figures[0].median <= figures[0].maximum);
    }

    #[test]
    fn a_command_that_fails_is_named() {
        let contender = Contender {
            name: "broken".to_owned(),
            command: Command::new("false"),
            against: None,
            wanted: None,
        };
        let error = compete(vec![contender], 1).expect_err("`false` fails");
        assert!(error.to_string().contains("`broken`"), "{error}");
    }
}
