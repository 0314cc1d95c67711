//! An apt repository while it is changed: clients that read meanwhile, processes that are killed, several at once, and
//! packages that must not get in.

use std::sync::{Arc, Mutex};
use std::thread;

use buildbot_conda_package_tests::{
    DebianRoot, Release, RepositoryHost, Server, deb, on_each_release,
};
use buildbot_conda_trace::{Ended, Event, Next, Pid, Step, run};

on_each_release! {
    a_client_that_reads_meanwhile_sees_one_state,
    many_readers_never_see_a_mixture,
    killed_at_any_moment_it_leaves_a_whole_state,
}

/// Fails for whatever apt does not like, remarks included; then fetches a package.
const READ: &str = "
if ! apt-get update -o APT::Update::Error-Mode=any >/tmp/said 2>&1 || grep '^[EW]:' /tmp/said; then
    cat /tmp/said; exit 1
fi
cd /tmp; rm -f hello_*; apt-get download -qq hello; test -s hello_*.deb
";

/// Between the first file that apt reads and the next, and again before it downloads a package, two new states are
/// published, the second of which no longer contains what the client has just read.
fn a_client_that_reads_meanwhile_sees_one_state(release: Release) {
    let host = Arc::new(RepositoryHost::new(release));
    let count = Arc::new(Mutex::new(0));
    let publish = {
        let (host, count) = (Arc::clone(&host), Arc::clone(&count));
        move || {
            let mut count = count.lock().expect("no publication has failed");
            *count += 1;
            host.publish(&[&format!("2.{count}")]);
        }
    };
    let change = publish.clone();
    let server = Server::with_hook(host.root().upper().join("srv"), move |path| {
        if path.contains("/by-hash/") || path.contains("/pool/") {
            change();
        }
    });
    host.create(&server, "--keep 1");
    publish();
    let client = host.client(release);
    for _ in 0..3 {
        let before = *count.lock().expect("no publication has failed");
        client.must(READ);
        let after = *count.lock().expect("no publication has failed");
        assert!(after >= before + 2, "{before} {after}");
        // The downloaded package is the one that the client had read about, not the current one.
        assert_eq!(
            client.must("cd /tmp; echo hello_*"),
            format!("hello_2.{before}_all.deb\n")
        );
    }
}

fn many_readers_never_see_a_mixture(release: Release) {
    const LAST: u32 = 12;
    let host = RepositoryHost::new(release);
    let server = host.serve();
    host.create(&server, "--keep 2");
    host.publish(&["1"]);
    let clients = [host.client(release), host.client(release)];
    let read_until_the_last =
        format!("until [ -e /tmp/hello_{LAST}_all.deb ]; do {READ} echo hello_*; done");
    thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| client.must(&read_until_the_last)))
            .collect();
        host.must(&format!(
            "for version in $(seq 2 {LAST}); do
                 hello $version; buildbot-conda repo add /srv/apt /srv/debs/hello_${{version}}_all.deb
             done"
        ));
        for reader in readers {
            let seen = reader.join().expect("a reader has seen no mixture");
            assert!(seen.ends_with(&format!("hello_{LAST}_all.deb\n")), "{seen}");
        }
    });
}

/// What is published, and what lies around.
const STATE: &str = "cd /srv/apt; sha256sum dists/stable/Release; find . -path ./generations -prune -o -print | sort
ls generations/stable | grep -v '^[0-9]*$' || true";

/// What our command and apt see of it; the two answers are of one length.
const READ_ON_HOST: &str = "buildbot-conda repo verify /srv/apt
apt-get update -o APT::Update::Error-Mode=any >/tmp/said 2>&1 || { cat /tmp/said >&2; exit 1; }
(cd /tmp; apt-get download -qq hello; echo hello_*)
";
const READ_ON_HOST_1: &str = "hello 1 all\nhello_1_all.deb\n";
const READ_ON_HOST_2: &str = "hello 2 all\nhello_2_all.deb\n";

/// Adds a version and drops another.
const CHANGE: &str = "buildbot-conda repo add /srv/apt /srv/debs/hello_2_all.deb";

