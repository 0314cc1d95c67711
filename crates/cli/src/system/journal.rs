//! The journal's text as this program shows it: an entry of several lines, such as a traceback, is not indented by the
//! width of the time and the unit's name.

/// The output format of `journalctl` in which each line starts with the unit; the same for one unit and for many.
pub(crate) const FORM: &str = "with-unit";
/// Indentation of the further lines of an entry.
const INDENT: usize = 4;

/// Lines as journalctl prints them, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Number of characters before the text of an entry; journalctl indents the further lines by the same number.
    prefix: usize,
}

impl Lines {
    /// The line as it is shown, and whether it continues the previous entry.
    pub(crate) fn next(&mut self, line: &str) -> (String, bool) {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        if self.prefix > INDENT && blanks >= self.prefix {
            return (
                format!("{}{}", " ".repeat(INDENT), &line[self.prefix..]),
                true,
            );
        }
        self.prefix = line
            .find("]: ")
            .map_or(0, |end| line[..end].chars().count() + 3);
        (line.to_owned(), false)
    }
}

/// The last `most` lines of a text of the journal, with no more than `further` lines of each entry behind its first.
pub(crate) fn last_lines(text: &str, most: usize, further: usize) -> Vec<String> {
    let mut lines = Lines::default();
    let mut shown: Vec<String> = Vec::new();
    let mut left_out = 0;
    let mut seen = 0;
    let close = |shown: &mut Vec<String>, left_out: &mut usize| {
        if *left_out > 0 {
            shown.push(format!("{}... {left_out} more lines", " ".repeat(INDENT)));
            *left_out = 0;
        }
    };
    for line in text.lines() {
        let (line, goes_on) = lines.next(line);
        seen = if goes_on { seen + 1 } else { 0 };
        if seen > further {
            left_out += 1;
            continue;
        }
        if !goes_on {
            close(&mut shown, &mut left_out);
        }
        shown.push(line);
    }
    close(&mut shown, &mut left_out);
    shown.split_off(shown.len().saturating_sub(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Sun 2026-11-29 16:14:11 UTC buildbot-master.service[12]: one
Sun 2026-11-29 16:14:12 UTC buildbot-worker@gpu.service[13]: Traceback
                                                               File \"x\", line 1
                                                               File \"y\", line 2
                                                             ValueError: ö
Sun 2026-11-29 16:14:13 UTC buildbot-master.service[12]: two
-- Boot 0123 --
";

    #[test]
    fn further_lines_of_an_entry_are_indented_a_little() {
        let mut lines = Lines::default();
        let shown: Vec<String> = TEXT.lines().map(|line| lines.next(line).0).collect();
        assert_eq!(shown[1], TEXT.lines().nth(1).unwrap());
        assert_eq!(shown[2], "      File \"x\", line 1");
        assert_eq!(shown[4], "    ValueError: ö");
        assert_eq!(shown[6], "-- Boot 0123 --");
    }

    #[test]
    fn a_long_entry_leaves_room_for_the_others() {
        let shown = last_lines(TEXT, 10, 1);
        assert_eq!(shown[3], "    ... 2 more lines");
        assert_eq!(shown.len(), 6);
        assert_eq!(last_lines(TEXT, 2, 1), shown[4..]);
        assert!(last_lines("", 10, 1).is_empty());
    }
}
