//! What holds for every script, tried with scripts that nobody thought of. `cargo xtask fuzz` tries many more; a script
//! that was found becomes a row in the tests of the reader.

use std::cell::Cell;
use std::collections::BTreeMap;

use buildbot_conda_core::foreign_text::is_plain;
use buildbot_conda_core::unit_text::Place;
use proptest::prelude::*;

use super::reading::{Reader, Reading};
use super::shell::{Scope, Script};

/// Words and signs of a shell in any order, unfinished and nested, among those that matter here.
fn script() -> impl Strategy<Value = String> {
    let sign = "[ \t\n;&|<>(){}'\"`$\\\\#=*~!?\\[\\]-]{1,3}";
    let word = prop::sample::select(vec![
        "if",
        "then",
        "fi",
        "for",
        "done",
        "case",
        "esac",
        "nice",
        "exec",
        "sh -c",
        "conda run",
        "python -m",
        "buildbot start",
        "A=",
        "$A",
        "${A:-x}",
        "$(dirname \"$0\")",
        "<<EOF",
        "EOF\n",
        "cd",
        "x",
        "/s.sh",
        "/t.sh",
        "export PATH=$HOME/c/bin",
        "eval",
        "conda activate",
        "-n",
        "twistd",
        "m/buildbot.tac",
        "\\\n",
        "source",
    ]);
    let part = prop_oneof![4 => word.prop_map(|word| format!("{word} ")), 4 => sign, 1 => "\\PC{1,3}", 1 => any::<String>()];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

/// Whole lines as they are in scripts of people, and some that lead back to where they are.
fn lines() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        2 => prop::sample::select(vec![
            "A='sh -c \"$A\"'", "A='nice $A'", "A=$A$A$A", "sh -c \"$A\"", "cd a/../b", "cd \"$A\"", "/s.sh $A", ". /t.sh",
            "sh /t.sh", "export A B=$A", "exec buildbot start --nodaemon m", "conda activate \"$A\"", "PATH=$HOME/bin:$PATH",
        ]).prop_map(str::to_owned),
        1 => script(),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// What is read of these two scripts, and how often one was asked for.
fn read(one: &str, other: &str) -> (Reading, usize) {
    let count = Cell::new(0);
    let look = |path: &str| {
        count.set(count.get() + 1);
        match path {
            "/s.sh" => Ok(one.to_owned()),
            "/t.sh" => Ok(other.to_owned()),
            _ => Err("no such file".to_owned()),
        }
    };
    let variables = BTreeMap::from([("HOME".to_owned(), "/home/bb".to_owned())]);
    let place = Place {
        file: "unit".to_owned(),
        line: 1,
    };
    let reader = Reader::new(&look, &variables, "/home/bb");
    let reading = reader.command_line(&place, &["/s.sh".to_owned()]);
    (reading, count.get())
}

proptest! {
    #[test]
    fn a_script_is_read_to_its_end_and_nothing_is_added(text in script()) {
        let scope = Scope {
            variables: BTreeMap::from([("A".to_owned(), Some("x".repeat(1000)))]),
            arguments: vec!["/s.sh".to_owned()],
        };
        let mut script = Script::new(&text);
        let (mut last, mut written) = (1, 0);
        while let Some(command) = script.next(&scope) {
            prop_assert!(command.line >= last, "{} after {last}", command.line);
            last = command.line;
            prop_assert!(!command.words.is_empty() || command.unknown.is_some());
            written += command.words.iter().map(|word| word.raw.len()).sum::<usize>();
        }
        prop_assert!(last <= 1 + text.matches('\n').count());
        prop_assert!(written <= text.len());
    }

    #[test]
    fn quoted_words_are_what_they_were(words in prop::collection::vec("[^\\x00]{0,8}", 1..5), blank in "( |\t| \\\\\n)") {
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let text = format!("x {} # 'y\nlast", line.join(&blank));
        let mut script = Script::new(&text);
        let command = script.next(&Scope::default()).unwrap();
        let known: Vec<String> = command.words[1..].iter().filter_map(|word| word.value.clone()).collect();
        prop_assert_eq!(known, words);
        let last = script.next(&Scope::default()).unwrap();
        prop_assert_eq!(last.words[0].known(), "last");
        prop_assert_eq!(last.line, 1 + text.matches('\n').count());
        prop_assert_eq!(script.next(&Scope::default()), None);
    }

    #[test]
    fn what_is_exported_is_taken_over_as_it_is(value in "[^\\x00]{0,12}", is_at_once in any::<bool>()) {
        let value_quoted = quoted(&value);
        let text = if is_at_once {
            format!("export A={value_quoted}\n")
        } else {
            format!("B={value_quoted}\nA=\"$B\"\nexport A; unset B\n")
        };
        let (reading, _) = read(&text, "");
        let found = reading.exported.get("A").map(|found| found.value.as_str());
        prop_assert_eq!(found, Some(value.as_str()));
    }

    #[test]
    fn scripts_that_call_each_other_come_to_an_end(one in lines(), other in lines()) {
        let (reading, count) = read(&one, &other);
        prop_assert!(count <= 1100, "{count}");
        // Either it is known what starts, or why it is not.
        prop_assert!(reading.start.is_some() || !reading.problems.is_empty());
        for remark in reading.problems.iter().chain(&reading.left) {
            prop_assert!(is_plain(&remark.text), "{}", remark.text);
            prop_assert!(remark.text.len() < 20_000);
        }
        if let Some(start) = &reading.start {
            let (_, directory) = &start.value;
            prop_assert!(directory.starts_with('/') && !directory.split('/').any(|part| part == ".."));
        }
        for found in reading.exported.values() {
            prop_assert!(found.value.len() <= (1 << 16) + one.len() + other.len());
        }
    }
}
