//! `invite`, `join`, `revoke` and `rotate` as far as they can be seen without a booted machine: what they refuse, and that
//! neither changes anything nor shows a password.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};

use crate::create::data::host_with_table;
use crate::house::Host;

const PASSWORD: &str = "Se0retSe0retSe0retSe0retSe0ret32";

/// A line for the worker `gpu` that ends in the year 2286.
fn line(address: &str) -> String {
    let authority = "ab".repeat(32);
    format!("bbworker://gpu:{PASSWORD}@{address}/{authority}?until=9999999999")
}

/// Runs, compares, and checks that nothing has changed.
#[track_caller]
fn check(host: &Host, words: &[&str], expect: &Expect) {
    let before = host.snapshot();
    expect.assert_eq(&host.run(words).to_string());
    assert_eq!(host.snapshot(), before);
}

/// The output of `join` for a line in a file; it never contains the password.
#[track_caller]
fn refused(host: &Host, line: &[u8]) -> String {
    let file = host.beside("line");
    std::fs::write(&file, line).unwrap();
    let before = host.snapshot();
    let said = host.run(&["join", "--dry-run", "--file", file.to_str().unwrap()]);
    assert_eq!(host.snapshot(), before);
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""));
    assert!(!said.stderr.contains("Se0ret"), "{said}");
    said.stderr.replace(file.to_str().unwrap(), "FILE")
}

