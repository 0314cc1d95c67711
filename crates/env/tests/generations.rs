//! The program as `buildbot-conda env` calls it, with a channel created for the test: the results for valid files, and
//! that invalid ones leave nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

mod channel;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use channel::{Host, file, link, mode};
use serde_json::{Value, json};

fn good() -> Host {
    Host::with(&[
        (
            "one",
            "1",
            vec![
                file("bin/one", "one\n", 0o4777),
                file("share/one", "1", 0o666),
            ],
        ),
        (
            "two",
            "2",
            vec![file("lib/two.so", "2", 0o600), link("lib/two", "two.so")],
        ),
    ])
}

#[test]
fn a_generation_is_complete_and_the_same_packages_have_the_same_one() {
    let host = good();
    let said = host.make(&host.lock());
    let prefix = host.prefix(&said);
    assert_eq!(said.answer["made"], true);
    assert_eq!(fs::read_to_string(prefix.join("lib/two")).unwrap(), "2");
    // Readable by everyone, written by root, and without programs of other accounts.
    assert_eq!(mode(&prefix), 0o755);
    assert_eq!(mode(&prefix.join("bin/one")), 0o755);
    assert_eq!(mode(&prefix.join("share/one")), 0o644);
    assert_eq!(mode(&prefix.join("lib/two.so")), 0o644);
    let lock = fs::read_to_string(prefix.join("conda-meta/buildbot-conda.lock")).unwrap();
    let again = host.make(&lock);
    assert_eq!(again.answer["generation"], said.answer["generation"]);
    assert_eq!(again.answer["made"], false);
    assert_eq!(host.made().len(), 1);
}

/// The caller has closed a pipe, or lost a connection.
#[test]
fn a_reader_of_stderr_that_goes_keeps_nothing_from_being_made() {
    let host = good();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = host.command(&host.lock()).stderr(writer).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"made\":true"));
}

#[test]
fn every_format_names_the_same_packages() {
    let host = good();
    let channel = host.channel();
    let explicit = host.run(&host.lock(), &["--dry-run"]).answer;
    assert_eq!(explicit["packages"].as_array().unwrap().len(), 2);

    let yml = format!("channels: [\"{channel}\"]\ndependencies: [one, two >=2]\n");
    let (mut pixi, mut conda_lock) = (
        format!(
            "version: 6\nenvironments:\n  default:\n    channels:\n    - url: {channel}/\n    packages:\n      linux-64:\n"
        ),
        format!(
            "version: 1\nmetadata:\n  content_hash:\n    linux-64: {}\n  channels:\n  - url: {channel}\n    used_env_vars: []\n  \
             platforms: [linux-64]\n  sources: []\npackage:\n",
            "0".repeat(64)
        ),
    );
    let mut packages = "packages:\n".to_owned();
    for package in host.packages() {
        let [name, version, file, sha256, md5] =
            ["name", "version", "file", "sha256", "md5"].map(|key| package[key].as_str().unwrap());
        let url = format!("{channel}/noarch/{file}");
        writeln!(pixi, "      - conda: {url}").unwrap();
        write!(
            packages,
            "- conda: {url}\n  sha256: {sha256}\n  md5: {md5}\n  subdir: noarch\n  noarch: generic\n"
        )
        .unwrap();
        write!(
            conda_lock,
            "- name: {name}\n  version: '{version}'\n  manager: conda\n  platform: linux-64\n  dependencies: {{}}\n  url: {url}\n  \
             hash:\n    md5: {md5}\n    sha256: {sha256}\n  category: main\n  optional: false\n"
        )
        .unwrap();
    }
    for text in [yml, pixi + &packages, conda_lock] {
        let said = host.run(&text, &["--dry-run"]);
        assert!(said.success, "{}\n{text}", said.stderr);
        assert_eq!(said.answer["generation"], explicit["generation"], "{text}");
    }
    assert_eq!(host.made().len(), 0);
}

