//! The styles of our words on a terminal. They are those of clap, which prints help and usage errors next to them, and
//! are only used where a person reads and wants colours: `NO_COLOR`, `CLICOLOR` and `TERM` have the same effect as for
//! clap.

use std::borrow::Cow;
use std::io::IsTerminal;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style, Styles};

const STYLES: Styles = Styles::styled();

/// What has failed.
pub(super) const BAD: Style = *STYLES.get_error();
/// What has succeeded, or helps.
pub(super) const GOOD: Style = *STYLES.get_valid();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// The first words of a line, which help to find it.
const LABELS: [(&str, Style); 6] = [
    ("error:", BAD),
    ("problem:", BAD),
    ("warning:", WARNING),
    ("notice:", WARNING),
    ("hint:", GOOD),
    ("ok:", GOOD),
];

/// Whether a stream is a terminal that shows colours. Nothing forces them into a file or a pipe, which programs read.
pub(super) fn is_wanted(stream: &(impl RawStream + IsTerminal)) -> bool {
    IsTerminal::is_terminal(stream) && AutoStream::choice(stream) != ColorChoice::Never
}

/// `text` with its labels in colour. It has to be harmless already.
pub(super) fn with_labels(text: &str, is_wanted: bool) -> Cow<'_, str> {
    if !is_wanted {
        return Cow::Borrowed(text);
    }
    let lines = text.split_inclusive('\n').map(|line| {
        let rest = line.trim_start_matches(' ');
        let indent = &line[..line.len() - rest.len()];
        let found = LABELS
            .iter()
            .find_map(|(label, style)| Some((label, style, rest.strip_prefix(label)?)));
        match found {
            Some((label, style, rest)) => {
                Cow::Owned(format!("{indent}{}{rest}", painted(label, *style)))
            }
            None => Cow::Borrowed(line),
        }
    });
    Cow::Owned(lines.collect())
}

/// `text` in a style.
pub(super) fn painted(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_line_is_in_colour_and_nothing_else() {
        let text = "error: no room: error: 5\nhint: make some\n    hint: more\nan error: none\n";
        assert_eq!(with_labels(text, false), text);
        assert_eq!(
            with_labels(text, true),
            "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m no room: error: 5\n\
             \u{1b}[32mhint:\u{1b}[0m make some\n    \u{1b}[32mhint:\u{1b}[0m more\n\
             an error: none\n"
        );
    }
}
