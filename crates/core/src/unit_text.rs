//! The text of unit files as systemd reads it (systemd.syntax(7)): sections, settings with their
//! lines, command lines as words. Nothing is looked up here.

use std::collections::BTreeMap;

use crate::paths;

/// One setting, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Without its brackets.
    pub section: String,
    /// The part before the first `=`.
    pub key: String,
    /// Behind it, without the blanks around it.
    pub value: String,
    /// The file as it is shown to people, and the line on which its value starts.
    pub place: Place,
}

/// Where something was read: a file, and a line counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As it is shown to people.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// Characters that systemd treats as blanks between and around words.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Lines without comments and surrounding blanks, each with the number of the line on which it starts. A line that ends
/// with a backslash continues on the next line that is not a comment, systemd.syntax(7); an escaped backslash does not
/// continue a line.
pub fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    let mut begun: Option<(usize, String)> = None;
    for (index, line) in physical_lines(text).enumerate() {
        if line.trim_start_matches(BLANKS).starts_with(['#', ';']) {
            continue;
        }
        let (number, mut whole) = begun.take().unwrap_or((index + 1, String::new()));
        whole.push_str(line);
        let backslashes = whole.len() - whole.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            whole.pop();
            whole.push(' ');
            begun = Some((number, whole));
        } else {
            lines.push((number, whole.trim_matches(BLANKS).to_owned()));
        }
    }
    // The last line of a file may end in a backslash, too.
    lines.extend(begun.map(|(number, whole)| (number, whole.trim_matches(BLANKS).to_owned())));
    lines
}

/// Lines as systemd's `read_line()` ends them: by a line feed, a carriage return, or both in any order, each perhaps with a
/// NUL behind it, or by a NUL alone.
fn physical_lines(text: &str) -> impl Iterator<Item = &str> {
    const ENDS: [&str; 8] = [
        "\r\n\0", "\n\r\0", "\r\n", "\n\r", "\r\0", "\n\0", "\n", "\r",
    ];
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['\n', '\r', '\0']).unwrap_or(rest.len());
        let (line, behind) = rest.split_at(end);
        let known = ENDS.iter().find_map(|end| behind.strip_prefix(end));
        rest = known.or(behind.strip_prefix('\0')).unwrap_or_default();
        Some(line)
    })
}

/// The settings of one file, as systemd's `config_parse()` reads it. A line that is not an assignment is skipped. After
/// a header without its closing bracket, systemd stops reading and refuses the unit, so this function stops there too.
pub fn parse(file: &str, text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut section = String::new();
    for (line, whole) in logical_lines(text) {
        if let Some(header) = whole.strip_prefix('[') {
            let Some(name) = header.strip_suffix(']') else {
                break;
            };
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=')
            && !key.is_empty()
        {
            settings.push(Setting {
                section: section.clone(),
                key: key.trim_matches(BLANKS).to_owned(),
                value: value.trim_matches(BLANKS).to_owned(),
                place: Place {
                    file: file.to_owned(),
                    line,
                },
            });
        }
    }
    settings
}

/// The effective assignments of a list such as `ExecStart=`: an empty assignment removes those before it.
pub fn in_force<'a>(settings: &'a [Setting], section: &str, key: &str) -> Vec<&'a Setting> {
    let mut found = Vec::new();
    for setting in settings {
        if setting.section != section || setting.key != key {
            continue;
        }
        if setting.value.is_empty() {
            found.clear();
        } else {
            found.push(setting);
        }
    }
    found
}

/// Whether a command line starts our launcher, directly or as a word of a wrapper such as `nice` or `sh -c`. A name
/// that only has it as a prefix is another program.
pub fn starts_launcher(command: &str) -> bool {
    let Some(words) = words(command) else {
        return false;
    };
    let mut words = words.iter().map(String::as_str);
    // `-`, `@`, `:`, `+`, `!` and `|` are prefixes that specify how to run it (systemd.service(5)).
    let first = words.next().unwrap_or_default();
    let first = first.trim_start_matches(['-', '@', ':', '+', '!', '|']);
    std::iter::once(first)
        .chain(words)
        .flat_map(|word| word.split(|character: char| !is_of_path(character)))
        .any(|word| simplified(word) == paths::LAUNCHER)
}

/// Whether a character can be part of our launcher's path; a shell would end a word at most others.
fn is_of_path(character: char) -> bool {
    !character.is_whitespace() && !"'\"`$;&|()<>=".contains(character)
}

/// A path in its simplest form, as systemd's `path_simplify()` returns it.
fn simplified(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let root = if path.starts_with('/') { "/" } else { "" };
    root.to_owned() + &parts.collect::<Vec<_>>().join("/")
}

/// Words of a value, split at blanks, with quotes and backslashes removed. `None` if a quote is not closed; systemd
/// ignores such a line.
pub fn words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => word
                .get_or_insert_default()
                .push(unescaped(&mut characters)?),
            (end, Some(begin)) if end == begin => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (blank, None) if BLANKS.contains(&blank) => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn unescaped(characters: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match characters.next()? {
        'n' => '\n',
        't' => '\t',
        's' => ' ',
        'x' => {
            let digits: String = characters.take(2).collect();
            char::from(byte(&digits)?)
        }
        other => other,
    })
}