/// The names are those of conda-forge, which a test cannot access: a channel that contains only these names solves the
/// file.
#[test]
fn the_file_that_the_package_ships_is_solved_by_packages_of_its_names() {
    let shipped = include_str!("../../../debian/environment.yml");
    let names: Vec<&str> = shipped
        .lines()
        .filter_map(|line| line.strip_prefix("  - "))
        .filter(|name| *name != "conda-forge")
        .collect();
    assert!(
        names.contains(&"buildbot-www") && names.len() > 10,
        "{names:?}"
    );
    let packages: Vec<_> = names.iter().map(|name| (*name, "1", Vec::new())).collect();
    let host = Host::with(&packages);
    let said = host.run(shipped, &["--dry-run", "--channel", &host.channel()]);
    assert!(said.success, "{}", said.stderr);
    let found = said.answer["packages"].as_array().unwrap();
    assert_eq!(found.len(), names.len(), "{found:?}");
}

#[test]
fn variables_of_an_environment_yml_are_part_of_the_generation() {
    let host = good();
    let text = |value: &str| {
        let channel = host.channel();
        format!("channels: [\"{channel}\"]\ndependencies: [one]\nvariables: {{A: \"{value}\"}}\n")
    };
    let said = host.make(&text("1"));
    let state = fs::read_to_string(host.prefix(&said).join("conda-meta/state")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["env_vars"]["A"], "1");
    assert_ne!(
        host.make(&text("2")).answer["generation"],
        said.answer["generation"]
    );
}

#[test]
fn packages_that_do_not_fit_together_are_told() {
    let host = good();
    let channel = host.channel();
    let text = format!("channels: [\"{channel}\"]\ndependencies: [one, two <2]\n");
    let said = host.run(&text, &[]);
    assert!(
        !said.success
            && said
                .stderr
                .contains("error: the dependencies cannot be satisfied"),
        "{}",
        said.stderr
    );
    assert_eq!(host.made().len(), 0);
}

#[test]
fn an_archive_that_is_not_the_one_named_is_refused() {
    let host = good();
    let lock = host.lock();
    let file = host.packages()[0]["file"].as_str().unwrap();
    let path = host.path("channel/noarch").join(file);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    let said = host.run(&lock, &[]);
    assert!(
        said.stderr.contains("is not the expected package"),
        "{}",
        said.stderr
    );

    // A checksum of a package that was broken before it was named.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let sum = std::process::Command::new("sha256sum")
        .arg(&path)
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let (old, new) = (
        host.packages()[0]["sha256"].as_str().unwrap(),
        sum.split(' ').next().unwrap(),
    );
    let said = host.run(&lock.replace(old, new), &[]);
    assert!(
        !said.success && said.stderr.contains("unpack `one-1-0.tar.bz2`"),
        "{}",
        said.stderr
    );
    assert_eq!(host.made().len(), 0);
}

