//! Properties that hold for every text that this crate reads or writes, tested with random texts.
//!
//! `cargo xtask fuzz` tries many more of them. A text that violates one becomes a row in the tests of its module.

use proptest::prelude::*;

use crate::dropin::DropIn;
use crate::escape;
use crate::foreign_text::{ForeignText, harmless_lines, is_plain};
use crate::settings::Settings;
use crate::starter::{Details, WorkerName};
use crate::unit_text::{self, Setting};
use crate::workers;

/// Characters that mean something to a unit file, a shell or a terminal, among others.
const SPECIAL: &str =
    "[ \t\r\n\\\\\"'%$#;=:,\\[\\]/.a-c\u{a0}\u{e9}\u{feff}\u{85}\u{2028}\u{202e}\u{1b}]{0,12}";

fn text() -> impl Strategy<Value = String> {
    prop_oneof![SPECIAL, any::<String>()]
}

/// Text of several lines as unit files have them.
fn unit_file() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("[Service]".to_owned()),
        Just("ExecStart=".to_owned()),
        "[#;][a-z =\\\\]{0,6}",
        "[A-C]{1,2} ?= ?[a-c \"'%\\\\]{0,8}\\\\?",
        text(),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

fn path() -> impl Strategy<Value = String> {
    let component = prop_oneof![SPECIAL, "[a-c \"'%\\\\:;$#@!-]{1,8}", "\\PC{1,6}"];
    prop::collection::vec(component, 1..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

/// What systemd reads of a value behind `K=` in a unit file: nothing else, and on no other line.
fn read_back(value: &str) -> String {
    let settings = unit_text::parse("u", &format!("[S]\nK={value}\nL=last\n"));
    let [first, last] = &settings[..] else {
        panic!("`{value}` is not one setting: {settings:?}");
    };
    assert_eq!(
        (last.key.as_str(), last.value.as_str(), last.place.line),
        ("L", "last", 3)
    );
    first.value.clone()
}

fn specifiers_filled(text: &str) -> String {
    unit_text::specifiers(text, "buildbot-master.service", "/root").unwrap()
}

/// A value that is a single word.
fn only_word(value: &str) -> String {
    let words = unit_text::words(&read_back(value)).unwrap();
    let [word] = &words[..] else {
        panic!("`{value}` is not one word: {words:?}");
    };
    specifiers_filled(word)
}

proptest! {
    #[test]
    fn a_unit_file_is_read_whatever_it_has(text in unit_file(), unit in SPECIAL) {
        let lines = 1 + text.matches(['\n', '\r', '\0']).count();
        for setting in unit_text::parse("u", &text) {
            prop_assert!((1..=lines).contains(&setting.place.line));
            prop_assert!(!setting.value.contains(['\n', '\r']) && setting.value.len() <= text.len());
            let _ = unit_text::starts_launcher(&setting.value);
            let _ = unit_text::words(&setting.value);
            let _ = unit_text::specifiers(&setting.value, &unit, "/root");
        }
    }

    #[test]
    fn comments_between_lines_change_nothing(text in unit_file(), comment in "[ \t]{0,2}[#;][^\n\r\x00]{0,12}") {
        let fields = |text: &str| -> Vec<(String, String, String)> {
            let settings = unit_text::parse("u", text);
            let fields = |setting: Setting| (setting.section, setting.key, setting.value);
            settings.into_iter().map(fields).collect()
        };
        let commented: Vec<String> = text.split('\n').map(|line| format!("{line}\n{comment}")).collect();
        prop_assert_eq!(fields(&text), fields(&commented.join("\n")));
    }

    #[test]
    fn words_in_quotes_are_read_back(parts in prop::collection::vec("[^\\x00]{0,8}", 0..5)) {
        let quoted: Vec<String> = parts
            .iter()
            .map(|part| format!("\"{}\"", part.replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        prop_assert_eq!(unit_text::words(&quoted.join(" \t")), Some(parts));
    }

    #[test]
    fn words_end_at_the_blanks_of_systemd_alone(parts in prop::collection::vec("[^\\\\\"' \t\r\n]{1,8}", 0..5)) {
        prop_assert_eq!(unit_text::words(&parts.join(" \t")), Some(parts));
    }

    #[test]
    fn a_path_is_the_same_for_systemd_or_refused(path in path()) {
        if let Ok(value) = escape::line_path(&path) {
            let read = specifiers_filled(&read_back(&value));
            prop_assert_eq!(read.strip_suffix('/').unwrap_or(&read), &path);
        }
        if let Ok(value) = escape::word_path("-", &path) {
            prop_assert_eq!(only_word(&value), format!("-{path}"));
        }
        if let Ok(value) = escape::bind_path(&path) {
            prop_assert_eq!(only_word(&value), format!("-{path}"));
            // Else it would be the end of the source.
            prop_assert!(!path.contains(':') || value.starts_with('"'));
        }
        if let Ok(value) = escape::credential("name", &path) {
            let read = specifiers_filled(&read_back(&value));
            prop_assert_eq!(read, format!("name:{path}"));
        }
        if let Ok(value) = escape::account(&path[1..]) {
            prop_assert_eq!(specifiers_filled(&read_back(&value)), &path[1..]);
        }
    }

    #[test]
    fn a_drop_in_says_what_was_decided_and_nothing_else(directory in path(), environment in path(), strict in any::<bool>()) {
        let hardening = if strict { "strict" } else { "standard" };
        let configuration = format!(
            "[master]\ndirectory = {}\nconda-root = \"/opt/c\"\nconda-env = {}\nuser = \"bb\"\nhardening = \"{hardening}\"\n",
            quoted(&directory),
            quoted(&environment)
        );
        let settings = Settings::parse("config.toml", configuration.as_bytes());
        for instance in settings.instances() {
            let Ok(drop_in) = DropIn::of(instance) else { continue };
            let read = unit_text::parse("u", &drop_in.text());
            let read = read.iter().map(|one| (one.section.as_str(), one.key.as_str(), one.value.as_str()));
            let directives = drop_in.directives();
            let decided = directives.iter().map(|one| (one.section, one.key, one.value.trim_end_matches(' ')));
            prop_assert_eq!(read.collect::<Vec<_>>(), decided.collect::<Vec<_>>());
        }
    }

    #[test]
    fn foreign_text_shows_nothing_hidden(text in any::<String>(), special in SPECIAL) {
        for text in [text, special] {
            let shown = ForeignText::new(&text);
            prop_assert!(is_plain(&shown), "{:?}", shown);
            prop_assert_eq!(shown.exact(), is_plain(&text).then_some(text.as_str()));
            prop_assert!(ForeignText::new(&shown).exact().is_some());
            // No character has a longer escape than `\u{10ffff}`.
            prop_assert!(shown.len() <= 10 * text.len());
            let lines = harmless_lines(&text);
            prop_assert!(lines.split(['\n', '\t']).all(is_plain));
            prop_assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
        }
    }

    #[test]
    fn foreign_bytes_are_exact_where_they_are_text(bytes in any::<Vec<u8>>()) {
        let shown = ForeignText::of_bytes(&bytes);
        prop_assert!(is_plain(&shown));
        if let Some(exact) = shown.exact() {
            prop_assert_eq!(str::from_utf8(&bytes).unwrap().trim(), exact);
        }
        prop_assert!(ForeignText::lines_of(&bytes).iter().all(|line| is_plain(line)));
    }

    #[test]
    fn a_list_of_workers_keeps_everything_else(
        (names, list) in worker_list(),
        above in "([a-z =]{0,6}\r?\n)?",
        end in prop_oneof![Just(""), Just("  # mine, ] and \""), Just("\r")],
        new in "[a-z_]{1,5}-new",
    ) {
        let begin = format!("{above}WORKERS = ");
        let rest = format!("{end}\nc[\"workers\"] = list(WORKERS)\n");
        let text = format!("{begin}{list}{rest}");
        let found = workers::find(&text);
        // What is not understood is left alone; what people write must be understood.
        let is_usual = !list.lines().skip(1).any(|line| line.trim_start().starts_with(','));
        prop_assert!(found.is_some() || !is_usual, "{}", text);
        let Some(found) = found else { return Ok(()) };
        prop_assert_eq!(found.names().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
        let name: WorkerName = new.parse().unwrap();
        let more = found.with(&name);
        let with: Vec<&str> = names.iter().map(String::as_str).chain([new.as_str()]).collect();
        check_list(&more, &begin, &rest, &with, comments(&text))?;
        for old in &names {
            let Some(less) = found.without(old) else {
                prop_assert_eq!(names.len(), 1);
                continue;
            };
            let left: Vec<&str> = names.iter().map(String::as_str).filter(|name| name != old).collect();
            // A comment on the line of a name goes with it.
            check_list(&less, &begin, &rest, &left, 0)?;
        }
    }

    #[test]
    fn whatever_was_made_of_the_list_is_read(text in "(WORKERS ?= ?)?[\\[\\]\"'#,\n a\\\\]{0,20}(\nx(WORKERS))?") {
        if let Some(found) = workers::find(&text) {
            let more = found.with(&"new".parse().unwrap());
            let names: Vec<&str> = found.names().chain(["new"]).collect();
            prop_assert_eq!(
                workers::find(&more).map(|list| list.names().map(str::to_owned).collect::<Vec<_>>()),
                Some(names.into_iter().map(str::to_owned).collect())
            );
        }
    }
}

#[cfg(all(feature = "edit", feature = "render"))]
proptest! {
    #[test]
    fn a_table_of_workers_keeps_everything_else(
        above in "(# [^\\x00-\\x1f\\x7f]{0,6}\n)?",
        names in prop::collection::btree_set("[a-y]{1,4}", 0..5),
        inner in "(a ?= ?1 ?# x\n)?",
        end in "(# last)?",
    ) {
        let tables = names.iter().map(|name| format!("\n# {name}\n[{name}]\n{inner}"));
        let text = above + &tables.collect::<String>() + &end;
        let table = crate::worker_table::read(&text);
        prop_assert!(table.is_some(), "{}", text);
        let more = table.unwrap().with(&"z".parse().unwrap(), &Details::default());
        prop_assert!(more.starts_with(&text));
        let table = crate::worker_table::read(&more);
        prop_assert!(table.as_ref().is_some_and(|table| table.contains("z")), "{}", more);
        let table = table.unwrap();
        for old in &names {
            let less = table.without(old).unwrap();
            let gone = format!("[{old}]\n{inner}");
            prop_assert_eq!(less.len() + format!("\n# {old}\n{gone}").len(), more.len(), "{}", less);
            prop_assert!(!less.contains(&gone) || names.len() > 1);
            let left = crate::worker_table::read(&less).unwrap();
            prop_assert!(!left.contains(old) && left.contains("z"));
            prop_assert!(names.iter().all(|name| name == old || left.contains(name)));
        }
    }
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    let characters = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    });
    format!("\"{}\"", characters.collect::<String>())
}

/// Names, and a list of them in one of the ways in which Python lets it be written.
fn worker_list() -> impl Strategy<Value = (Vec<String>, String)> {
    let blank = || {
        prop_oneof![
            4 => Just(String::new()),
            2 => Just(" ".to_owned()),
            2 => Just("\n    ".to_owned()),
            1 => Just("\r\n\t".to_owned()),
            1 => "  # [\"',\\]]{0,3} z#\n",
        ]
    };
    let names = prop::collection::btree_set("[a-y0-9 ]{1,12}", 0..12);
    let names = names.prop_map(|names| names.into_iter().collect::<Vec<_>>());
    let name = (blank(), prop_oneof![Just('"'), Just('\'')], blank());
    let ways = prop::collection::vec(name, 12);
    (names, ways, blank(), any::<bool>()).prop_map(|(names, ways, last, comma)| {
        let count = names.len();
        let literals = names.iter().zip(ways).enumerate();
        let literals = literals.map(|(index, (name, (before, quote, after)))| {
            let is_separated = comma || index + 1 < count;
            let comma = if is_separated { "," } else { "" };
            format!("{before}{quote}{name}{quote}{after}{comma}")
        });
        let list = format!("[{}{last}]", literals.collect::<String>());
        (names, list)
    })
}

fn comments(text: &str) -> usize {
    text.matches('#').count()
}

/// The list contains these names in this order, as Python reads it, and the rest of the file is unchanged.
fn check_list(
    text: &str,
    begin: &str,
    rest: &str,
    names: &[&str],
    at_least: usize,
) -> Result<(), TestCaseError> {
    let list = text
        .strip_prefix(begin)
        .and_then(|text| text.strip_suffix(rest));
    prop_assert!(list.is_some(), "{}", text);
    let again = workers::find(text);
    prop_assert!(again.is_some(), "{}", text);
    let found: Vec<String> = again
        .iter()
        .flat_map(|list| list.names().map(str::to_owned))
        .collect();
    prop_assert_eq!(found, names, "{}", text);
    prop_assert!(comments(text) >= at_least, "{}", text);
    Ok(())
}
