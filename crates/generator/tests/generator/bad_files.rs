//! Invalid files and directories: each is reported, and none blocks.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::{Root, finish};

const CONFIG: &str = "etc/buildbot-conda/config.toml";

#[track_caller]
fn refused(root: &Root, message: &str) {
    assert_eq!(root.run(), message);
    assert_eq!(root.instances(), [""; 0]);
}

#[test]
fn a_syntax_error_stops_every_instance() {
    let root = Root::new("[master]\n[worker@gpu]\n");
    let stderr = root.run();
    assert!(
        stderr.starts_with("/etc/buildbot-conda/config.toml:2:8: syntax error"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: quote a name with `@`"), "{stderr}");
    assert_eq!(root.instances(), [""; 0]);
}

#[test]
fn bytes_that_are_no_utf_8_stop_every_instance() {
    let root = Root::new(b"[master]\nuser = \"caf\xe9\"\n");
    refused(
        &root,
        "/etc/buildbot-conda/config.toml:2:12: the byte 0xe9 is not UTF-8\n\
         hint: save the file as UTF-8\n",
    );
}

#[test]
fn values_with_newlines_and_nul_write_no_line_of_their_own() {
    let root = Root::new(
        "[\"worker@a\"]\ndirectory = \"/srv/a\\nUser=root\"\n\
         [\"worker@b\"]\ndirectory = \"/srv/b\\u0000\"\n\
         [\"worker@c\"]\ndirectory = \"/srv/c\"\nuser = \"bb\\nExecStartPre=+/bin/sh\"\n",
    );
    let stderr = root.run();
    assert_eq!(stderr.matches("config.toml:").count(), 3, "{stderr}");
    assert_eq!(root.instances(), [""; 0]);
}

#[test]
fn a_fifo_does_not_block_the_boot() {
    let root = Root::bare();
    root.fifo(CONFIG);
    refused(
        &root,
        "read `/etc/buildbot-conda/config.toml`: it is not a regular file\n",
    );
}

#[test]
fn a_directory_or_device_is_no_configuration() {
    let root = Root::bare();
    fs::create_dir(root.path(CONFIG)).unwrap();
    refused(
        &root,
        "read `/etc/buildbot-conda/config.toml`: it is not a regular file\n",
    );
    // For the boot, a socket represents every kind of device: none of them is opened.
    let root = Root::bare();
    root.write("dev/x", "");
    let _socket = UnixListener::bind(root.path("dev/log")).unwrap();
    root.link(CONFIG, "/dev/log");
    refused(
        &root,
        "read `/etc/buildbot-conda/config.toml`: it is not a regular file\n",
    );
}

#[test]
fn a_huge_file_is_not_read() {
    let root = Root::new("[master]\n");
    let file = File::options()
        .append(true)
        .open(root.path(CONFIG))
        .unwrap();
    file.set_len(1 << 40).unwrap();
    refused(
        &root,
        "read `/etc/buildbot-conda/config.toml`: it is larger than 8388608 bytes\n",
    );
}

#[test]
fn a_link_in_a_circle_and_one_to_nowhere_are_survived() {
    let root = Root::bare();
    root.link(CONFIG, "config.toml");
    let stderr = root.run();
    assert!(
        stderr.starts_with("read `/etc/buildbot-conda/config.toml`: "),
        "{stderr}"
    );
    let root = Root::bare();
    root.link(CONFIG, "elsewhere.toml");
    refused(&root, "");
}

#[test]
fn deep_nesting_is_survived() {
    for text in [
        "a = ".to_owned() + &"[".repeat(100_000),
        "a.".repeat(100_000) + "b = 1",
    ] {
        let root = Root::new(text);
        let stderr = root.run();
        assert!(stderr.contains("config.toml:1:"), "{stderr}");
    }
}

#[test]
fn a_configuration_that_others_can_write_is_not_believed() {
    for mode in [0o664, 0o646, 0o666] {
        let root = Root::new("[master]\n");
        root.chmod(CONFIG, mode);
        refused(
            &root,
            &format!(
                "/etc/buildbot-conda/config.toml: is writable by accounts other than root (mode {mode:04o})\n\
                 hint: check it, then run `chmod go-w /etc/buildbot-conda/config.toml`\n"
            ),
        );
    }
    let root = Root::new("[master]\n");
    root.chmod("etc/buildbot-conda", 0o1777);
    refused(
        &root,
        "/etc/buildbot-conda/config.toml: goes through `/etc/buildbot-conda`, which is writable by accounts other \
         than root (mode 1777)\n\
         hint: check it, then run `chmod go-w /etc/buildbot-conda`\n",
    );
}

#[test]
fn a_configuration_of_another_owner_is_not_believed() {
    for (path, seen) in [
        (CONFIG, ""),
        (
            "etc/buildbot-conda",
            "goes through `/etc/buildbot-conda`, which ",
        ),
        ("etc", "goes through `/etc`, which "),
    ] {
        let root = Root::new("[master]\n");
        if fs::metadata(root.path(path)).unwrap().uid() != 0 {
            eprintln!("skipped: only root can give files away");
            return;
        }
        std::os::unix::fs::chown(root.path(path), Some(1000), None).unwrap();
        let hint = if path == "etc" {
            "every directory in the path of `/etc/buildbot-conda/config.toml` must be owned by root"
                .to_owned()
        } else {
            format!("check it, then run `chown root: /{path}`")
        };
        let seen = format!("{seen}is owned by user 1000, not by root");
        refused(
            &root,
            &format!("/etc/buildbot-conda/config.toml: {seen}\nhint: {hint}\n"),
        );
    }
}

/// Anyone who can write to one directory in the path of a link controls the configuration, `user = "root"` included.
#[test]
fn a_configuration_through_a_directory_of_others_is_not_believed() {
    for (link, file) in [
        ("/home/bb/site.toml", "home/bb/site.toml"),
        ("../../home/bb/../../srv/site.toml", "srv/site.toml"),
    ] {
        let root = Root::bare();
        root.write(file, "[master]\nuser = \"root\"\n");
        root.write("home/bb/x", "");
        root.link(CONFIG, link);
        assert_eq!(root.run(), "", "{link}");
        root.chmod("home/bb", 0o777);
        let stderr = root.run();
        let reason =
            "goes through `/home/bb`, which is writable by accounts other than root (mode 0777)";
        assert!(stderr.contains(reason), "{stderr}");
        let hint = "hint: every directory in the path of `/etc/buildbot-conda/config.toml` must be owned by root";
        assert!(stderr.contains(hint), "{stderr}");
    }
}

/// systemd reads credentials as root: a link in a user's directory would show him any file of the host.
#[test]
fn an_instance_with_a_credential_in_a_place_of_others_gets_no_drop_in() {
    let text = "[defaults]\ncredentials = { all = \"/home/bb/key\" }\n[master]\n\
                [worker]\ncredentials = { all = \"/home/bb/secrets/key\", own = \"own\" }\n\
                [\"worker@good\"]\ndirectory = \"/srv/w\"\ncredentials = { all = \"/srv/key\" }\n";
    let root = Root::new(text);
    root.write("home/bb/secrets/key", "");
    root.write("srv/key", "");
    root.write("etc/buildbot-conda/credentials/own", "");
    root.chmod("home/bb", 0o775);
    let stderr = root.run();
    assert_eq!(root.instances(), ["worker@good"], "{stderr}");
    let through = "goes through `/home/bb`, which is writable by accounts other than root (mode 0775)\n\
                   hint: store it in `/etc/buildbot-conda/credentials`, owned by root and writable only by root\n";
    for place in [
        "config.toml:2:23: defaults.credentials.all: `/home/bb/key`",
        "config.toml:5:23: worker.credentials.all: `/home/bb/secrets/key`",
    ] {
        assert!(
            stderr.contains(&format!("/etc/buildbot-conda/{place} {through}")),
            "{stderr}"
        );
    }
    // A link in root's own directory leads through his.
    let root = Root::new("[master]\ncredentials = { door = \"door\" }\n");
    root.write("home/bb/key", "");
    root.link("etc/buildbot-conda/credentials/door", "/home/bb/key");
    assert_eq!(root.run(), "");
    root.chmod("home/bb", 0o777);
    assert!(root.run().contains("door` goes through `/home/bb`"));
    // A file that others can write is not root's either; one that is missing is for the start to report.
    let root = Root::new("[master]\ncredentials = { a = \"a\", b = \"b\" }\n");
    root.write("etc/buildbot-conda/credentials/a", "");
    root.chmod("etc/buildbot-conda/credentials/a", 0o602);
    let stderr = root.run();
    assert!(
        stderr.contains("a` is writable by accounts other than root"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

#[test]
fn a_linked_configuration_is_judged_by_its_target() {
    let root = Root::bare();
    root.write("srv/site.toml", "[master]\n");
    root.link(CONFIG, "/srv/site.toml");
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ["master"]);
    root.chmod("srv/site.toml", 0o666);
    assert!(
        root.run()
            .contains("is writable by accounts other than root (mode 0666)")
    );
}

#[test]
fn a_missing_output_directory_is_reported_once() {
    for replace in [false, true] {
        let root = Root::new("[master]\n[worker]\n");
        fs::remove_dir(root.path("normal")).unwrap();
        if replace {
            root.write("normal", "");
        }
        assert_eq!(root.run(), "/normal: not a directory\n");
    }
}

#[test]
fn a_place_that_is_taken_is_reported_and_the_others_are_written() {
    let root = Root::new("[master]\n[worker]\n");
    root.write("normal/buildbot-master.service.d", "");
    let stderr = root.run();
    let start = "/normal/buildbot-master.service.d/10-buildbot-conda.conf: write: ";
    assert!(stderr.starts_with(start), "{stderr}");
    assert_eq!(root.instances(), ["worker"]);
}

#[test]
fn a_full_disk_leaves_no_half_drop_in() {
    let root = Root::new("[master]\n[worker]\n");
    let file = "normal/buildbot-master.service.d/10-buildbot-conda.conf";
    root.link(file, "/dev/full");
    let stderr = root.run();
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(fs::symlink_metadata(root.path(file)).is_err());
    assert_eq!(root.instances(), ["worker"]);
}

#[test]
fn nobody_reading_its_messages_does_not_stop_it() {
    let root = Root::new("[\"worker@BAD\"]\ndirectory = \"/srv/bad\"\n[master]\n");
    let mut child = root.command().stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    finish(child);
    assert_eq!(root.instances(), ["master"]);
}
