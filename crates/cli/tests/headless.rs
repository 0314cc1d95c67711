//! `headless` below a root directory: what the boot's target becomes, and what it was before.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

struct Host(TempDir);

impl Host {
    /// A host whose distribution boots to a desktop, and whose administrator says `link`.
    fn with(link: Option<&str>) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for directory in ["etc/systemd/system", "usr/lib/systemd/system"] {
            fs::create_dir_all(host.0.path().join(directory)).unwrap();
        }
        let default = host.0.path().join("usr/lib/systemd/system/default.target");
        symlink("graphical.target", default).unwrap();
        if let Some(link) = link {
            symlink(link, host.link()).unwrap();
        }
        host
    }

    fn link(&self) -> PathBuf {
        self.0.path().join("etc/systemd/system/default.target")
    }

    fn target(&self) -> Option<String> {
        let target = fs::read_link(self.link()).ok()?;
        Some(target.to_str().unwrap().to_owned())
    }

    /// Exit status, standard output and standard error, the root directory taken out of them.
    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .arg("--root")
            .arg(self.0.path())
            .arg("headless")
            .args(words)
            .output()
            .unwrap();
        let root = self.0.path().to_str().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(root, "");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

fn said(stdout: &str, stderr: &str) -> (Option<i32>, String, String) {
    (Some(0), stdout.to_owned(), stderr.to_owned())
}

const HEADLESS: &str = "/lib/systemd/system/multi-user.target";
const ON: &str = "write `/var/lib/buildbot-conda/headless`, mode 0644\n\
    link `/etc/systemd/system/default.target` to `/lib/systemd/system/multi-user.target`\n";
const LATER: &str =
    "it counts from the next boot on; `systemctl isolate multi-user.target` ends the desktop now\n";

#[test]
fn off_goes_back_to_what_was_before() {
    for link in [
        None,
        Some("/lib/systemd/system/graphical.target"),
        Some("../x/kiosk.target"),
    ] {
        let host = Host::with(link);
        let name = link.map_or("graphical.target", |link| link.rsplit('/').next().unwrap());
        let off = format!("off: boots to {name}\n");
        assert_eq!(host.run(&["status"]), said(&off, ""));
        assert_eq!(host.run(&["on"]), said("", &format!("{ON}{LATER}")));
        assert_eq!(host.target().as_deref(), Some(HEADLESS));
        let on = format!("on: boots to multi-user.target, `off` goes back to {name}\n");
        assert_eq!(host.run(&["status"]), said(&on, ""));
        let already = "it boots to multi-user.target already\n";
        assert_eq!(host.run(&["on"]), said("", already));
        let back = match link {
            None => "remove `/etc/systemd/system/default.target`\n".to_owned(),
            Some(link) => format!("link `/etc/systemd/system/default.target` to `{link}`\n"),
        };
        let back = format!("{back}remove `/var/lib/buildbot-conda/headless`\n");
        assert_eq!(host.run(&["off", "--dry-run"]), said(&back, ""));
        assert_eq!(host.target().as_deref(), Some(HEADLESS));
        assert_eq!(host.run(&["off"]), said("", &back));
        assert_eq!(host.target().as_deref(), link);
        assert_eq!(host.run(&["status"]), said(&off, ""));
    }
}

#[test]
fn a_dry_run_tells_the_steps_and_does_none() {
    let host = Host::with(None);
    let expect = format!("# {LATER}{ON}");
    assert_eq!(host.run(&["on", "--dry-run"]), said(&expect, ""));
    assert_eq!(host.target(), None);
    assert!(!host.0.path().join("var").exists());
}

#[test]
fn a_host_that_was_headless_before_is_left_alone() {
    let host = Host::with(Some("/lib/systemd/system/runlevel3.target"));
    assert_eq!(
        host.run(&["status"]),
        said("on: boots to runlevel3.target\n", "")
    );
    assert_eq!(
        host.run(&["on"]),
        said("", "it boots to runlevel3.target already\n")
    );
    assert_eq!(
        host.run(&["off"]),
        said(
            "",
            "`headless on` has changed nothing here; it boots to runlevel3.target\n"
        )
    );
    assert_eq!(
        host.target().as_deref(),
        Some("/lib/systemd/system/runlevel3.target")
    );
}

#[test]
fn a_target_that_was_chosen_since_stays() {
    let host = Host::with(None);
    assert_eq!(host.run(&["on"]).0, Some(0));
    fs::remove_file(host.link()).unwrap();
    symlink("/etc/kiosk.target", host.link()).unwrap();
    assert_eq!(
        host.run(&["status"]),
        said("off: boots to kiosk.target\n", "")
    );
    assert_eq!(
        host.run(&["off"]),
        said(
            "",
            "remove `/var/lib/buildbot-conda/headless`\n\
             it boots to kiosk.target by now, which stays\n"
        )
    );
    assert_eq!(host.target().as_deref(), Some("/etc/kiosk.target"));
}

#[test]
fn what_is_no_link_is_refused() {
    let host = Host::with(None);
    fs::write(host.link(), "[Unit]\n").unwrap();
    for words in [&["on"][..], &["off"], &["status"], &["on", "--dry-run"]] {
        assert_eq!(
            host.run(words),
            (
                Some(1),
                String::new(),
                "error: `/etc/systemd/system/default.target` is no link\n".to_owned()
            )
        );
    }
}

#[test]
fn what_is_no_action_is_a_usage_error() {
    let host = Host::with(None);
    for words in [
        &[][..],
        &["perhaps"],
        &["on", "--json"],
        &["off", "--json"],
        &["status", "--dry-run"],
    ] {
        let (status, stdout, stderr) = host.run(words);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(stderr.contains("Usage: "), "{stderr}");
    }
    assert_eq!(host.target(), None);
}

#[test]
fn json_has_the_keys_that_the_manual_names() {
    let host = Host::with(None);
    let report = |headless, target, before| {
        let text = format!(
            "{{\n  \"headless\": {headless},\n  \"target\": {target},\n  \"before\": {before}\n}}\n"
        );
        said(&text, "")
    };
    let words = &["status", "--json"];
    let desktop = report(false, "\"graphical.target\"", "null");
    assert_eq!(host.run(words), desktop);
    assert_eq!(host.run(&["on"]).0, Some(0));
    assert_eq!(
        host.run(words),
        report(true, "\"multi-user.target\"", "\"graphical.target\"")
    );
    assert_eq!(host.run(&["off"]).0, Some(0));
    assert_eq!(host.run(words), desktop);
    fs::remove_file(host.0.path().join("usr/lib/systemd/system/default.target")).unwrap();
    assert_eq!(host.run(words), report(false, "null", "null"));
    assert_eq!(
        host.run(&["status"]),
        said("off: boots to nothing that is known\n", "")
    );

    let page = include_str!("../../../docs/man/sections/buildbot-conda-headless-status.1");
    for key in ["headless", "target", "before"] {
        assert!(page.contains(&format!(".B {key}\n")), "{key}");
    }
}
