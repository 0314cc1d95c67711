//! An apt repository made by `buildbot-conda repo`, as Debian's own apt of both releases sees it over http: what it
//! installs from there, and what it refuses.

use buildbot_conda_package_tests::{DebianRoot, Release, RepositoryHost, Server, on_each_release};

on_each_release! {
    the_package_is_installed_upgraded_and_taken_back,
    what_is_not_as_it_was_signed_is_refused,
    keys_are_changed_without_a_client_noticing,
}

/// Makes a version of the package under test.
const OTHER_VERSION: &str = r#"
other_version() {
    rm -rf /tmp/other
    dpkg-deb --raw-extract /buildbot-conda.deb /tmp/other
    sed -i "s/^Version: .*/Version: $1/" /tmp/other/DEBIAN/control
    dpkg-deb --root-owner-group -Znone --build /tmp/other "/srv/debs/buildbot-conda_$1_amd64.deb"
}
"#;

/// apt without the questions.
const INSTALL: &str = "apt-get install --yes --no-install-recommends";

/// Messages of apt-get update that must be errors, not remarks.
const UPDATE: &str = "apt-get update -o APT::Update::Error-Mode=any";

#[track_caller]
fn installed(client: &DebianRoot, package: &str) -> String {
    let query = format!("dpkg-query -W -f '${{db:Status-Abbrev}}${{Version}}' {package}");
    let outcome = client.run(&query);
    outcome
        .stdout
        .strip_prefix("ii ")
        .unwrap_or_default()
        .to_owned()
}

fn the_package_is_installed_upgraded_and_taken_back(release: Release) {
    let host = RepositoryHost::new(release);
    let server = host.serve();
    host.create(&server, "");
    host.must(&format!(
        "{OTHER_VERSION}other_version 90.1; other_version 90.2~rc1
         buildbot-conda repo add /srv/apt /srv/debs/buildbot-conda_90.1_amd64.deb"
    ));
    let client = host.client(release);
    client.must(UPDATE);
    client.must(&format!("{INSTALL} buildbot-conda </dev/null"));
    assert_eq!(installed(&client, "buildbot-conda"), "90.1");

    host.must("buildbot-conda repo add /srv/apt /srv/debs/buildbot-conda_90.2~rc1_amd64.deb");
    client.must(UPDATE);
    client.must("apt-get upgrade --yes </dev/null");
    assert_eq!(installed(&client, "buildbot-conda"), "90.2~rc1");

    client.write(
        "/etc/apt/preferences.d/buildbot-conda",
        "Package: buildbot-conda\nPin: version 90.1\nPin-Priority: 1001\n",
    );
    client.must("apt-get upgrade --yes --allow-downgrades </dev/null");
    assert_eq!(installed(&client, "buildbot-conda"), "90.1");
    assert_eq!(
        host.must("buildbot-conda repo verify /srv/apt"),
        "buildbot-conda 90.1 amd64\nbuildbot-conda 90.2~rc1 amd64\n"
    );
}

/// Each has a name, the change of a copy of a valid repository in the directory of its suite, and apt's message, first
/// on bookworm and then on trixie if it differs. `FINGERPRINT` and `OTHER` are those of keys, `$top` is the copy. All
/// that are not about signatures have a valid one.
const BAD: [(&str, &str, &str); 10] = [
    ("unsigned", "rm InRelease Release.gpg", "is not signed"),
    (
        "signature",
        "sed -i 's/^Label:.*/Label: other/' InRelease; rm Release.gpg",
        "BADSIG|Message has been manipulated",
    ),
    (
        "detached",
        "sed -i 's/^Label:.*/Label: other/' Release; rm InRelease",
        "BADSIG|Message has been manipulated",
    ),
    (
        "index",
        "for file in $(find main -type f); do printf X | dd of=$file bs=1 seek=99 conv=notrunc status=none; done",
        "Hash Sum mismatch",
    ),
    (
        "package",
        "sed -i s/greets/GREETS/ $(find $top/pool -name '*.deb')",
        "Hash Sum mismatch",
    ),
    (
        "expired",
        "sed -i 's/^Valid-Until: .*/Valid-Until: Fri, 03 Jan 2020 00:00:00 UTC/' Release; sign --local-user FINGERPRINT",
        "is expired",
    ),
    (
        "wrong-key",
        "sign --local-user OTHER",
        "NO_PUBKEY|Missing key",
    ),
    (
        "sha1-signature",
        "sign --local-user FINGERPRINT --digest-algo SHA1",
        "The following signatures were invalid: FINGERPRINT|Policy rejected non-revocation signature",
    ),
    (
        "sha1-release",
        "sed -i '/^SHA256:/,$d' Release
         echo SHA1: >>Release
         for file in $(find main -name 'Packages*'); do
             echo \" $(sha1sum <$file | cut -d' ' -f1) $(stat -c %s $file) $file\" >>Release
         done
         sign --local-user FINGERPRINT",
        "provides only weak security information",
    ),
    (
        "sha1-index",
        "sum=$(sha1sum <$(find $top/pool -name '*.deb') | cut -d' ' -f1)
         file=main/binary-all/Packages
         sed -i \"s/^SHA256: .*/SHA1: $sum/\" $file
         rm -r main/binary-all/by-hash $file.gz
         sed -i -e /^Acquire-By-Hash/d -e '/^SHA256:/,$d' Release
         echo SHA256: >>Release
         echo \" $(sha256sum <$file | cut -d' ' -f1) $(stat -c %s $file) $file\" >>Release
         sign --local-user FINGERPRINT",
        "Insufficient information available to perform this download securely",
    ),
];

