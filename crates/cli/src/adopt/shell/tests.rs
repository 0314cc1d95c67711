use super::words::Known;
use super::*;

fn scope() -> Scope {
    let known = |value: &str| Known {
        value: Some(value.to_owned()),
        is_exported: true,
    };
    let mut scope = Scope::default();
    scope.variables.insert("HOME".to_owned(), known("/home/bb"));
    scope.variables.insert("ENV".to_owned(), known("two words"));
    scope.arguments = vec![Some("/srv/start.sh".to_owned()), Some("gpu".to_owned())];
    scope
}

/// Every simple command with its line, and the signs of what is around it.
fn commands(text: &str) -> Vec<String> {
    let mut parser = Parser::new(text);
    let mut lines = Vec::new();
    loop {
        match parser.next() {
            Ok(Some(node)) => collect(&node, "", &mut lines),
            Ok(None) => return lines,
            Err(unreadable) => {
                lines.push(format!("{}: {}", unreadable.line, unreadable.what));
                return lines;
            }
        }
    }
}

fn collect(node: &Node, mark: &str, lines: &mut Vec<String>) {
    let mut all = |nodes: &[Node], mark: &str| {
        for node in nodes {
            collect(node, mark, lines);
        }
    };
    match node {
        Node::Simple(simple) | Node::Test(simple) => {
            let scope = scope();
            let mut words: Vec<String> = Vec::new();
            for (name, word) in &simple.assignments {
                words.push(format!(
                    "{name}={}",
                    scope.text(word).unwrap_or("?".to_owned())
                ));
            }
            for word in &simple.words {
                words.extend(scope.fields(word).unwrap_or(vec!["?".to_owned()]));
            }
            lines.push(format!("{}{mark}: {}", simple.line, words.join("|")));
        }
        Node::And(left, right) => {
            collect(left, mark, lines);
            collect(right, " and", lines);
        }
        Node::Or(left, right) => {
            collect(left, mark, lines);
            collect(right, " or", lines);
        }
        Node::Not(node) => collect(node, " not", lines),
        Node::Pipeline(nodes) => all(nodes, " pipe"),
        Node::Background(node) => collect(node, " &", lines),
        Node::Subshell(nodes) => all(nodes, " sub"),
        Node::Group(nodes) => all(nodes, mark),
        Node::If(branches, otherwise) => {
            for (condition, body) in branches {
                all(condition, mark);
                all(body, " if");
            }
            all(otherwise, " else");
        }
        Node::Loop(_, nodes) => all(nodes, " loop"),
        Node::Case(_, arms) => arms.iter().for_each(|(_, body)| all(body, " case")),
        Node::Function(name, body) => all(body, &format!(" {name}()")),
    }
}

#[test]
fn quotes_variables_and_comments_are_read_as_the_shell_does() {
    let text = "#!/bin/bash\nset -e # why\ncd ~/master && . \"$HOME/a b\"/x 'l $HOME' \"$ENV\" \\\n  more\n\
                X=\"${NONE:-d}\" Y=${HOME} echo $1 \"$@\" >log 2>&1 </dev/null; exec run $(date) \"$(dirname \"$0\")/y\"\n\
                a $ENV '' \"\" $NONE \"$NONE\" ${1:+b} ${2-$HOME} x#y ~root a=~/b\n";
    assert_eq!(
        commands(text),
        [
            "2: set|-e",
            "3: cd|/home/bb/master",
            "3 and: .|/home/bb/a b/x|l $HOME|two words|more",
            "5: X=d|Y=/home/bb|echo|gpu|gpu",
            "5: exec|run|?|/srv/y",
            "6: a|two|words||||b|/home/bb|x#y|?|a=/home/bb/b",
        ]
    );
}

#[test]
fn what_depends_on_something_is_marked() {
    let text = "if [ -f /x ]; then\n  . /x\nelif q; then r\nelse y; fi\nf() {\n  z\n}\ncd /d || exit 1\nend &\n\
                (cd x && git pull)\na | b |& c\n! d\nfor i in 1 2 $x; do e; done\nwhile true; do g; done > log\n\
                case $1 in a|b) h;; (*) i; esac\nfunction k { l; }\n[[ a == b* && -f c ]] && m\nlast";
    assert_eq!(
        commands(text),
        [
            "1: [|-f|/x|]",
            "2 if: .|/x",
            "3: q",
            "3 if: r",
            "4 else: y",
            "6 f(): z",
            "8: cd|/d",
            "8 or: exit|1",
            "9 &: end",
            "10 sub: cd|x",
            "10 and: git|pull",
            "11 pipe: a",
            "11 pipe: b",
            "11 pipe: c",
            "12 not: d",
            "13 loop: e",
            "14 loop: true",
            "14 loop: g",
            "15 case: h",
            "15 case: i",
            "16 k(): l",
            "17: [[|a|==|?|?|?|-f|c|]]",
            "17 and: m",
            "18: last",
        ]
    );
}

#[test]
fn here_documents_are_data() {
    let text = "cat <<EOF >x\nbuildbot start m\n\tEOF\nEOF\nmail <<-'E' <<F; a\nb\n\tE\nc\nF\nd <<<word\nlast";
    assert_eq!(
        commands(text),
        ["1: cat", "5: mail", "5: a", "10: d", "11: last"]
    );
}

#[test]
fn what_the_grammar_does_not_have_is_an_error_with_its_line_and_name() {
    for (text, expect) in [
        ("\nA=(x\n y)", "2: an array"),
        (". <(hook)", "1: process substitution"),
        ("((n++))", "1: arithmetic in `((`"),
        ("e $'f'", "1: `$` in front of a quote"),
        ("select x in a; do b; done", "1: `select` at this position"),
        ("coproc x", "1: `coproc` at this position"),
        ("'", "1: an unterminated quote"),
        ("\"$(", "1: a missing `)`"),
        ("${", "1: a missing `}`"),
        ("`", "1: a missing ```"),
        ("a <", "1: a missing word"),
        ("case x in", "1: a missing word"),
        ("f(", "1: `(` at this position"),
        ("a &>", "1: a missing word"),
        ("a b (c)", "1: `(` at this position"),
        ("cat <<E\nx", "2: an unterminated here-document"),
        (
            "if a; then b",
            "1: a command without its `elif` or `else` or `fi`",
        ),
        ("fi", "1: `fi` at this position"),
        ("a ;; b", "1: `;` at this position"),
        ("&& a", "1: `&` at this position"),
    ] {
        let lines = commands(text);
        assert_eq!(lines.last().map(String::as_str), Some(expect), "{text}");
    }
    assert_eq!(commands("a \r\u{b} b\u{a0}c"), ["1: a|\r\u{b}|b\u{a0}c"]);
    for text in [
        "{ ".repeat(50_000),
        "! ".repeat(50_000),
        "a && ".repeat(50_000),
        "${a:-".repeat(5_000),
    ] {
        assert!(commands(&text).len() < 3);
    }
}