#[test]
fn nothing_leads_out_of_the_environment() {
    let listed = |path: &str, listed: &str| {
        let mut member = file(path, "evil", 0o644);
        member["listed"] = listed.into();
        member
    };
    let cases = [
        ("its list", vec![listed("share/evil", "../../evil")]),
        ("its list, absolute", vec![listed("share/evil", "/evil")]),
        (
            "its records",
            vec![file("conda-meta/evil.json", "{}", 0o644)],
        ),
        ("its archive", vec![file("../../../evil", "evil", 0o644)]),
        ("a link", vec![link("share/evil", "../../evil")]),
        ("an absolute link", vec![link("share/evil", "/etc/passwd")]),
        (
            "a file below a link",
            vec![link("share", "lib"), file("share/evil", "evil", 0o644)],
        ),
    ];
    for (way, members) in cases {
        let host = Host::with(&[("evil", "1", members)]);
        let said = host.run(&host.lock(), &[]);
        assert!(!said.success, "{way}: {}", said.stderr);
        assert_eq!(host.made(), Vec::<String>::new(), "{way}");
        for place in ["evil", "cache/evil", "cache/pkgs/evil", "environment/evil"] {
            assert!(!host.path(place).exists(), "{way}: {place}");
        }
    }
    // Of two packages, one contains the link and the other the file below it.
    let host = Host::with(&[
        ("evil", "1", vec![link("share", "lib")]),
        ("other", "1", vec![file("share/file", "evil", 0o644)]),
    ]);
    let said = host.run(&host.lock(), &[]);
    assert!(
        said.stderr.contains("is below the link `share` of `evil`"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_link_that_the_list_does_not_tell_of_leads_to_no_file_of_the_host() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "hidden").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let with = |mut member: Value, key: &str, value: Value| {
        member[key] = value;
        member
    };
    let to = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let below = vec![
        with(link("lib", &to(outside.path())), "hidden", true.into()),
        with(file("share/one", "", 0o644), "listed", "lib/secret".into()),
    ];
    let itself = vec![with(
        with(link("lib", &to(&secret)), "kind", "hardlink".into()),
        "placeholder",
        "/old".into(),
    )];
    for (members, reason) in [
        (below, "`lib/secret` is below a link"),
        (itself, "`lib` differs from its file list"),
    ] {
        let host = Host::with(&[("evil", "1", members)]);
        let said = host.run(&host.lock(), &[]);
        assert!(
            !said.success && said.stderr.contains(reason),
            "{}",
            said.stderr
        );
        assert_eq!(mode(&secret), 0o600);
        assert_eq!(host.made(), Vec::<String>::new());
    }
}

#[test]
fn what_was_not_unpacked_whole_is_unpacked_again() {
    let host = good();
    host.run(&host.lock(), &[]);
    let made = host.made();
    fs::remove_dir_all(host.path("environment").join(&made[0])).unwrap();
    let unpacked = host.path("cache/pkgs/one-1-0/bin/one");
    // As a power cut may leave it.
    fs::write(&unpacked, "").unwrap();
    let said = host.run(&host.lock(), &[]);
    assert!(said.success, "{}", said.stderr);
    assert!(fs::metadata(unpacked).unwrap().len() > 0);
    let file = host.path("environment").join(&made[0]).join("bin/one");
    assert!(fs::metadata(file).unwrap().len() > 0);
}

#[test]
fn scripts_of_packages_are_named_and_not_run() {
    let script = "#!/bin/sh\ntouch \"$PREFIX/was-run\"\n";
    let host = Host::with(&[(
        "one",
        "1",
        vec![file("bin/.one-post-link.sh", script, 0o755)],
    )]);
    let said = host.make(&host.lock());
    let warning = said.answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("which is not run"), "{warning}");
    assert!(!host.prefix(&said).join("was-run").exists());
}

#[test]
fn a_download_that_breaks_is_resumed_and_kept() {
    let host = good();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let channel = format!("http://{}/channel", listener.local_addr().unwrap());
    let lock = format!("@EXPLICIT\n{}", host.lines(&channel));
    let directory = host.path("channel/noarch");
    let server = thread::spawn(move || serve(&listener, &directory));
    let said = host.make(&lock);
    let resumed = server.join().unwrap();
    assert_eq!(resumed, 2, "{}", said.stderr);
    // Cached: nothing listens any more, and nothing is requested.
    let again = host.run(&lock, &["--offline"]);
    assert_eq!(
        again.answer["generation"], said.answer["generation"],
        "{}",
        again.stderr
    );
    let other = host.run(&lock.replace("/one-", "/other-one-"), &["--offline"]);
    assert!(!other.success, "{}", other.stderr);
}