/// Signs the content of this directory again.
const SIGN: &str = r#"
sign() {
    rm -f InRelease Release.gpg
    gpg --quiet --batch "$@" --clearsign --output InRelease Release
    gpg --quiet --batch "$@" --armor --detach-sign --output Release.gpg Release
}
"#;

fn what_is_not_as_it_was_signed_is_refused(release: Release) {
    let host = RepositoryHost::new(release);
    let server = host.serve();
    host.create(&server, "");
    host.publish(&["1"]);
    let other = host.make_key("Somebody else");
    let filled = |text: &str| {
        text.replace("FINGERPRINT", host.key())
            .replace("OTHER", &other)
    };
    for (name, spoil, _) in BAD {
        let spoil = filled(spoil);
        host.must(&format!(
            "{SIGN}top=/srv/{name}; cp -a /srv/apt $top; cd $top/dists/stable/; {spoil}"
        ));
    }

    let sources = "/etc/apt/sources.list.d/example.sources";
    let good = host.client(release);
    for (name, _, words) in BAD {
        let client = good.fork();
        client.must(&format!("sed -i s,/apt$,/{name}, {sources}"));
        let update = client.run(UPDATE);
        let install = client.run(&format!("{INSTALL} hello </dev/null"));
        let talk = format!("{}\n{}", update.talk(), install.talk());
        assert_ne!(install.status, 0, "{name}: {talk}");
        assert_eq!(installed(&client, "hello"), "", "{name}");
        // The signature is valid, but the content is a package that apt refuses later.
        let by_package = ["package", "sha1-index"].contains(&name);
        assert_eq!(update.status == 0, by_package, "{name}: {talk}");
        let reason = filled(words);
        let said = talk
            .lines()
            .find(|line| reason.split('|').any(|words| line.contains(words)));
        let Some(said) = said else {
            panic!("{name} is refused for another reason: {talk}");
        };
        eprintln!("{name}: {said}");
        // Our own command does not believe it, either.
        let verify = host.run(&format!("buildbot-conda repo verify /srv/{name}"));
        assert_eq!(verify.status, 1, "{name}: {}", verify.stdout);
    }

    // What is only too old can be renewed.
    let client = good.fork();
    host.must("buildbot-conda repo refresh /srv/expired");
    client.must(&format!("sed -i s,/apt$,/expired, {sources}"));
    client.must(UPDATE);

    // A client that does not know `InRelease` finds what it needs.
    let client = good.fork();
    host.must("cp -a /srv/apt /srv/old; rm /srv/old/dists/stable/InRelease");
    client.must(&format!("sed -i s,/apt$,/old, {sources}"));
    client.must(UPDATE);

    // It is nothing else that apt dislikes.
    good.must(UPDATE);
    good.must(&format!("{INSTALL} hello"));
    assert_eq!(installed(&good, "hello"), "1");
}