#[test]
fn the_plan_of_an_invitation_opens_the_master_and_has_no_secret() {
    let host = host_with_table("[worker]\n");
    let before = host.snapshot();
    let said = host.run(&["invite", "gpu", "--host", "ci.example.org", "--dry-run"]);
    assert_eq!(host.snapshot(), before);
    // Files are named by the second in which they end.
    let mut words: Vec<String> = said
        .stdout
        .split_inclusive('/')
        .map(str::to_owned)
        .collect();
    for word in &mut words {
        let digits = word.trim_start_matches(|byte: char| byte.is_ascii_digit());
        if digits.len() + 10 == word.len() {
            *word = format!("UNTIL{digits}");
        }
    }
    expect![[r##"
        # `master` accepts workers from other hosts with TLS at port 9989, as ci.example.org, localhost
        create `/etc/buildbot-conda/authority`
        write `/etc/buildbot-conda/authority/certificate.pem`, mode 0644
        write `/etc/buildbot-conda/authority/key.pem`, mode 0600
        as `bb`, write `/home/bb/master/tls/UNTIL.key`, mode 0600
        as `bb`, write `/home/bb/master/tls/UNTIL.pem`, mode 0600
        as `bb`, write `/home/bb/master/network.toml`, mode 0600
        write `/var/lib/buildbot-conda/created/master.network`, mode 0644
        check the configuration of `buildbot-master.service`, and reload it
        as `bb`, write `/home/bb/master/passwords/gpu`, mode 0600
        as `bb`, add "gpu" to `/home/bb/master/workers.toml`
        write `/var/lib/buildbot-conda/created/invitations`, mode 0644
    "##]]
    .assert_eq(&words.concat());
}

#[test]
fn an_invitation_needs_a_name_a_time_and_a_master_that_has_workers_as_data() {
    let host = host_with_table("[worker]\n[gpu]\n");
    for words in [
        &["invite"][..],
        &["invite", "9"],
        &["invite", "a b"],
        &["invite", "-x"],
        &["invite", "new", "--ttl", "soon"],
        &["invite", "new", "--ttl", "0s"],
        &["invite", "new", "--ttl", "2years"],
        &["invite", "new", "--slots", "0"],
        &["invite", "new", "--port", "0"],
        &["invite", "new", "--list"],
    ] {
        let said = host.run(words);
        assert_eq!((said.status, said.stdout.as_str()), (Some(2), ""), "{said}");
    }
    check(
        &host,
        &["invite", "gpu", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `master` already has a worker `gpu`
            hint: `buildbot-conda rotate gpu` changes its password and prints a new line
        "#]],
    );
    check(
        &host,
        &["invite", "new", "--master", "master@x", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: master `master@x` is not configured
        "#]],
    );
    check(
        &host,
        &["invite", "new", "--host", "a b", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `a b:9989` is not an address; write `HOST` or `HOST:PORT`, such as `ci.example.org:9989`
        "#]],
    );
    check(
        &host,
        &["invite", "new"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `invite` changes a running system and cannot be used with `--root`
            hint: `--dry-run` shows the steps
        "#]],
    );
    let record = "{\"web_port\":8010,\"worker_port\":9990,\"worker\":\"worker\"}\n";
    host.write("var/lib/buildbot-conda/created/master.json", record);
    check(
        &host,
        &["invite", "new", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: the workers of `master` are in its `master.cfg`, and those of other hosts are invited by a master that has them in `workers.toml`
            hint: `buildbot-conda convert master` moves them there
        "#]],
    );
}

#[test]
fn a_worker_that_is_not_there_is_not_rotated_and_need_not_be_revoked() {
    let host = host_with_table("[worker]\n[gpu]\n");
    check(
        &host,
        &["revoke", "new", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` has no worker `new`; the workers are listed in `workers.toml` in `/home/bb/master`
            stderr:
            nothing to do
        "#]],
    );
    check(
        &host,
        &["rotate", "new", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `master` has no worker `new`
            hint: the workers are listed in `workers.toml` in `/home/bb/master`
        "#]],
    );
    // From another host, of a master that accepts none.
    check(
        &host,
        &["rotate", "gpu", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `master` does not accept workers from other hosts, and no worker `gpu` was created on this host with `buildbot-conda create`
        "#]],
    );
    for verb in ["revoke", "rotate"] {
        assert_eq!(host.run(&[verb, "9"]).status, Some(2));
        assert_eq!(host.run(&[verb]).status, Some(2));
    }
}

#[test]
fn a_revoked_worker_has_no_password_even_where_its_name_has_to_stay() {
    let host = host_with_table("[gpu]\n");
    host.write("home/bb/master/passwords/gpu", &format!("{PASSWORD}\n"));
    let invited = r#"[{"master":"master","worker":"gpu","since":1,"until":2}]"#;
    host.write("var/lib/buildbot-conda/created/invitations", invited);
    check(
        &host,
        &["revoke", "gpu", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `/home/bb/master/workers.toml` still contains the worker `gpu`, because its builder needs a worker
            as `bb`, remove `/home/bb/master/passwords/gpu`
            write `/var/lib/buildbot-conda/created/invitations`, mode 0644
            stderr:
        "#]],
    );
}

#[test]
fn what_became_of_an_invitation_is_told_from_what_nobody_knows() {
    let host = host_with_table("[worker]\n");
    let attached = "var/lib/buildbot-conda/instances/master/attached.json";
    let far = 9_999_999_999_u64;
    host.write(
        "var/lib/buildbot-conda/created/invitations",
        &format!(
            r#"[{{"master":"master","worker":"used","since":100,"until":200}},
                {{"master":"master","worker":"late","since":100,"until":200}},
                {{"master":"master","worker":"new","since":100,"until":{far}}}]"#
        ),
    );
    let states = || {
        let said = host.run(&["invite", "--list"]);
        assert_eq!(said.status, Some(0), "{said}");
        let lines = said.stdout.lines().skip(1);
        let state = |line: &str| line.split_whitespace().nth(2).unwrap().to_owned();
        lines.map(state).collect::<Vec<_>>()
    };
    let unknown = ["unknown", "unknown", "pending"];
    assert_eq!(states(), unknown, "there is no list");
    for (text, why) in [
        ("", "it was cut"),
        (
            "{\"since\": 100, \"workers\": {\"used\": 150}",
            "it was cut",
        ),
        (
            "{\"workers\": {\"used\": 150}}",
            "it does not say since when",
        ),
        (
            "{\"since\": 100, \"workers\": [\"used\"]}",
            "it is another list",
        ),
    ] {
        host.write(attached, text);
        assert_eq!(states(), unknown, "{why}");
    }
    host.write(attached, "{\"since\": 101, \"workers\": {\"used\": 150}}");
    assert_eq!(states(), ["joined", "unknown", "pending"]);
    host.write(attached, "{\"since\": 100, \"workers\": {\"used\": 150}}");
    assert_eq!(states(), ["joined", "expired", "pending"]);
    // As its account may do it: root follows nowhere.
    let elsewhere = host.path("elsewhere");
    std::fs::rename(host.path(attached), &elsewhere).unwrap();
    host.link(attached, elsewhere.to_str().unwrap());
    assert_eq!(states(), unknown, "it is a link");
    std::fs::remove_file(host.path(attached)).unwrap();
    host.create_directory(attached);
    assert_eq!(states(), unknown, "it is a directory");
}

#[test]
fn a_line_that_is_not_whole_or_not_ours_is_refused_without_its_password() {
    let host = Host::configured("[worker]\ndirectory = \"/home/bb/worker\"\n");
    let whole = line("127.0.0.1:9");
    let damaged = "error: the invitation is damaged or incomplete: ";
    for (line, reason) in [
        (
            whole[..whole.len() - 1].to_owned(),
            format!("{damaged}missing end\n"),
        ),
        (whole[..90].to_owned(), format!("{damaged}missing end\n")),
        (whole[..12].to_owned(), format!("{damaged}missing `@`\n")),
        (
            whole.replace("abab?", "?"),
            format!("{damaged}invalid SHA-256 of the authority\n"),
        ),
        (
            whole.replace("gpu", "gp\u{1b}u"),
            format!("{damaged}invalid worker name\n"),
        ),
        (
            whole.replace("127.0.0.1", "127.0.0.1\u{7}"),
            format!("{damaged}invalid address\n"),
        ),
        (
            whole.replace("0ret32", "0ret32\u{9b}"),
            format!("{damaged}invalid password\n"),
        ),
        (
            format!("{whole} {whole}"),
            format!("{damaged}unexpected text after the end\n"),
        ),
        (
            whole.replace("bbworker:", "bbworker2:"),
            "error: the invitation was created by another version of buildbot-conda\n\
             hint: install the version of the master's host on this host\n"
                .to_owned(),
        ),
        (
            "hello".to_owned(),
            "error: this is not an invitation: it does not begin with `bbworker://`\n".to_owned(),
        ),
        (
            String::new(),
            "error: this is not an invitation: it does not begin with `bbworker://`\n".to_owned(),
        ),
        (
            format!("{whole}{}", "x".repeat(4096)),
            "error: read `FILE`: it is longer than 4096 bytes, so it is not an invitation\n"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(&host, line.as_bytes()), reason, "{line:?}");
    }
    let ended = refused(&host, whole.replace("9999999999", "1000000000").as_bytes());
    assert!(
        ended.starts_with("error: the invitation of `gpu` expired ")
            && ended.ends_with(
                "hint: on the master's host, `buildbot-conda invite gpu` creates a new one\n"
            ),
        "{ended}"
    );
    let foreign = refused(&host, b"bbworker://\xff\xfe");
    assert!(foreign.starts_with("error: read `FILE`: "), "{foreign}");
    // Nothing listens on port 9.
    let alone = refused(&host, whole.as_bytes());
    assert!(
        alone.starts_with("error: no TLS with the master at 127.0.0.1:9: "),
        "{alone}"
    );
}

#[test]
fn a_line_among_the_words_of_a_command_is_refused_and_not_repeated() {
    let host = Host::configured("");
    let line = line("127.0.0.1:9");
    for words in [
        &["join", &line][..],
        &["join", "--file", &line],
        &["join", "--worker-name", "gpu", "--via", &line],
        &["join", "a", "b", &line],
    ] {
        let said = host.run(words);
        assert_eq!((said.status, said.stdout.as_str()), (Some(2), ""));
        assert_eq!(
            said.stderr,
            "error: the line of an invitation is a secret, but everybody on this host can see the \
             arguments of a command\n\
             hint: `buildbot-conda join` prompts for it, and `--file` reads it; on the master's \
             host, `buildbot-conda rotate` creates another one\n"
        );
    }
}

#[test]
fn without_a_terminal_the_line_comes_from_standard_input() {
    let host = Host::configured("[worker]\n");
    // Nothing exists.
    check(
        &host,
        &["join", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: this is not an invitation: it does not begin with `bbworker://`
        "#]],
    );
    let mut command = host.command();
    command.args(["join", "--dry-run"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = line("127.0.0.1:9").replace("9999999999", "1000000000");
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "a greeting\n {line}").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the invitation of `gpu` expired "), "{said}");
}

#[test]
fn a_line_can_be_had_by_ssh_and_what_keeps_it_is_shown() {
    let host = Host::configured("[worker]\n");
    let asked = host.beside("asked");
    let answer = |text: &str| {
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >'{}'\n{text}\n",
            asked.display()
        );
        host.add_program("ssh", &script);
    };
    let words = ["join", "--worker-name", "gpu", "--dry-run", "--via"];
    let run = |place: &str| host.run(&[&words[..], &[place]].concat());
    // The line is accepted, and leads to a port where nothing listens.
    answer(&format!("echo welcome; echo '{}'", line("127.0.0.1:9")));
    let said = run("ssh://ci.example.org");
    assert!(
        said.stderr
            .starts_with("error: no TLS with the master at 127.0.0.1:9: "),
        "{said}"
    );
    let words = std::fs::read_to_string(&asked).unwrap();
    let (options, script) = words.split_once("ci.example.org\n").unwrap();
    assert_eq!(options, "-T\n--\n");
    assert!(script.contains("exec buildbot-conda invite gpu") && script.contains("sudo"));
    answer("echo 'Permission denied' >&2; exit 255");
    let said = run("ci.example.org");
    let expect = "error: `ci.example.org` created no invitation: Permission denied\n";
    assert_eq!((said.status, said.stderr.as_str()), (Some(1), expect));
    for place in ["ssh://", "", "-oProxyCommand=x", "ssh://-x"] {
        let said = host.run(&[
            "join",
            "--worker-name",
            "gpu",
            "--dry-run",
            &format!("--via={place}"),
        ]);
        assert_eq!(said.status, Some(1), "{said}");
        assert!(said.stderr.contains("is not a host"), "{said}");
    }
}

/// A TLS server with its own certificate. It is stopped when this is dropped.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        // One that has stopped is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whoever_listens_with_another_certificate_hears_nothing_of_the_password() {
    let host = Host::configured("[worker]\ndirectory = \"/home/bb/worker\"\n");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x -days 2 \
         -addext subjectAltName=IP:127.0.0.1 -keyout key -out pem 2>/dev/null\n\
         exec openssl s_server -quiet -accept 127.0.0.1:{port} -key key -cert pem >heard 2>&1"
    );
    let server = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(host.beside(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let _server = Stranger(server);
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed() < Duration::from_mins(1), "it listens");
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = refused(&host, line(&format!("127.0.0.1:{port}")).as_bytes());
    let said = said.replace(&port.to_string(), "PORT");
    expect![[r#"
        error: the server at 127.0.0.1:PORT is not the master of this invitation: its certificate is from another authority
        hint: if the master has a new authority, create a new invitation there
    "#]]
    .assert_eq(&said);
    let heard = std::fs::read_to_string(host.beside("heard")).unwrap();
    assert!(
        !heard.contains("Se0ret") && !heard.contains("gpu"),
        "{heard}"
    );
}
