//! Files and directories that are not what they should be: each is reported, none blocks.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
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
    assert!(
        stderr.contains("hint: a name with `@` is quoted"),
        "{stderr}"
    );
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
        "read `/etc/buildbot-conda/config.toml`: it is no regular file\n",
    );
}

#[test]
fn a_directory_or_device_is_no_configuration() {
    let root = Root::bare();
    fs::create_dir(root.path(CONFIG)).unwrap();
    refused(
        &root,
        "read `/etc/buildbot-conda/config.toml`: it is no regular file\n",
    );
    for device in ["/dev/zero", "/dev/null", "/dev/tty"] {
        let root = Root::bare();
        root.link(CONFIG, device);
        let stderr = root.run();
        // Without a terminal, /dev/tty cannot even be opened.
        let read = "read `/etc/buildbot-conda/config.toml`: ";
        let regular = "read `/etc/buildbot-conda/config.toml`: it is no regular file\n";
        assert!(
            stderr == regular || stderr.starts_with(read),
            "{device}: {stderr}"
        );
    }
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
                "/etc/buildbot-conda/config.toml: can be written by others than root (mode {mode:04o})\n\
                 hint: `chmod go-w /etc/buildbot-conda/config.toml` once you have checked it\n"
            ),
        );
    }
    let root = Root::new("[master]\n");
    root.chmod("etc/buildbot-conda", 0o1777);
    refused(
        &root,
        "/etc/buildbot-conda: can be written by others than root (mode 1777)\n\
         hint: `chmod go-w /etc/buildbot-conda` once you have checked it\n",
    );
}

#[test]
fn a_configuration_of_another_owner_is_not_believed() {
    for path in [CONFIG, "etc/buildbot-conda"] {
        let root = Root::new("[master]\n");
        if fs::metadata(root.path(path)).unwrap().uid() != 0 {
            eprintln!("skipped: only root can give files away");
            return;
        }
        std::os::unix::fs::chown(root.path(path), Some(1000), None).unwrap();
        refused(
            &root,
            &format!(
                "/{path}: belongs to user 1000, not to root\n\
                 hint: `chown root: /{path}` once you have checked it\n"
            ),
        );
    }
}

#[test]
fn a_linked_configuration_is_judged_by_its_target() {
    let root = Root::bare();
    root.write("srv/site.toml", "[master]\n");
    root.link(CONFIG, root.path("srv/site.toml"));
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ["master"]);
    root.chmod("srv/site.toml", 0o666);
    assert!(
        root.run()
            .contains("can be written by others than root (mode 0666)")
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
        assert_eq!(
            root.run(),
            "/normal: is no directory to write drop-ins to\n"
        );
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
