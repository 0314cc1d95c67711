//! A terminal as an SVG that looks the same everywhere: every piece of text is at its column and as wide as its number of
//! characters, whatever font there is. Nothing in it depends on the day or the machine that draws.

use std::fmt::Write as _;
use std::num::NonZero;

use super::terminal::{Line, Piece, Shown, Style, text};

/// Width of a character, in the picture's units.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 19.0;
const MARGIN: f64 = 16.0;
/// From the top of a line to the baseline of its letters.
const FOOT: f64 = 14.0;

/// Dark enough for a bright page, and with an edge that is seen on a dark one.
const PAPER: &str = "#1f2430";
const EDGE: &str = "#4b5263";
const INK: &str = "#d8dee9";
const FAINT: &str = "#8f98aa";
/// The colours 0 to 7 and the bright ones, each readable on the paper.
const COLOURS: [&str; 16] = [
    "#6b7489", "#ef7b85", "#98c379", "#e0b970", "#74b2f0", "#ca8fe0", "#62bfca", "#d8dee9",
    "#8f98aa", "#ef7b85", "#98c379", "#e0b970", "#74b2f0", "#ca8fe0", "#62bfca", "#ffffff",
];

/// Seconds that a reader of a moving picture has for a command before its output, for a line of output, and after the
/// output of a command.
const READING: f64 = 1.2;
const NEXT_LINE: f64 = 0.15;
const PAUSE: f64 = 1.5;
/// Each line appears at its moment. Where nothing moves, all of them are visible.
const MOVEMENT: &str = "<style>@keyframes appear{from{opacity:0}to{opacity:0}}g[style]{animation:appear 1ms backwards}\
    @media (prefers-reduced-motion:reduce){g[style]{animation:none}}</style>";

const FAINTLY: Style = Style {
    colour: None,
    bold: false,
    dim: true,
};

const TYPED: Style = Style {
    colour: None,
    bold: true,
    dim: false,
};

/// Commands and what they showed.
pub(super) struct Drawing {
    title: String,
    columns: NonZero<u16>,
    lines: Vec<Line>,
    /// Of each line, when it appears, in seconds.
    moments: Vec<f64>,
    /// When the next one does.
    clock: f64,
    is_moving: bool,
}

impl Drawing {
    /// An empty one; `title` is for those who do not see it.
    pub(super) fn new(title: &str, columns: NonZero<u16>) -> Self {
        Self {
            title: title.to_owned(),
            columns,
            lines: Vec::new(),
            moments: Vec::new(),
            clock: 0.0,
            is_moving: false,
        }
    }

    /// The same as a moving picture, in which one line after the other appears.
    pub(super) fn moving(self) -> Self {
        Self {
            is_moving: true,
            ..self
        }
    }

    fn add(&mut self, line: Line) {
        self.lines.push(line);
        self.moments.push(self.clock);
    }

    /// A prompt of root, and the typed text on one or more lines.
    pub(super) fn command(&mut self, words: &str) {
        if !self.lines.is_empty() {
            self.clock += PAUSE;
            self.add(Line::new());
        }
        for (number, words) in words.lines().enumerate() {
            let prompt = if number == 0 { "#" } else { ">" };
            let typed = words.trim_start();
            let column = 2 + words.chars().count() - typed.chars().count();
            self.add(vec![piece(0, prompt, FAINTLY), piece(column, typed, TYPED)]);
        }
        self.clock += READING;
    }

    /// The output without the lines that `keep` rejects; omitted lines are marked.
    pub(super) fn shown(&mut self, shown: &Shown, mut keep: impl FnMut(&str) -> bool) {
        let mut omitting = false;
        for line in &shown.lines {
            if keep(&text(line)) {
                self.add(line.clone());
                omitting = false;
            } else if omitting {
                continue;
            } else {
                self.add(vec![piece(0, "[...]", FAINTLY)]);
                omitting = true;
            }
            self.clock += NEXT_LINE;
        }
    }

