//! Debian's own checkers, lintian and piuparts, of both releases, each in a root of its release.

use std::process::Command;

use buildbot_conda_package_tests::{CHECKERS, DebianRoot, Package, Release, on_each_release};

on_each_release! {
    lintian_has_nothing_to_say,
    piuparts_passes,
    fish_offers_verbs_and_options,
}

fn lintian_has_nothing_to_say(release: Release) {
    // Bookworm's lintian wants scripts for init systems that the package cannot serve. Trixie's has no such check any
    // more, and calls an override of it an error, so it cannot be in the package.
    let suppressed = match release {
        Release::Bookworm => {
            "--suppress-tags package-supports-alternative-init-but-no-init.d-script"
        }
        Release::Trixie => "",
    };
    let root = DebianRoot::with_programs(release, &CHECKERS);
    let environments = Package::open_environments();
    std::fs::copy(environments.archive(), root.upper().join("env.deb")).expect("it can be copied");
    let outcome = root.run(&format!(
        "lintian --allow-root -EvIL +pedantic {suppressed} /buildbot-conda.deb /env.deb"
    ));
    let talk = outcome.talk();
    let tags: Vec<&str> = talk
        .lines()
        // `N:` starts a remark, for example of -v, and `O:` would be an overridden tag.
        .filter(|line| {
            line.split_once(": ")
                .is_some_and(|(kind, _)| kind.len() == 1)
        })
        .filter(|line| !line.starts_with("N: "))
        .filter(|line| !is_machine_code(line))
        .collect();
    assert!(
        outcome.status == 0 && tags.is_empty(),
        "status {}, {tags:?}\n{talk}",
        outcome.status
    );
    eprintln!("{talk}");
}

/// Whether lintian took instructions for a misspelt word, such as `wtH`: `H` is a byte that most of those on 64 bits
/// begin with. Nobody writes a capital after a small letter; an override would be in the way of the next build, which
/// has other instructions.
fn is_machine_code(line: &str) -> bool {
    let tag = " spelling-error-in-binary ";
    let word = line
        .split_once(tag)
        .and_then(|(_, rest)| rest.split(' ').next());
    word.is_some_and(|word| {
        word.as_bytes()
            .windows(2)
            .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
    })
}

#[test]
fn only_words_that_nobody_writes_are_machine_code() {
    let tag = "I: buildbot-conda: spelling-error-in-binary";
    for (words, expect) in [
        ("wtH with", true),
        ("teH the", true),
        ("recieve receive", false),
        ("Recieve Receive", false),
        ("TEH THE", false),
    ] {
        let line = format!("{tag} {words} [usr/bin/buildbot-conda]");
        assert_eq!(is_machine_code(&line), expect, "{line}");
    }
    assert!(!is_machine_code("I: buildbot-conda: another-tag wtH"));
}

/// Installation, removal and purge in a system without sources, because all dependencies are installed: no mirror is
/// needed. `/home/bb` is kept intentionally, with the account.
fn piuparts_passes(release: Release) {
    let root = DebianRoot::with_programs(release, &CHECKERS);
    let plain = DebianRoot::new(release).lower();
    let copy = Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([plain[0].as_path(), &root.upper().join("base")])
        .status()
        .expect("cp runs");
    assert!(copy.success());
    let script = format!(
        "rm -rf /base/etc/apt/sources.list /base/etc/apt/sources.list.d/*\n\
         piuparts --existing-chroot=/base --distribution={code_name} --keep-sources-list --no-upgrade-test \
             --no-eatmydata --ignore-regex='^/?home/bb(/.*)?$' /buildbot-conda.deb",
        code_name = release.code_name()
    );
    let outcome = root.run(&script);
    let talk = outcome.talk();
    assert_eq!(outcome.status, 0, "{talk}");
    assert!(
        talk.contains("PASS: Installation and purging test."),
        "{talk}"
    );
    assert!(talk.contains("PASS: All tests."), "{talk}");
    for line in talk.lines().filter(|line| line.contains("PASS: ")) {
        eprintln!("{line}");
    }
}

fn fish_offers_verbs_and_options(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &CHECKERS);
    let verbs = root.must("fish --command 'complete --do-complete \"buildbot-conda \"'");
    for verb in ["list", "status", "create"] {
        assert!(verbs.contains(&format!("{verb}\t")), "{verbs}");
    }
    for hidden in ["manual", "service"] {
        assert!(!verbs.contains(&format!("{hidden}\t")), "{verbs}");
    }
    let options = root.must("fish --command 'complete --do-complete \"buildbot-conda list --\"'");
    assert!(options.contains("--json\t"), "{options}");
}