/// Serves two files, each in two halves; how many requests asked for the second half.
fn serve(listener: &TcpListener, directory: &Path) -> usize {
    let mut resumed = 0;
    while resumed < 2 {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let request = lines.next().unwrap().unwrap();
        let headers: Vec<String> = lines
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        let name = request
            .split(' ')
            .nth(1)
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        let content = fs::read(directory.join(name)).unwrap();
        let range = headers.iter().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("range: bytes=")
                .map(str::to_owned)
        });
        let (status, part, length) = if let Some(range) = range {
            let start: usize = range.trim_end_matches('-').parse().unwrap();
            assert_eq!(start, content.len() / 2);
            resumed += 1;
            (
                "206 Partial Content",
                &content[start..],
                content.len() - start,
            )
        } else {
            // More is promised than comes.
            ("200 OK", &content[..content.len() / 2], content.len())
        };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(part).unwrap();
    }
    resumed
}

#[test]
fn no_device_comes_with_a_package() {
    let mut device = file("dev/null", "", 0o666);
    device["device"] = true.into();
    let host = Host::with(&[("evil", "1", vec![device])]);
    let said = host.make(&host.lock());
    // What it is unpacked to is an empty file.
    let metadata = fs::symlink_metadata(host.prefix(&said).join("dev/null")).unwrap();
    assert!(metadata.is_file() && metadata.len() == 0, "{metadata:?}");
    assert_eq!(mode(&host.prefix(&said).join("dev/null")), 0o644);
}

