//! A person at a terminal of a machine: a command is typed, questions are answered, and what the terminal showed is
//! kept as the cells of its screen. How it is drawn is `drawing`'s.

use std::num::NonZero;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::Machine;

/// Where commands are typed.
pub(super) const DIRECTORY: &str = "/srv";
/// Long enough for apt on a machine that has other things to do.
const LIMIT: Duration = Duration::from_mins(5);
/// More lines than any command of ours prints; earlier lines would be lost.
const ROWS: NonZero<u16> = NonZero::new(500).unwrap();

/// Runs inside the machine. Arguments: directory, columns, command, and alternately a prompt and the text to type when
/// it appears.
const TYPE: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios

directory, columns, command, *answers = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.chdir(directory)
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, int(columns), 0, 0))
    os.execvpe("bash", ["bash", "-c", command], {**os.environ, "TERM": "xterm-256color"})
shown = unanswered = b""
while True:
    if not select.select([terminal], [], [], 120)[0]:
        os.kill(pid, signal.SIGKILL)
        break
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    shown += part
    unanswered += part
    if answers and answers[0].encode() in unanswered:
        os.write(terminal, answers[1].encode() + b"\n")
        del answers[:2]
        unanswered = b""
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// Terminals of a machine, each as wide as the last.
pub(super) struct Terminal<'machine> {
    pub(super) machine: &'machine Machine,
    /// A Python in the machine, which has pseudo terminals.
    pub(super) python: String,
    pub(super) columns: NonZero<u16>,
}

/// What a terminal showed from a command's start to its end.
pub(super) struct Shown {
    pub(super) status: i32,
    /// From the first to the last line that is not empty.
    pub(super) lines: Vec<Line>,
}

/// Pieces of one line, by their columns.
pub(super) type Line = Vec<Piece>;

/// Characters in one style, without two blanks in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Column of the first character, counted from 0.
    pub(super) column: usize,
    pub(super) text: String,
    pub(super) style: Style,
}

/// How characters look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// One of the sixteen colours that every terminal has, ECMA-48 and its bright ones.
    pub(super) colour: Option<u8>,
    pub(super) bold: bool,
    pub(super) dim: bool,
}

impl Terminal<'_> {
    /// Types a command, and each of `answers` (prompt, text) when its prompt appears.
    ///
    /// # Errors
    ///
    /// If there is no terminal, or the command does not finish; a failure of the command itself is in the status.
    pub(super) fn enter(&self, command: &str, answers: &[(&str, &str)]) -> Result<Shown> {
        let columns = self.columns.to_string();
        let mut words = vec![
            self.python.as_str(),
            "-c",
            TYPE,
            DIRECTORY,
            &columns,
            command,
        ];
        words.extend(answers.iter().flat_map(|(prompt, answer)| [prompt, answer]));
        let output = self.machine.run_within(LIMIT, &words)?;
        ensure!(output.stderr.is_empty(), "use a terminal: {output}");
        Ok(Shown {
            status: output.status,
            lines: lines(output.stdout.as_bytes(), self.columns)?,
        })
    }

    /// As [`Terminal::enter`], for a command that must succeed.
    ///
    /// # Errors
    ///
    /// Then with what it showed.
    pub(super) fn must(&self, command: &str, answers: &[(&str, &str)]) -> Result<Shown> {
        let shown = self.enter(command, answers)?;
        ensure!(
            shown.status == 0,
            "`{command}` ended with {}\n{}",
            shown.status,
            shown.text()
        );
        Ok(shown)
    }
}

impl Shown {
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(|line| text(line) + "\n").collect()
    }
}

/// A line without its styles.
pub(super) fn text(line: &Line) -> String {
    let mut text = String::new();
    for piece in line {
        let width = text.chars().count();
        text.push_str(&" ".repeat(piece.column.saturating_sub(width)));
        text.push_str(&piece.text);
    }
    text
}

/// The screen of a terminal that received `bytes`.
pub(super) fn lines(bytes: &[u8], columns: NonZero<u16>) -> Result<Vec<Line>> {
    let mut parser = vt100::Parser::new(ROWS, columns, 1);
    parser.process(bytes);
    let screen = parser.screen();
    ensure!(screen.scrollback_len() == 0, "show less than {ROWS} lines");
    let mut lines = (0..ROWS.get())
        .map(|row| line(screen, row, columns.get()))
        .collect::<Result<Vec<Line>>>()?;
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    Ok(lines)
}

fn line(screen: &vt100::Screen, row: u16, columns: u16) -> Result<Line> {
    let mut line: Line = Vec::new();
    let mut blanks = 0;
    for column in 0..columns {
        let cell = screen
            .cell(row, column)
            .context("find a cell of a screen")?;
        let text = cell.contents();
        if text.trim().is_empty() {
            blanks += 1;
            continue;
        }
        let style = Style {
            colour: match cell.fgcolor() {
                vt100::Color::Idx(number) if number < 16 => Some(number),
                _ => None,
            },
            bold: cell.bold(),
            dim: cell.dim(),
        };
        match line.last_mut() {
            Some(last) if blanks < 2 && last.style == style => {
                last.text.push_str(&" ".repeat(blanks));
                last.text.push_str(text);
            }
            _ => line.push(Piece {
                column: usize::from(column),
                text: text.to_owned(),
                style,
            }),
        }
        blanks = 0;
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: NonZero<u16> = NonZero::new(10).unwrap();

    #[test]
    fn what_is_overwritten_is_not_seen() {
        let shown = lines(b"10%\r\x1b[K20%\r\n\r\n", TEN).unwrap();
        assert_eq!(shown.iter().map(text).collect::<Vec<_>>(), ["20%"]);
    }

    #[test]
    fn a_long_line_goes_on_below() {
        let shown = lines(b"0123456789ab", TEN).unwrap();
        assert_eq!(
            shown.iter().map(text).collect::<Vec<_>>(),
            ["0123456789", "ab"]
        );
    }

    #[test]
    fn columns_and_styles_are_pieces_of_their_own() {
        let shown = lines(b"a b  \x1b[1;32mc\x1b[m", TEN).unwrap();
        let piece = |column, text: &str, style| Piece {
            column,
            text: text.to_owned(),
            style,
        };
        let green = Style {
            colour: Some(2),
            bold: true,
            dim: false,
        };
        let line = vec![piece(0, "a b", Style::default()), piece(5, "c", green)];
        assert_eq!(text(&line), "a b  c");
        assert_eq!(shown, [line]);
    }
}