/// A byte of two hexadecimal digits; a sign is none.
fn byte(digits: &str) -> Option<u8> {
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The meanings of `%` specifiers in an instance's unit, systemd.unit(5). `Err` contains a specifier that this function
/// does not know.
pub fn specifiers(text: &str, unit: &str, home: &str) -> Result<String, String> {
    fill(text, |character| specifier(character, unit, home))
}

/// Fills in specifiers; `Err` has the first for which `resolve` has nothing.
pub(crate) fn fill(text: &str, resolve: impl Fn(char) -> Option<String>) -> Result<String, String> {
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            result.push(character);
            continue;
        }
        match characters.next() {
            Some('%') => result.push('%'),
            Some(character) => {
                let filled = resolve(character);
                result.push_str(&filled.ok_or_else(|| format!("%{character}"))?);
            }
            None => return Err("% ".to_owned()),
        }
    }
    Ok(result)
}

/// The value of one specifier in a unit of the system manager.
pub(crate) fn specifier(character: char, unit: &str, home: &str) -> Option<String> {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let last = prefix.rsplit('-').next().unwrap_or(prefix);
    Some(match character {
        'i' => instance.to_owned(),
        'I' => unescaped_name(instance),
        'p' => prefix.to_owned(),
        'P' => unescaped_name(prefix),
        'j' => last.to_owned(),
        'J' => unescaped_name(last),
        'n' => unit.to_owned(),
        'N' => stem.to_owned(),
        // systemd itself runs as root.
        'h' => home.to_owned(),
        'u' | 'g' => "root".to_owned(),
        'U' | 'G' => "0".to_owned(),
        't' => "/run".to_owned(),
        'S' => "/var/lib".to_owned(),
        'C' => "/var/cache".to_owned(),
        'L' => "/var/log".to_owned(),
        'E' => "/etc".to_owned(),
        'T' => "/tmp".to_owned(),
        'V' => "/var/tmp".to_owned(),
        _ => return None,
    })
}

/// As `systemd-escape --unescape` does: `-` becomes a slash, `\xNN` a byte.
fn unescaped_name(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        let (part, after) = rest.split_at(character.len_utf8());
        let digits = rest.strip_prefix("\\x").and_then(|text| text.get(..2));
        if let Some(byte) = digits.and_then(byte) {
            bytes.push(byte);
            rest = &rest[4..];
            continue;
        }
        let plain = if part == "-" { "/" } else { part };
        bytes.extend(plain.as_bytes());
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Expands `$NAME` as a separate word and `${NAME}` anywhere, as systemd does (systemd.service(5), "Command lines"); an
/// unset variable is empty.
pub fn variables(words: &[String], values: &BTreeMap<String, String>) -> Vec<String> {
    let mut result = Vec::new();
    for word in words {
        let name = word.strip_prefix('$').filter(|name| is_name(name));
        match name {
            Some(name) => {
                let value = values.get(name).map_or("", String::as_str);
                let parts = value.split(BLANKS).filter(|part| !part.is_empty());
                result.extend(parts.map(str::to_owned));
            }
            None => result.push(braced(word, values)),
        }
    }
    result
}

fn braced(word: &str, values: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let inner = after
            .strip_prefix('{')
            .and_then(|text| text.split_once('}'));
        rest = if let Some((name, behind)) = inner.filter(|(name, _)| is_name(name)) {
            result.push_str(values.get(name).map_or("", String::as_str));
            behind
        } else {
            result.push('$');
            after.strip_prefix('$').unwrap_or(after)
        };
    }
    result + rest
}

