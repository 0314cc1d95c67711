//! What holds for every script, tried with scripts that nobody thought of. `cargo xtask fuzz` tries many more; a script
//! that was found becomes a row in the tests of the reader.

use std::cell::Cell;

use buildbot_conda_core::foreign_text::is_plain;
use buildbot_conda_core::unit_text::Place;
use proptest::prelude::*;

use super::reading::{Files, Reader, Reading, Variables};
use super::shell::{Node, Parser, Scope};
use super::verdict::Verdict;

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
    let read_file = |path: &str| {
        count.set(count.get() + 1);
        match path {
            "/s.sh" => Ok(one.to_owned()),
            "/t.sh" => Ok(other.to_owned()),
            _ => Err("no such file".to_owned()),
        }
    };
    let variables = Variables::from([("HOME".to_owned(), (Some("/home/bb".to_owned()), None))]);
    let place = Place {
        file: "unit".to_owned(),
        line: 1,
    };
    let files = Files {
        read: &read_file,
        exists: &|path| path.starts_with("/home/bb/c/"),
    };
    let reader = Reader::new(files, &variables, false, "/home/bb");
    let reading = reader.command_line(&place, &["/s.sh".to_owned()]);
    (reading, count.get())
}

proptest! {
    #[test]
    fn a_script_is_read_to_its_end_or_to_what_is_not_known(text in script()) {
        let mut parser = Parser::new(&text);
        let mut count = 0;
        let lines = 1 + text.matches('\n').count();
        loop {
            match parser.next() {
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(unreadable) => {
                    prop_assert!(unreadable.line <= lines + 1);
                    break;
                }
            }
            prop_assert!(count <= text.len());
        }
    }

    #[test]
    fn quoted_words_are_what_they_were(words in prop::collection::vec("[^\\x00]{0,8}", 1..5), blank in "( |\t| \\\\\n)") {
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let text = format!("x {} # 'y\nlast", line.join(&blank));
        let mut parser = Parser::new(&text);
        let Ok(Some(Node::Simple(command))) = parser.next() else { panic!("{text}") };
        let scope = Scope::default();
        let known: Vec<String> = command.words[1..].iter().flat_map(|word| scope.fields(word).unwrap()).collect();
        prop_assert_eq!(known, words);
        let Ok(Some(Node::Simple(last))) = parser.next() else { panic!("{text}") };
        prop_assert_eq!(last.raw(), "last");
        prop_assert_eq!(last.line, 1 + text.matches('\n').count());
        prop_assert_eq!(parser.next(), Ok(None));
    }

    #[test]
    fn what_is_exported_is_taken_over_as_it_is(value in "[^\\x00]{0,12}", is_at_once in any::<bool>()) {
        let value_quoted = quoted(&value);
        let text = if is_at_once {
            format!("export A={value_quoted}\n")
        } else {
            format!("B={value_quoted}\nA=\"$B\"\nexport A; unset B\n")
        };
        let (reading, _) = read(&format!("{text}/home/bb/c/envs/x/bin/buildbot start m\n"), "");
        let start = reading.start.unwrap();
        prop_assert_eq!(start.exported.get("A").map(|found| found.value.as_str()), Some(value.as_str()));
    }

    #[test]
    fn scripts_that_call_each_other_come_to_an_end(one in lines(), other in lines()) {
        let (reading, count) = read(&one, &other);
        prop_assert!(count <= 1100, "{count}");
        // Either it is known what starts, or why it is not.
        let is_refused = reading.verdicts.0.iter().any(|judged| matches!(judged.verdict, Verdict::Refused { .. }));
        prop_assert!(reading.start.is_some() || is_refused);
        for judged in &reading.verdicts.0 {
            prop_assert!(is_plain(&judged.text), "{}", judged.text);
            prop_assert!(judged.text.chars().count() <= 80);
        }
        if let Some(start) = &reading.start {
            let directory = &start.directory;
            prop_assert!(directory.starts_with('/') && !directory.split('/').any(|part| part == ".."));
            for found in start.exported.values() {
                prop_assert!(found.value.len() <= (1 << 16) + one.len() + other.len());
            }
        }
    }
}