fn keys_are_changed_without_a_client_noticing(release: Release) {
    let host = RepositoryHost::new(release);
    let server = host.serve();
    host.create(&server, "");
    host.publish(&["1"]);
    let old = host.client(release);
    old.must(UPDATE);
    let new_key = host.make_key("Example packages, 2");

    // A key that signs alone from one moment to the next is refused: clients would be.
    let keys = |keys: &[&str]| {
        let list = keys.join("\", \"");
        host.must(&format!(
            "sed -i 's/^keys = .*/keys = [\"{list}\"]/' /srv/apt/repository.toml"
        ));
    };
    keys(&[&new_key]);
    let refused = host.run("buildbot-conda repo refresh /srv/apt");
    assert_eq!(refused.status, 1);
    assert_eq!(
        refused.stderr,
        "error: `/srv/apt/generations/stable/1/InRelease` is not signed by a key in the settings\n\
         hint: change keys in two steps, first with the old and the new key\n"
    );

    // In between, both sign, and the file for clients contains both.
    keys(&[host.key(), &new_key]);
    host.publish(&["2"]);
    let both = host.client(release);
    for client in [&old, &both] {
        client.must(UPDATE);
        client.must(&format!("{INSTALL} hello"));
        assert_eq!(installed(client, "hello"), "2");
    }

    // In the end, the old key is removed; a client that has only the old one refuses the repository.
    keys(&[&new_key]);
    host.must(&format!(
        "gpg --batch --yes --delete-secret-keys {}",
        host.key()
    ));
    host.publish(&["3"]);
    let new = host.client(release);
    for client in [&both, &new] {
        client.must(UPDATE);
        client.must(&format!("{INSTALL} hello"));
        assert_eq!(installed(client, "hello"), "3");
    }
    assert_ne!(old.run(UPDATE).status, 0);
    host.hand_over_sources(&old);
    old.must(UPDATE);
}

/// The commands of README's section, in their order.
fn commands_of(section: &str) -> Vec<String> {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme
        .split_once(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("README.md has no section `{section}`"));
    let text = rest.split("\n## ").next().unwrap_or_default();
    let blocks = text.split("```shell\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
    lines
        .map(|line| line.strip_prefix("sudo ").unwrap_or(line))
        .map(str::to_owned)
        .collect()
}

/// Answers for the person at the keyboard who is asked for a passphrase.
const PINENTRY: &str = "#!/bin/sh
echo 'OK at your service'
while read -r command rest; do
    case $command in
        GETPIN) echo 'D correct horse'; echo OK ;;
        BYE) echo OK; exit ;;
        *) echo OK ;;
    esac
done
";

#[test]
fn the_commands_of_the_readme_work_as_they_are_written() {
    let release = Release::Trixie;
    let commands = commands_of("Your own repository");
    let (client_commands, host_commands): (Vec<_>, Vec<_>) = commands
        .into_iter()
        .partition(|command| command.starts_with("apt "));
    assert!(
        host_commands.len() >= 4 && client_commands.len() >= 2,
        "{host_commands:?}"
    );

    let host = RepositoryHost::bare(release);
    host.install();
    host.write("/usr/local/bin/pinentry-test", PINENTRY);
    host.write(
        "/root/.gnupg/gpg-agent.conf",
        "pinentry-program /usr/local/bin/pinentry-test\n",
    );
    host.must(
        "chmod +x /usr/local/bin/pinentry-test; chmod 700 /root/.gnupg; mkdir -p /tmp/here
         cp /buildbot-conda.deb \"/tmp/here/$(dpkg-deb -W --showformat='${Package}_${Version}_${Architecture}' /buildbot-conda.deb).deb\"",
    );
    // One session on a terminal, in which gpg asks whether to continue.
    host.write(
        "/tmp/session",
        &format!("cd /tmp/here\n{}\n", host_commands.join("\n")),
    );
    host.must("echo y | script --quiet --return --command 'sh -eux /tmp/session' /dev/null");

    let server = Server::start(host.upper().join("srv/apt"));
    let client = DebianRoot::new(release);
    client.must("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*");
    client.write(
        "/etc/apt/apt.conf.d/proxy",
        &format!("Acquire::http::Proxy \"{}\";\n", server.url()),
    );
    client.write(
        "/etc/apt/sources.list.d/example.sources",
        &host.text("/srv/apt/example.sources"),
    );
    for command in client_commands {
        client.must(&format!("{command} </dev/null"));
    }
    assert_ne!(installed(&client, "buildbot-conda"), "");
    // The passphrase is needed, and can come from a file.
    host.must("rm /usr/local/bin/pinentry-test; echo 'correct horse' >/root/passphrase");
    assert_eq!(host.run("buildbot-conda repo refresh /srv/apt").status, 1);
    host.must("buildbot-conda repo refresh /srv/apt --passphrase-file /root/passphrase");
}
