//! `headless` below a root directory: what the boot's target becomes, and what it was before.

use std::fs;

use crate::house::{self, Host, Said};

const LINK: &str = "etc/systemd/system/default.target";
const DEFAULT: &str = "usr/lib/systemd/system/default.target";

/// A host whose distribution boots to a desktop, and whose administrator has set `link`.
fn host_with(link: Option<&str>) -> Host {
    let host = Host::empty();
    host.create_directory("etc/systemd/system");
    host.link(DEFAULT, "graphical.target");
    if let Some(link) = link {
        host.link(LINK, link);
    }
    host
}

fn target(host: &Host) -> Option<String> {
    let target = fs::read_link(host.path(LINK)).ok()?;
    Some(target.to_str().unwrap().to_owned())
}

fn run(host: &Host, words: &[&str]) -> Said {
    host.run(&[&["headless"], words].concat())
}

fn said(stdout: &str, stderr: &str) -> Said {
    house::said(0, stdout, stderr)
}

const HEADLESS: &str = "/lib/systemd/system/multi-user.target";
const ON: &str = "write `/var/lib/buildbot-conda/headless`, mode 0644\n\
    link `/etc/systemd/system/default.target` to `/lib/systemd/system/multi-user.target`\n";
const LATER: &str = "it takes effect at the next boot; `systemctl isolate multi-user.target` stops the desktop now\n";

#[test]
fn off_goes_back_to_what_was_before() {
    for link in [
        None,
        Some("/lib/systemd/system/graphical.target"),
        Some("../x/kiosk.target"),
    ] {
        let host = host_with(link);
        let name = link.map_or("graphical.target", |link| link.rsplit('/').next().unwrap());
        let off = format!("off: boots to {name}\n");
        assert_eq!(run(&host, &["status"]), said(&off, ""));
        assert_eq!(run(&host, &["on"]), said("", &format!("{LATER}{ON}")));
        assert_eq!(target(&host).as_deref(), Some(HEADLESS));
        let on = format!("on: boots to multi-user.target, `off` restores {name}\n");
        assert_eq!(run(&host, &["status"]), said(&on, ""));
        let already = "it already boots to multi-user.target\nnothing to do\n";
        assert_eq!(run(&host, &["on"]), said("", already));
        let back = match link {
            None => "remove `/etc/systemd/system/default.target`\n".to_owned(),
            Some(link) => format!("link `/etc/systemd/system/default.target` to `{link}`\n"),
        };
        let back = format!("{back}remove `/var/lib/buildbot-conda/headless`\n");
        assert_eq!(run(&host, &["off", "--dry-run"]), said(&back, ""));
        assert_eq!(target(&host).as_deref(), Some(HEADLESS));
        assert_eq!(run(&host, &["off"]), said("", &back));
        assert_eq!(target(&host).as_deref(), link);
        assert_eq!(run(&host, &["status"]), said(&off, ""));
    }
}

#[test]
fn a_dry_run_tells_the_steps_and_does_none() {
    let host = host_with(None);
    let expect = format!("# {LATER}{ON}");
    assert_eq!(run(&host, &["on", "--dry-run"]), said(&expect, ""));
    assert_eq!(target(&host), None);
    assert!(!host.path("var").exists());
}

#[test]
fn a_host_that_was_headless_before_is_left_alone() {
    let host = host_with(Some("/lib/systemd/system/runlevel3.target"));
    assert_eq!(
        run(&host, &["status"]),
        said("on: boots to runlevel3.target\n", "")
    );
    assert_eq!(
        run(&host, &["on"]),
        said("", "it already boots to runlevel3.target\nnothing to do\n")
    );
    assert_eq!(
        run(&host, &["off"]),
        said(
            "",
            "`headless on` was not used; the host boots to runlevel3.target\nnothing to do\n"
        )
    );
    assert_eq!(
        target(&host).as_deref(),
        Some("/lib/systemd/system/runlevel3.target")
    );
}

#[test]
fn a_target_that_was_chosen_since_stays() {
    let host = host_with(None);
    assert_eq!(run(&host, &["on"]).status, Some(0));
    fs::remove_file(host.path(LINK)).unwrap();
    host.link(LINK, "/etc/kiosk.target");
    assert_eq!(
        run(&host, &["status"]),
        said("off: boots to kiosk.target\n", "")
    );
    assert_eq!(
        run(&host, &["off"]),
        said(
            "",
            "the host now boots to kiosk.target, which is not changed\n\
             remove `/var/lib/buildbot-conda/headless`\n"
        )
    );
    assert_eq!(target(&host).as_deref(), Some("/etc/kiosk.target"));
}

#[test]
fn what_is_no_link_is_refused() {
    let host = host_with(None);
    fs::write(host.path(LINK), "[Unit]\n").unwrap();
    for words in [&["on"][..], &["off"], &["status"], &["on", "--dry-run"]] {
        assert_eq!(
            run(&host, words),
            house::said(
                1,
                "",
                "error: `/etc/systemd/system/default.target` is not a link\n"
            )
        );
    }
}

#[test]
fn what_is_no_action_is_a_usage_error() {
    let host = host_with(None);
    for words in [&[][..], &["perhaps"], &["status", "--dry-run"]] {
        let Said {
            status,
            stdout,
            stderr,
        } = run(&host, words);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(stderr.contains("Usage: "), "{stderr}");
    }
    assert_eq!(target(&host), None);
}

#[test]
fn json_has_the_keys_that_the_manual_names() {
    let host = host_with(None);
    let report = |headless, target, before| {
        let text = format!(
            "{{\n  \"headless\": {headless},\n  \"target\": {target},\n  \"before\": {before}\n}}\n"
        );
        said(&text, "")
    };
    let words = &["status", "--json"];
    let desktop = report(false, "\"graphical.target\"", "null");
    assert_eq!(run(&host, words), desktop);
    assert_eq!(run(&host, &["on"]).status, Some(0));
    assert_eq!(
        run(&host, words),
        report(true, "\"multi-user.target\"", "\"graphical.target\"")
    );
    assert_eq!(run(&host, &["off"]).status, Some(0));
    assert_eq!(run(&host, words), desktop);
    fs::remove_file(host.path(DEFAULT)).unwrap();
    assert_eq!(run(&host, words), report(false, "null", "null"));
    assert_eq!(
        run(&host, &["status"]),
        said("off: boots to an unknown target\n", "")
    );

    let page = include_str!("../../../../docs/man/sections/buildbot-conda-headless-status.1");
    for key in ["headless", "target", "before"] {
        assert!(page.contains(&format!(".B {key}\n")), "{key}");
    }
}
