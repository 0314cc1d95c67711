//! Tables without rules; and the one of `list` and `status`: a line for each instance, or on a terminal that is too narrow for that, a few that
//! it does not break. What is in the rows is `survey`'s.

use comfy_table::{CellAlignment, Table};

use crate::output;
use crate::survey::Row;
use buildbot_conda_core::foreign_text::ForeignText;

/// The columns that are always in the table.
const SHORT: [&str; 6] = ["INSTANCE", "STATE", "FOR", "PID", "MEMORY", "BUILDBOT"];
/// The long columns, which are shown below if there is no room.
const LONG: [&str; 2] = ["ENVIRONMENT", "DOING"];

/// The rows for standard output: as wide as they are, or no wider than its terminal.
pub(crate) fn of(rows: &[Row]) -> String {
    folded(rows, output::width())
}

fn folded(rows: &[Row], width: Option<usize>) -> String {
    let wide = lines(rows, true);
    let fits = |width| wide.iter().all(|line| line.chars().count() <= width);
    match width {
        Some(width) if !fits(width) => narrow(rows, width),
        _ => wide.join("\n") + "\n",
    }
}

/// A line for each row, and the long columns in lines below it.
fn narrow(rows: &[Row], width: usize) -> String {
    let mut short = lines(rows, false).into_iter();
    let mut text = short.next().unwrap_or_default() + "\n";
    for (row, line) in rows.iter().zip(short) {
        text += &line;
        text.push('\n');
        let message = row.message.as_ref().map(ToString::to_string);
        for (name, value) in [("environment", environment(row)), ("doing", message)] {
            if let Some(value) = value {
                text += &output::fold(&format!("{name}: {value}"), 4, 6, Some(width));
            }
        }
    }
    text
}

/// The running environment, and next to it the one of the next start if that differs.
fn environment(row: &Row) -> Option<String> {
    let environment = row.environment.as_ref()?;
    Some(match &row.next_environment {
        None => environment.to_string(),
        Some(next) => format!("{environment} (next start: {next})"),
    })
}

/// The rows as an aligned table with a header, without rules.
fn lines(rows: &[Row], with_long: bool) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let long = if with_long { &LONG[..] } else { &[] };
    table.set_header(SHORT.iter().chain(long));
    for row in rows {
        let dash = || "-".to_owned();
        let or_dash = |text: Option<&ForeignText>| text.map_or_else(dash, ToString::to_string);
        let mut cells = vec![
            row.instance.clone(),
            row.state.clone(),
            row.seconds.map_or_else(dash, for_people),
            row.pid.map_or_else(dash, |pid| pid.to_string()),
            row.memory
                .map_or_else(dash, |bytes| format!("{} MiB", bytes >> 20)),
            or_dash(row.buildbot.as_ref()),
        ];
        if with_long {
            cells.push(environment(row).unwrap_or_else(dash));
            cells.push(or_dash(row.message.as_ref()));
        }
        table.add_row(cells);
    }
    for numeric in [2, 3, 4] {
        if let Some(column) = table.column_mut(numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    flush(&table)
}

/// The lines of a table without rules, without the blanks around them.
pub(crate) fn flush(table: &Table) -> Vec<String> {
    let lines = table.lines().map(|line| {
        line.strip_prefix(' ')
            .unwrap_or(&line)
            .trim_end()
            .to_owned()
    });
    lines.collect()
}

/// `45s`, `12min`, `3h`, `9d`: the largest unit alone.
fn for_people(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_by_their_largest_unit() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1min"),
            (7199, "1h"),
            (90000, "1d"),
        ] {
            assert_eq!(for_people(seconds), text);
        }
    }

    fn row(instance: &str, message: &str) -> Row {
        Row {
            instance: instance.to_owned(),
            unit: String::new(),
            state: "active".to_owned(),
            enabled: Some(true),
            seconds: Some(9),
            pid: Some(1234),
            memory: Some(101 << 20),
            memory_max: None,
            restarts: None,
            buildbot: Some("4.3.0".into()),
            environment: Some("/home/bb/anaconda3/envs/buildbot".into()),
            next_environment: None,
            directory: None,
            message: Some(message.into()),
            status: None,
        }
    }

    #[test]
    fn a_row_is_one_line_where_there_is_room() {
        let rows = [row("master", "running"), row("worker@gpu", "lost")];
        let wide = "\
INSTANCE    STATE   FOR   PID   MEMORY  BUILDBOT  ENVIRONMENT                       DOING
master      active   9s  1234  101 MiB  4.3.0     /home/bb/anaconda3/envs/buildbot  running
worker@gpu  active   9s  1234  101 MiB  4.3.0     /home/bb/anaconda3/envs/buildbot  lost
";
        assert_eq!(folded(&rows, None), wide);
        assert_eq!(folded(&rows, Some(91)), wide);
        assert_ne!(folded(&rows, Some(90)), wide);
    }

    #[test]
    fn the_environment_of_the_next_start_stands_beside_the_one_that_runs() {
        let mut row = row("master", "running");
        row.next_environment = Some("/opt/envs/new".into());
        let expect = "/home/bb/anaconda3/envs/buildbot (next start: /opt/envs/new)  running";
        assert!(folded(&[row], None).contains(expect));
    }

    #[test]
    fn a_narrow_terminal_gets_what_is_long_below() {
        let rows = [
            row("master", "running: Buildbot 4.3.0, http://localhost:8010/"),
            row(
                "worker",
                "the master at ci.example.org:9989 does not answer; tried again in 30 s, and for ever",
            ),
        ];
        let narrow = folded(&rows, Some(80));
        let expect = "\
INSTANCE  STATE   FOR   PID   MEMORY  BUILDBOT
master    active   9s  1234  101 MiB  4.3.0
    environment: /home/bb/anaconda3/envs/buildbot
    doing: running: Buildbot 4.3.0, http://localhost:8010/
worker    active   9s  1234  101 MiB  4.3.0
    environment: /home/bb/anaconda3/envs/buildbot
    doing: the master at ci.example.org:9989 does not answer; tried again in 30
      s, and for ever
";
        assert_eq!(narrow, expect);
    }
}