/// Whether a text can be the name of a variable.
pub fn is_name(text: &str) -> bool {
    let start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(start)
        && text
            .bytes()
            .all(|byte| start(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_line_they_begin_on() {
        let settings = parse(
            "u",
            "# x\n[Unit]\nA = 1\n[Service]\nB=2 \\\n# in between\n  3\n; c\nC=\n",
        );
        let shown: Vec<String> = settings
            .iter()
            .map(|setting| {
                let Setting {
                    section,
                    key,
                    value,
                    place,
                } = setting;
                format!("{section} {key} {value} {place}")
            })
            .collect();
        assert_eq!(
            shown,
            ["Unit A 1 u:3", "Service B 2    3 u:5", "Service C  u:9"]
        );
    }

    #[test]
    fn lines_are_joined_as_systemd_joins_them() {
        let check = |text: &str, expect: &[(usize, &str)]| {
            let lines = logical_lines(text);
            let lines: Vec<(usize, &str)> = lines
                .iter()
                .map(|(number, line)| (*number, line.as_str()))
                .collect();
            assert_eq!(lines, expect, "{text:?}");
        };
        check("a\\\n# c\n b\nc", &[(1, "a  b"), (4, "c")]);
        check("a\\\\\nb", &[(1, "a\\\\"), (2, "b")]);
        check("a\\\n\nb", &[(1, "a"), (3, "b")]);
        check("a\\", &[(1, "a")]);
        check("a\\\r", &[(1, "a")]);
        check(
            "a\rb\r\nc\n\rd\0e\n\nf",
            &[
                (1, "a"),
                (2, "b"),
                (3, "c"),
                (4, "d"),
                (5, "e"),
                (6, ""),
                (7, "f"),
            ],
        );
    }

    #[test]
    fn what_is_no_setting_is_passed_over_as_systemd_does() {
        let shown = |text: &str| {
            let settings = parse("u", text);
            let shown = settings.iter().map(|setting| {
                let Setting {
                    section,
                    key,
                    value,
                    place,
                } = setting;
                format!("{section} {key}={value} {place}")
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(shown("\u{feff}[S]\r\na=x\\\r\n y\r\n"), ["S a=x  y u:2"]);
        assert_eq!(shown("[S]\n=x\nno value\n a = b = c "), ["S a=b = c u:4"]);
        assert_eq!(shown("[S]\n;a=1\\\nb=2\n"), ["S b=2 u:3"]);
        // Nothing follows a header that is none.
        assert_eq!(shown("[S]\na=x\n[T\nb=y"), ["S a=x u:2"]);
    }

    #[test]
    fn an_empty_assignment_takes_back_what_came_before() {
        let text = "[Service]\nE=a\nE=b\n[Unit]\nE=c\n[Service]\nE=\nE=d\nE=e\n";
        let settings = parse("u", text);
        let values = in_force(&settings, "Service", "E");
        let values: Vec<&str> = values.iter().map(|found| found.value.as_str()).collect();
        assert_eq!(values, ["d", "e"]);
    }

    #[test]
    fn a_command_that_starts_the_launcher_is_recognised() {
        let launcher = paths::LAUNCHER;
        for command in [
            format!("{launcher} master"),
            format!("-{launcher} worker %i"),
            format!("@{launcher} name worker"),
            format!("/usr/bin/nice -n 5 {launcher} worker %i"),
            format!("/usr/bin/nice -n 5  \"{launcher}\" worker"),
            format!("/bin/sh -c 'exec {launcher} master'"),
            format!("/bin/sh -c \"ulimit -n 9;exec '{launcher}' master\""),
            format!("/usr/bin/env X=1 {launcher} master"),
            "/usr//libexec/./buildbot-conda/launcher master".to_owned(),
        ] {
            assert!(starts_launcher(&command), "{command}");
        }
        for command in [
            String::new(),
            "/home/bb/start-master.sh".to_owned(),
            format!("{launcher}-old master"),
            format!("{launcher}.sh master"),
            format!("{launcher}/master"),
            format!("/opt{launcher} master"),
            format!("/bin/x '{launcher}"),
            "/bin/x launcher".to_owned(),
        ] {
            assert!(!starts_launcher(&command), "{command}");
        }
    }

    #[test]
    fn words_lose_their_quotes_and_backslashes() {
        let text = r#"/bin/bash -lc 'cd "a b" && x' "q\"q" a\x41b '' e\sf"#;
        let expect = [
            "/bin/bash",
            "-lc",
            "cd \"a b\" && x",
            "q\"q",
            "aAb",
            "",
            "e f",
        ];
        assert_eq!(words(text).unwrap(), expect);
        assert_eq!(words("a 'b"), None);
        assert_eq!(words("a\\x4"), None);
        assert_eq!(words("a\\x+4"), None);
        // Not everything that is white is a blank to systemd.
        assert_eq!(words("a\u{a0}b\u{b}").unwrap(), ["a\u{a0}b\u{b}"]);
    }

    #[test]
    fn specifiers_and_variables_are_filled_in() {
        let filled = specifiers("%h/%i-%p-%N%%", "buildbot-worker@gpu.service", "/root");
        assert_eq!(
            filled.unwrap(),
            "/root/gpu-buildbot-worker-buildbot-worker@gpu%"
        );
        assert_eq!(specifiers("%q", "x.service", ""), Err("%q".to_owned()));
        assert_eq!(specifiers("x%", "x.service", ""), Err("% ".to_owned()));
        let filled = specifiers("%I %P %j %t", "buildbot-worker@a-b\\x2dc.service", "");
        assert_eq!(filled.unwrap(), "a/b-c buildbot/worker worker /run");
        let filled = specifiers("%i %I", "x@a\\x+1.service", "");
        assert_eq!(filled.unwrap(), "a\\x+1 a\\x+1");
        let values = BTreeMap::from([("A".to_owned(), "x y".to_owned())]);
        let words = ["$A", "${A}/z", "$AB/c", "$$A", "$5"].map(str::to_owned);
        assert_eq!(
            variables(&words, &values),
            ["x", "y", "x y/z", "$AB/c", "$A", "$5"]
        );
    }
}