/// Kills the command before each of its own steps that change a file. For our command and for apt, the result is either
/// the old state or the new one, and repeating the command completes it.
fn killed_at_any_moment_it_leaves_a_whole_state(release: Release) {
    let host = RepositoryHost::new(release);
    // A state that is too old for readers and a version that only it has are to be removed, too.
    host.must(&format!(
        "for version in 0.9 1 2; do hello $version; done
         buildbot-conda repo create /srv/apt --name example --keep 1 --key {} --url file:/srv/apt
         add() {{ SOURCE_DATE_EPOCH=$(date +%s --date \"$1 days ago\") buildbot-conda repo add /srv/apt $2; }}
         add 3 /srv/debs/hello_0.9_all.deb
         add 2 /srv/debs/hello_1_all.deb
         test -e /srv/apt/pool/main/h/hello/hello_0.9_all.deb
         rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
         cp /srv/apt/example.sources /etc/apt/sources.list.d/
         date +%s >/srv/date",
        host.key()
    ));
    let change = format!("export SOURCE_DATE_EPOCH=$(cat /srv/date); exec {CHANGE}");
    let undisturbed = host.root().fork();
    let moments = steps(&undisturbed, &change);
    let expected = undisturbed.must(STATE);
    assert!(moments.len() >= 40, "{moments:#?}");
    assert!(expected.contains("hello_2_all.deb"), "{expected}");
    assert!(!expected.contains("hello_0.9"), "{expected}");

    let mut left_old = 0;
    // Steps are the same on both; apt and gpg are not, and see every fourth of them on the older.
    let every = if release == Release::Trixie { 1 } else { 4 };
    for (number, step) in moments.iter().enumerate().step_by(every) {
        let root = host.root().fork();
        assert_eq!(kill_before(&root, &change, number), Ended::Killed, "{step}");
        let outcome = root.run(&format!("{READ_ON_HOST}({change}) 2>/dev/null\n{STATE}"));
        assert_eq!(outcome.status, 0, "before {step}: {}", outcome.talk());
        let (left, state) = outcome.stdout.split_at(READ_ON_HOST_1.len());
        match left {
            READ_ON_HOST_1 => left_old += 1,
            READ_ON_HOST_2 => {}
            _ => panic!("before {step}: {}", outcome.stdout),
        }
        assert_eq!(state, expected, "before {step}");
    }
    let tried = moments.len().div_ceil(every);
    assert!(left_old > 0 && left_old < tried, "{left_old} of {tried}");
    eprintln!("killed at {tried} moments, {left_old} of them before the switch");
}

/// The steps of our command, in their order.
fn steps(root: &DebianRoot, command: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let ended = follow(root, command, |step| {
        steps.push(format!("{} {}", step.call, step.paths.join(" ")));
        Next::Continue
    });
    assert_eq!(ended, Ended::Exited(0), "{steps:#?}");
    steps
}

fn kill_before(root: &DebianRoot, command: &str, number: usize) -> Ended {
    let mut count = 0;
    follow(root, command, |_| {
        count += 1;
        if count > number {
            Next::Kill
        } else {
            Next::Continue
        }
    })
}

/// Runs it and shows every step of our command that changes a file of the repository; gpg and dpkg-deb change none.
fn follow(root: &DebianRoot, command: &str, mut see: impl FnMut(&Step) -> Next + Send) -> Ended {
    let mut ours: Option<Pid> = None;
    let ended = run(&root.command(command), |event| match event {
        Event::Exec(exec) if exec.program.ends_with("buildbot-conda") => {
            ours = Some(exec.pid);
            Next::Continue
        }
        Event::Step(step) if ours == Some(step.pid) && is_in_repository(step) => see(step),
        _ => Next::Continue,
    });
    ended.expect("the command can be traced")
}

fn is_in_repository(step: &Step) -> bool {
    step.call != "execve" && step.paths.iter().any(|path| path.contains("/srv/apt/"))
}

#[test]
fn two_at_once_are_told_apart() {
    let host = RepositoryHost::new(Release::Bookworm);
    let server = host.serve();
    host.create(&server, "");
    host.publish(&["1"]);
    let before = host.must(STATE);
    let refused = host.run("flock /srv/apt/.lock buildbot-conda repo refresh /srv/apt");
    assert_eq!(refused.status, 1);
    assert_eq!(
        refused.stderr,
        "error: `/srv/apt` is in use by another process\n\
         hint: try again when it has finished\n"
    );
    assert_eq!(host.must(STATE), before);
    // As after a crash: the file exists, and no process holds it.
    host.must("test -e /srv/apt/.lock; buildbot-conda repo refresh /srv/apt");
}

#[test]
fn keys_that_would_not_do_are_refused() {
    let host = RepositoryHost::new(Release::Bookworm);
    let fingerprint = |name: &str, kind: &str| {
        let listing = host.must(&format!(
            "gpg --quiet --batch --passphrase '' {kind}
             gpg --batch --with-colons --list-secret-keys ={name}"
        ));
        let line = listing.lines().find_map(|line| line.strip_prefix("fpr:"));
        line.expect("gpg lists its keys")
            .trim_matches(':')
            .to_owned()
    };
    let cases = [
        (
            fingerprint("one", "--quick-generate-key one rsa2048 sign 1y"),
            "is not an Ed25519 key",
        ),
        (
            fingerprint("two", "--quick-generate-key two ed25519 cert 1y"),
            "cannot sign",
        ),
        (
            fingerprint(
                "three",
                "--faked-system-time 20200101T000000 --quick-generate-key three ed25519 sign 1d",
            ),
            "has expired",
        ),
        ("0".repeat(40), "is not among the secret keys of this gpg"),
    ];
    for (key, reason) in cases {
        let refused = host.run(&format!(
            "buildbot-conda repo create /srv/apt --url http://apt.example --key {key}"
        ));
        assert_eq!(refused.status, 1, "{reason}");
        assert!(
            refused
                .stderr
                .starts_with(&format!("error: the key {key} {reason}\n")),
            "{}",
            refused.stderr
        );
    }
    assert!(!host.root().has("/srv/apt"));
}

#[test]
fn the_same_packages_and_date_make_the_same_release() {
    let make = |release, umask, order: &str| {
        let host = RepositoryHost::new(release);
        host.must(&format!(
            "export SOURCE_DATE_EPOCH=1795348800 TZ=Asia/Tokyo
             for version in 1 2 10; do hello $version; done; umask {umask}
             buildbot-conda repo create /srv/apt --key {} --url http://apt.example
             buildbot-conda repo add /srv/apt {order}",
            host.key()
        ));
        let listing = host.must("cd /srv/apt; find pool dists/stable/ -type f ! -name '*.gpg' ! -name InRelease -exec sha256sum {} + | sort");
        let unreadable = host.must("find /srv/apt ! -perm -o=r ! -path '*/.lock'");
        assert_eq!(unreadable, "");
        listing
    };
    let [one, two, ten] = ["1", "2", "10"].map(deb);
    let first = make(Release::Bookworm, "022", &format!("{one} {two} {ten}"));
    let second = make(Release::Trixie, "077", &format!("{ten} {two} {one} {two}"));
    assert_eq!(first, second);
    assert_eq!(first.lines().count(), 8, "{first}");
}

/// What is done to a good package, and what is said of it.
const HOSTILE: [(&str, &str); 8] = [
    (
        "hello 9 'Filename: ../../etc/cron.d/x\\n'",
        "its control file contains the field `Filename`, which only the repository may write",
    ),
    (
        "hello 9; sed -i 's/Package: hello/Package: ..\\/he/' $deb",
        "`../he` is not a valid name of a package",
    ),
    (
        "hello 9; sed -i 's/^Version: 9/Version: ./' $deb",
        "`.` is not a valid version of a package",
    ),
    (
        "hello 9 'Package: bash\\n'",
        "the field `Package` occurs twice",
    ),
    (
        "hello 9; truncate -s -4000 $deb",
        "cannot copy archive member from it",
    ),
    (
        "echo '<html>not found</html>' >$deb",
        "it is not a Debian format archive",
    ),
    ("mkfifo $deb", "it is not a regular file"),
    (
        "hello 1 'Bugs: x\\n'; cp /srv/debs/hello_1_all.deb $deb",
        "`hello 1 all` is in the repository with different content",
    ),
];

#[test]
fn hostile_packages_are_refused_and_change_nothing() {
    let host = RepositoryHost::new(Release::Trixie);
    let server = host.serve();
    host.create(&server, "");
    host.publish(&["1"]);
    let before = host.must(STATE).replace("./.incoming\n", "");
    for (make, words) in HOSTILE {
        let deb = deb("9");
        host.must(&format!("deb={deb}; rm -f $deb; {make}"));
        let refused = host.run(&format!("buildbot-conda repo add /srv/apt {deb}"));
        assert_eq!(refused.status, 1, "{make}");
        let refusal = format!("error: reject `{deb}`: ");
        assert!(
            refused.stderr.starts_with(&refusal) && refused.stderr.contains(words),
            "{make}: {}",
            refused.stderr
        );
        assert_eq!(
            host.must(STATE).replace("./.incoming\n", ""),
            before,
            "{make}"
        );
    }
}