    /// The picture's text.
    pub(super) fn svg(&self) -> String {
        let width = WIDTH.mul_add(f64::from(self.columns.get()), 2.0 * MARGIN);
        let lines = u16::try_from(self.lines.len()).expect("a picture has few lines");
        let height = HEIGHT.mul_add(f64::from(lines), 2.0 * MARGIN);
        let mut svg = String::new();
        let mut add = |line: std::fmt::Arguments<'_>| {
            svg.write_fmt(line).expect("writing to a string succeeds");
            svg.push('\n');
        };
        add(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.1}" height="{height:.1}" viewBox="0 0 {width:.1} {height:.1}">"#
        ));
        add(format_args!("<title>{}</title>", escaped(&self.title)));
        add(format_args!(
            r#"<rect x="0.5" y="0.5" width="{:.1}" height="{:.1}" rx="8" fill="{PAPER}" stroke="{EDGE}"/>"#,
            width - 1.0,
            height - 1.0
        ));
        add(format_args!(
            r#"<g fill="{INK}" font-size="14" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace">"#
        ));
        if self.is_moving {
            add(format_args!("{MOVEMENT}"));
        }
        for (number, (line, moment)) in (0_u16..).zip(self.lines.iter().zip(&self.moments)) {
            let y = HEIGHT.mul_add(f64::from(number), MARGIN + FOOT);
            let is_grouped = self.is_moving && !line.is_empty();
            if is_grouped {
                add(format_args!(r#"<g style="animation-delay:{moment:.2}s">"#));
            }
            for piece in line {
                add(format_args!("{}", drawn(piece, y)));
            }
            if is_grouped {
                add(format_args!("</g>"));
            }
        }
        add(format_args!("</g>"));
        add(format_args!("</svg>"));
        svg
    }
}

fn piece(column: usize, text: &str, style: Style) -> Piece {
    Piece {
        column,
        text: text.to_owned(),
        style,
    }
}

fn drawn(piece: &Piece, y: f64) -> String {
    let units =
        |characters: usize| WIDTH * f64::from(u16::try_from(characters).expect("a line is short"));
    let x = MARGIN + units(piece.column);
    let length = units(piece.text.chars().count());
    let mut attributes = String::new();
    let fill = match piece.style.colour {
        Some(number) => COLOURS.get(usize::from(number)).copied(),
        None => piece.style.dim.then_some(FAINT),
    };
    if let Some(fill) = fill {
        write!(attributes, r#" fill="{fill}""#).expect("writing to a string succeeds");
    }
    if piece.style.bold {
        attributes.push_str(r#" font-weight="bold""#);
    }
    format!(
        r#"<text x="{x:.1}" y="{y:.1}" textLength="{length:.1}" lengthAdjust="spacingAndGlyphs"{attributes}>{}</text>"#,
        escaped(&piece.text)
    )
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::terminal::lines;

    const COLUMNS: NonZero<u16> = NonZero::new(20).unwrap();

    fn drawing(bytes: &[u8], keep: fn(&str) -> bool) -> Drawing {
        let shown = Shown {
            status: 0,
            lines: lines(bytes, COLUMNS).unwrap(),
        };
        let mut drawing = Drawing::new("a & b", COLUMNS);
        drawing.command("x >y");
        drawing.shown(&shown, keep);
        drawing
    }

    #[test]
    fn text_is_escaped_and_at_its_column() {
        let svg = drawing(b"  <a>&\r\n", |_| true).svg();
        assert!(svg.contains("<title>a &amp; b</title>"), "{svg}");
        let text = r#"<text x="32.8" y="49.0" textLength="33.6" lengthAdjust="spacingAndGlyphs">&lt;a&gt;&amp;</text>"#;
        assert!(svg.contains(text), "{svg}");
        assert!(svg.contains(">x &gt;y</text>"), "{svg}");
    }

    #[test]
    fn lines_of_a_moving_picture_appear_one_after_the_other() {
        let svg = drawing(b"a\r\nb\r\n", |_| true).moving().svg();
        let delays: Vec<&str> = svg
            .split("animation-delay:")
            .skip(1)
            .filter_map(|rest| rest.split("s\"").next())
            .collect();
        assert_eq!(delays, ["0.00", "1.20", "1.35"]);
        assert!(!drawing(b"a\r\n", |_| true).svg().contains("animation"));
    }

    #[test]
    fn lines_are_left_out_whole_and_seen_to_be() {
        let drawing = drawing(b"a\r\nb\r\nc\r\nd\r\n", |line| !"bc".contains(line));
        let lines: Vec<String> = drawing.lines.iter().map(text).collect();
        assert_eq!(lines, ["# x >y", "a", "[...]", "d"]);
    }
}