/// A server of a channel behind a password; ends when `count` requests had it.
fn guarded(listener: &TcpListener, directory: &Path, count: usize) {
    let mut served = 0;
    while served < count {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let head: Vec<String> = lines
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        // `user:geheim`.
        let has_password = head
            .iter()
            .any(|line| line.eq_ignore_ascii_case("authorization: Basic dXNlcjpnZWhlaW0="));
        let name = head[0].split(' ').nth(1).unwrap();
        let name = name.rsplit('/').next().unwrap();
        let (status, content) = if has_password {
            served += 1;
            ("200 OK", fs::read(directory.join(name)).unwrap())
        } else {
            ("401 Unauthorized", Vec::new())
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            content.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // It may have disappeared.
        let _ = stream.write_all(&content);
    }
}

#[test]
fn a_password_comes_from_where_others_have_it_and_is_never_told() {
    let host = good();
    let directory = host.path("channel/noarch");
    let home = host.path("home");
    fs::create_dir(&home).unwrap();
    let netrc = home.join(".netrc");
    let file = home.join("credentials.json");
    let (netrc_text, file_text) = (
        "machine 127.0.0.1 login user password geheim\n",
        r#"{"127.0.0.1": {"BasicHTTP": {"username": "user", "password": "geheim"}}}"#,
    );
    for (place, with) in [
        ("netrc", Some((&netrc, netrc_text, "NETRC"))),
        ("a file", Some((&file, file_text, "RATTLER_AUTH_FILE"))),
        ("the address", None),
        ("nowhere", None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let user = if place == "the address" {
            "user:geheim@"
        } else {
            ""
        };
        let lock = format!(
            "@EXPLICIT\n{}",
            host.lines(&format!("http://{user}{address}/channel"))
        );
        if let Some((path, text, _)) = with {
            fs::write(path, text).unwrap();
        }
        let directory = directory.clone();
        let count = if place == "nowhere" { usize::MAX } else { 2 };
        // If nobody knows the password, it refuses until the test ends.
        let server = thread::spawn(move || guarded(&listener, &directory, count));
        let variables: Vec<(&str, &str)> = with
            .iter()
            .map(|(path, _, variable)| (*variable, path.to_str().unwrap()))
            .collect();
        let said = host.run_with(&lock, &[], &variables);
        if place != "nowhere" {
            server.join().unwrap();
        }
        assert_eq!(said.success, place != "nowhere", "{place}: {}", said.stderr);
        assert!(!said.stderr.contains("geheim"), "{place}: {}", said.stderr);
        if said.success {
            let lock = host.prefix(&said).join("conda-meta");
            for entry in fs::read_dir(lock).unwrap().map(Result::unwrap) {
                let text = fs::read_to_string(entry.path()).unwrap();
                assert!(!text.contains("geheim"), "{place}: {:?}", entry.path());
            }
            fs::remove_dir_all(host.prefix(&said)).unwrap();
            fs::remove_dir_all(host.path("cache")).unwrap();
        } else {
            let lines = said
                .stderr
                .lines()
                .filter(|line| line.starts_with("error: "));
            assert_eq!(lines.count(), 1, "{}", said.stderr);
            assert!(said.stderr.contains("hint: "), "{}", said.stderr);
        }
        for path in [&netrc, &file] {
            let _ = fs::remove_file(path);
        }
    }
}

/// The program on packages of which one is too much, with these options; nothing of it is left.
#[track_caller]
fn too_much(members: Vec<Value>, options: &[&str], reason: &str) {
    let host = Host::with(&[
        ("good", "1", vec![file("share/good", "", 0o644)]),
        ("evil", "1", members),
    ]);
    let said = host.run(&host.lock(), options);
    assert!(!said.success);
    assert!(
        said.stderr.contains("`evil-1-0.tar.bz2`"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains(reason), "{}", said.stderr);
    assert_eq!(fs::read_dir(host.path("environment")).unwrap().count(), 0);
    let left = fs::read_dir(host.path("cache/pkgs")).unwrap();
    let evil = left.filter(|entry| {
        let entry = entry.as_ref().unwrap();
        entry.file_name().to_string_lossy().starts_with("evil") && entry.path().is_dir()
    });
    assert_eq!(evil.count(), 0);
}

#[test]
fn an_archive_that_becomes_too_much_is_refused_before_it_is_on_disk() {
    let member = |rest: Value| {
        let mut member = file("share/evil", "", 0o644);
        member
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        vec![member]
    };
    let zeros = member(json!({ "zeros": 300 << 20 }));
    too_much(
        zeros,
        &[],
        "would unpack to more than 250 times as many\nhint: if the package is trusted, increase `--max-ratio`",
    );
    let many = member(json!({ "repeat": 20_000 }));
    too_much(
        many.clone(),
        &[],
        "contain more than 10001 files\nhint: if the package is trusted, increase `--max-ratio`",
    );
    let allowed = ["--max-ratio=1000000", "--max-files=10000"];
    too_much(
        many,
        &allowed,
        "the number of files exceeds 10000\nhint: increase `--max-files`",
    );
    let large = member(json!({ "zeros": 3 << 20 }));
    too_much(
        large,
        &["--max-size=2"],
        "the unpacked size exceeds 2 MiB\nhint: increase `--max-size`",
    );
    let long = vec![file(&format!("share/{}", "x".repeat(300)), "", 0o644)];
    too_much(long, &[], "File name too long");
    let deep = vec![file(&"x/".repeat(2000), "", 0o644)];
    too_much(deep, &[], "a path in it has");

    let host = Host::with(&[("good", "1", member(json!({ "repeat": 2000, "zeros": 10 })))]);
    assert!(host.make(&host.lock()).success);
}

#[test]
fn an_address_that_no_library_has_room_for_is_one_error() {
    let host = Host::with(&[("good", "1", vec![file("share/good", "", 0o644)])]);
    let long = format!("file:///{}", "x".repeat(70_000));
    for text in [
        format!("channels: [{long}]\ndependencies: [good]\n"),
        format!("channels: [nodefaults]\ndependencies: ['{long}::good']\n"),
        format!("@EXPLICIT\n{long}/noarch/good-1-0.tar.bz2\n"),
    ] {
        let said = host.run(&text, &["--offline"]);
        assert!(!said.success);
        let errors = said
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        assert_eq!(
            errors.count(),
            1,
            "{}",
            &said.stderr[..said.stderr.len().min(500)]
        );
        assert!(!said.stderr.contains("panicked at"));
        assert_eq!(fs::read_dir(host.path("environment")).unwrap().count(), 0);
    }
}
