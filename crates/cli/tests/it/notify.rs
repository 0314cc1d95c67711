//! `service notify`, as systemd starts it, with programs of this test's own in place of those that send.

use crate::house::{Host, said};
use crate::systemd::live;

/// systemd and the journal of a worker that has failed.
fn host(notify: &str) -> Host {
    let host = Host::configured(&format!(
        "[worker]\ndirectory = \"/srv/worker\"\nnotify = \"{notify}\"\n"
    ));
    host.add_program(
        "systemctl",
        "#!/bin/sh\nprintf 'Id=buildbot-worker.service\\nActiveState=failed\\nStatusText=no `password`:\\033[2J\\303\\244\\n'\n",
    );
    host.add_program(
        "journalctl",
        "#!/bin/sh\necho \"$*\" >\"$ROOT/asked\"\nprintf 'Sun buildbot-worker.service[1]: first\\nSun buildbot-worker.service[1]: \\033[31mlast\\n'\n",
    );
    let sends = "#!/bin/sh\nif [ -e \"$ROOT/broken\" ]; then echo 'no \\033[31mroute' >&2; exit 75; fi\n\
                 { echo \"$0 $*\"; cat; } >\"$ROOT/sent\"; cat \"$ROOT/answer\" 2>/dev/null || :\n\
                 case $0 in *openssl) echo 'unexpected eof' >&2; exit 1;; esac\n";
    host.add_program("sendmail", sends);
    host.add_program("openssl", sends);
    host
}

const TEXT: &str = "no `password`:\\u{1b}[2Jä\n\nLast lines of its log:\n\n\
                    Sun buildbot-worker.service[1]: first\nSun buildbot-worker.service[1]: \\u{1b}[31mlast\n\n\
                    It is not restarted automatically. ";

#[test]
fn mail_has_the_reason_and_the_last_lines_and_nothing_that_a_terminal_obeys() {
    let host = host("mail:ops@example.org");
    let outcome = live(&host, "service notify worker");
    assert_eq!(
        (outcome.status, outcome.stdout.as_str()),
        (Some(0), ""),
        "{outcome}"
    );
    assert!(
        outcome.stderr.starts_with("reported: worker on "),
        "{outcome}"
    );
    let sent = host.read("sent") + &host.read("asked");
    assert!(
        sent.contains("/sendmail -i -- ops@example.org\nTo: ops@example.org\nSubject: worker on "),
        "{sent}"
    );
    assert!(sent.contains(" has failed\nMIME-Version: 1.0\n"), "{sent}");
    assert!(
        sent.contains(TEXT) && sent.contains("--unit buildbot-worker.service\n"),
        "{sent}"
    );
    assert!(!sent.contains('\u{1b}'), "{sent:?}");
}

#[test]
fn a_web_hook_is_called_without_its_address_in_an_argument() {
    let host = host("hook:chat");
    host.write(
        "etc/buildbot-conda/credentials/chat",
        "https://chat.example.org/hooks/s3cret\n",
    );
    host.write("answer", "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(live(&host, "service notify worker").status, Some(0));
    let sent = host.read("sent");
    let (words, request) = sent.split_once('\n').unwrap();
    assert!(
        words.contains(" -connect chat.example.org:443 ") && words.contains("-verify_return_error"),
        "{words}"
    );
    assert!(
        request.starts_with("POST /hooks/s3cret HTTP/1.1\r\nHost: chat.example.org\r\n"),
        "{request}"
    );
    let body = request.split("\r\n\r\n").nth(1).unwrap();
    let report: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(report["text"].as_str().unwrap().contains(TEXT), "{report}");
    assert_eq!(report["instance"], "worker");
    assert_eq!(report["state"], "failed");
    assert!(
        request.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{request}"
    );
}

#[test]
fn what_could_not_be_sent_is_an_error_without_the_address() {
    let host = host("hook:chat");
    host.write(
        "etc/buildbot-conda/credentials/chat",
        "https://chat.example.org/hooks/s3cret\n",
    );
    host.write("answer", "HTTP/1.1 403 Forbidden\r\n\r\n");
    let expect = |reason: &str| {
        said(
            1,
            "",
            &format!("error: call the web hook at `chat.example.org`: {reason}\n"),
        )
    };
    assert_eq!(
        live(&host, "service notify worker"),
        expect("the answer is `HTTP/1.1 403 Forbidden`")
    );
    host.write("broken", "");
    assert_eq!(
        live(&host, "service notify worker"),
        expect("no answer by TLS: no \\u{1b}[31mroute")
    );
    host.write("etc/buildbot-conda/credentials/chat", "s3cret");
    let outcome = live(&host, "service notify worker");
    assert_eq!(outcome.status, Some(1));
    assert!(
        outcome
            .stderr
            .contains("credentials/chat`: the address of a web hook must begin with `https://`"),
        "{outcome}"
    );
    assert!(!outcome.stderr.contains("s3cret"), "{outcome}");
}

#[test]
fn nothing_is_sent_where_nobody_is_to_be_told() {
    let host = host("off");
    assert_eq!(live(&host, "service notify worker"), said(0, "", ""));
}
