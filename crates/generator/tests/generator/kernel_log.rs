//! Problems are written to the kernel log if there is one, and nowhere else.

use std::fs::{self, File};
use std::io::Read;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::Root;

const BAD: &str = "[\"worker@BAD\"]\ndirectory = \"/srv/bad\"\n[master]\n";

/// Both ends of a pseudo-terminal: what reads, and the path of the device to write to.
fn character_device() -> (File, String) {
    let reader = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&reader).unwrap();
    unlockpt(&reader).unwrap();
    let path = ptsname(&reader, Vec::new()).unwrap();
    (File::from(reader), path.into_string().unwrap())
}

#[test]
fn a_problem_is_one_record_of_the_kernel_log() {
    let root = Root::new("[master]\ndrain = \"soon\"\n");
    let (mut reader, device) = character_device();
    // Held open, so that what was written is not lost with the last writer.
    let held = File::options().write(true).open(&device).unwrap();
    root.link("dev/kmsg", device);
    root.run();
    let mut text = [0; 4096];
    let length = reader.read(&mut text).unwrap();
    drop(held);
    let text = String::from_utf8_lossy(&text[..length]).replace("\r\n", "\n");
    let start = "<28>buildbot-conda-generator: ";
    assert!(text.starts_with(start), "{text}");
    let end = "/etc/buildbot-conda/config.toml:2:9: master.drain: `soon` is not a duration; hint: write \
               a number and a unit, such as `90s`, `2min` or `1h 30min`\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn an_absent_kernel_log_is_not_created() {
    let root = Root::new(BAD);
    fs::create_dir(root.path("dev")).unwrap();
    assert!(root.run().contains("worker@BAD"));
    assert_eq!(fs::read_dir(root.path("dev")).unwrap().count(), 0);
    assert_eq!(root.instances(), ["master"]);
}

#[test]
fn what_is_no_character_device_is_not_written_to() {
    let root = Root::new(BAD);
    root.write("dev/kmsg", "untouched");
    assert!(root.run().contains("worker@BAD"));
    assert_eq!(
        fs::read_to_string(root.path("dev/kmsg")).unwrap(),
        "untouched"
    );
    let root = Root::new(BAD);
    root.fifo("dev/kmsg");
    assert!(root.run().contains("worker@BAD"));
    let root = Root::new(BAD);
    fs::create_dir_all(root.path("dev/kmsg")).unwrap();
    assert!(root.run().contains("worker@BAD"));
    assert_eq!(root.instances(), ["master"]);
}

#[test]
fn a_kernel_log_that_takes_nothing_does_not_stop_it() {
    let root = Root::new(BAD);
    root.link("dev/kmsg", "/dev/full");
    assert!(root.run().contains("worker@BAD"));
    assert_eq!(root.instances(), ["master"]);
}

#[test]
fn the_kernel_log_is_not_flooded() {
    let keys: Vec<String> = (0..100).map(|number| format!("k{number} = 1\n")).collect();
    let root = Root::new("[master]\n".to_owned() + &keys.concat());
    let (mut reader, device) = character_device();
    let held = File::options().write(true).open(&device).unwrap();
    root.link("dev/kmsg", device);
    assert_eq!(root.run().matches("unknown key").count(), 100);
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("buildbot-conda check") {
        let mut part = [0; 4096];
        let length = reader.read(&mut part).unwrap();
        text.extend_from_slice(&part[..length]);
    }
    drop(held);
    assert_eq!(String::from_utf8_lossy(&text).matches("<28>").count(), 21);
}
