//! Installation, upgrade, removal and purge on Debian systems that are not booted. What units do meanwhile is tested on
//! booted machines.

use buildbot_conda_package_tests::{DebianRoot, OLD, Release, old_version, on_each_release};

const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";
const MASTER_LINK: &str = "/etc/systemd/system/multi-user.target.wants/buildbot-master.service";
const WORKER_LINK: &str = "/etc/systemd/system/multi-user.target.wants/buildbot-worker.service";

on_each_release! {
    installation_makes_account_directories_configuration_and_links,
    a_persons_account_is_used_as_it_is,
    an_account_is_never_taken_back_from_a_person,
    a_group_that_exists_is_joined,
    a_group_that_exists_outlives_an_interruption,
    units_are_valid,
    reinstallation_changes_nothing,
    an_upgrade_and_a_downgrade_keep_what_is_the_administrators,
    a_system_without_systemd_gets_and_loses_the_package,
    an_interrupted_configuration_is_finished_with_the_answers_given,
    a_disabled_unit_stays_disabled,
    hand_made_units_are_reported_and_left_alone,
    a_hand_made_unit_in_the_packages_place_stays_in_force,
    removal_keeps_configuration_and_enablement,
    purge_removes_what_the_package_made_and_nothing_else,
    debians_own_buildbot_is_replaced,
}

fn installation_makes_account_directories_configuration_and_links(release: Release) {
    let root = DebianRoot::new(release);
    root.install();
    let account = root.must("getent passwd bb");
    assert!(account.ends_with(":/home/bb:/bin/bash\n"), "{account}");
    assert_eq!(root.must("id -gn bb"), "bb\n");
    let password = root.must("getent shadow bb | cut -d: -f2");
    assert!(password.starts_with(['!', '*']), "{password}");
    assert_eq!(
        root.must(
            "stat -c '%a %U:%G %n' /home/bb /etc/buildbot-conda /etc/buildbot-conda/* \
             /var/lib/buildbot-conda /var/lib/buildbot-conda/*"
        ),
        "755 bb:bb /home/bb\n\
         755 root:root /etc/buildbot-conda\n\
         644 root:root /etc/buildbot-conda/config.toml\n\
         700 root:root /etc/buildbot-conda/credentials\n\
         755 root:root /var/lib/buildbot-conda\n\
         755 root:root /var/lib/buildbot-conda/backups\n\
         755 root:root /var/lib/buildbot-conda/instances\n"
    );
    assert_eq!(
        root.text(CONFIGURATION),
        root.text("/usr/share/buildbot-conda/config.toml")
    );
    assert!(!root.has("/etc/buildbot-conda/.config.toml.new"));
    assert!(root.has(MASTER_LINK));
    assert!(root.has(WORKER_LINK));
    assert_eq!(root.must("dpkg --verify buildbot-conda; dpkg --audit"), "");
}

fn a_persons_account_is_used_as_it_is(release: Release) {
    let root = DebianRoot::new(release);
    root.must("useradd --create-home --home-dir /srv/bertha --shell /bin/sh --comment Bertha bb");
    root.must("echo hers >/srv/bertha/letter");
    let state =
        "getent passwd bb; getent shadow bb; id bb; find /srv/bertha -printf '%p %m %U:%G\\n'";
    let before = root.must(state);
    root.install();
    assert_eq!(root.must(state), before);
    assert!(!root.has("/home/bb"));
    root.must("dpkg --purge buildbot-conda");
    assert_eq!(root.must(state), before);
}

/// As an interruption leaves it that the administrator has answered by making an account of that name.
fn an_account_is_never_taken_back_from_a_person(release: Release) {
    let root = DebianRoot::new(release);
    root.must("useradd --create-home --home-dir /home/bb --uid 1000 bb");
    root.must("mkdir /var/lib/buildbot-conda; echo bb: >/var/lib/buildbot-conda/account");
    let before = root.must("getent passwd bb; getent shadow bb; id bb");
    root.install();
    assert_eq!(
        root.must("getent passwd bb; getent shadow bb; id bb"),
        before
    );
    assert!(!root.has("/var/lib/buildbot-conda/account"));
}

fn a_group_that_exists_is_joined(release: Release) {
    let root = DebianRoot::new(release);
    root.must("groupadd --gid 4711 bb");
    root.install();
    assert_eq!(root.must("id -g bb"), "4711\n");
}

/// As an interruption leaves it in the middle of adduser's work.
fn a_group_that_exists_outlives_an_interruption(release: Release) {
    let root = DebianRoot::new(release);
    root.must("groupadd --gid 4711 bb; useradd --system --gid bb --home-dir /home/bb bb");
    root.must("mkdir /var/lib/buildbot-conda; echo bb:4711 >/var/lib/buildbot-conda/account");
    root.install();
    assert_eq!(root.must("id -g bb; id -gn bb"), "4711\nbb\n");
    assert_eq!(root.must("stat -c %U:%G /home/bb"), "bb:bb\n");
}

fn units_are_valid(release: Release) {
    let root = DebianRoot::installed(release);
    let outcome = root.run(
        "cd /usr/lib/systemd/system && systemd-analyze verify --man=no \
         buildbot-master.service buildbot-worker.service buildbot-master@.service buildbot-worker@.service",
    );
    // verify exits with 0 for unknown keys, and only prints them.
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
}

fn reinstallation_changes_nothing(release: Release) {
    let root = DebianRoot::installed(release);
    root.must("printf '# mine\\n' >>/etc/buildbot-conda/config.toml; chmod 0600 /etc/buildbot-conda/config.toml");
    root.must(
        "chmod 0750 /etc/buildbot-conda; touch -d 2001-01-01 /etc/buildbot-conda/config.toml",
    );
    let state = "find /etc/buildbot-conda /etc/systemd /var/lib/buildbot-conda /home/bb -type f,l -print \
                 -exec stat -c '%a %U:%G %Y' {} + -exec md5sum {} +; cat /etc/passwd /etc/group; stat -c %a /etc/buildbot-conda";
    let before = root.must(state);
    root.install();
    assert_eq!(root.must(state), before);
}

fn an_upgrade_and_a_downgrade_keep_what_is_the_administrators(release: Release) {
    let root = DebianRoot::new(release);
    let old = old_version(&root);
    let version = "dpkg-query --show --showformat='${Version}' buildbot-conda";
    let install = "apt-get install --yes --allow-downgrades --no-install-recommends";
    root.must(&format!("{install} {old} </dev/null"));
    assert_eq!(root.must(version), OLD);
    root.must("printf '# mine\\n' >>/etc/buildbot-conda/config.toml");
    root.must("printf '# mine\\n' >>/etc/needrestart/conf.d/buildbot-conda.conf");
    root.must("systemctl disable buildbot-worker.service");
    root.must("systemctl enable buildbot-worker@gpu.service");
    root.must("echo secret >/etc/buildbot-conda/credentials/password");
    let state = "find /etc/buildbot-conda /etc/needrestart/conf.d/buildbot-conda.conf /etc/systemd/system \\
                 -printf '%p %m %U:%G %l\\n' -type f -exec md5sum {} +";
    let before = root.must(state);

    let keep = "-o Dpkg::Options::=--force-confold";
    root.must(&format!("{install} {keep} /buildbot-conda.deb </dev/null"));
    assert_ne!(root.must(version), OLD);
    assert_eq!(root.must(state), before);
    assert!(!root.has("/usr/share/buildbot-conda/old"));

    root.must(&format!("{install} {keep} {old} </dev/null"));
    assert_eq!(root.must(version), OLD);
    assert_eq!(root.must(state), before);
    assert!(root.has("/usr/share/buildbot-conda/old"));
    assert_eq!(root.must("dpkg --audit"), "");
}

/// Debian's own tools for units are essential, systemd is not.
fn a_system_without_systemd_gets_and_loses_the_package(release: Release) {
    let root = DebianRoot::new(release);
    root.must("dpkg --purge systemd");
    root.install();
    assert_eq!(root.must("dpkg --verify buildbot-conda; dpkg --audit"), "");
    assert!(root.has(CONFIGURATION));
    root.install();
    root.must("dpkg-reconfigure buildbot-conda");
    root.must("dpkg --remove buildbot-conda");
    root.install();
    root.must("dpkg --purge buildbot-conda");
    assert!(!root.has("/etc/buildbot-conda"));
    assert!(!root.has(MASTER_LINK));
}

fn an_interrupted_configuration_is_finished_with_the_answers_given(release: Release) {
    let root = DebianRoot::new(release);
    root.preseed("conda-path", "/opt/conda");
    root.must("dpkg --unpack /buildbot-conda.deb");
    // As a kill would leave it that hits between the starter's copy and its change.
    let unfinished = "/etc/buildbot-conda/.config.toml.new";
    root.must(&format!(
        "mkdir /etc/buildbot-conda; cp /usr/share/buildbot-conda/config.toml {unfinished}"
    ));
    root.must("dpkg --configure -a");
    assert!(
        root.text(CONFIGURATION)
            .contains("\nconda-root = \"/opt/conda\"")
    );
    assert!(!root.has(unfinished));
}

fn a_disabled_unit_stays_disabled(release: Release) {
    let root = DebianRoot::installed(release);
    root.must("systemctl disable buildbot-worker.service");
    root.install();
    assert!(root.has(MASTER_LINK));
    assert!(!root.has(WORKER_LINK));
}

fn hand_made_units_are_reported_and_left_alone(release: Release) {
    let root = DebianRoot::new(release);
    let own = "/etc/systemd/system/buildbot-master.service";
    let text =
        "[Service]\nExecStart=/home/bb/start-master.sh\n[Install]\nWantedBy=multi-user.target\n";
    root.write(own, text);
    let copy = "/etc/systemd/system/buildbot-worker.service";
    root.write(copy, "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher worker\n[Install]\nWantedBy=multi-user.target\n");
    let talk = root.install().talk();
    let notice = format!("{own} overrides the package's unit");
    assert_eq!(talk.matches(&notice).count(), 1, "{talk}");
    assert!(!talk.contains(&format!("{copy} hides")), "{talk}");
    assert_eq!(root.text(own), text);
    assert!(!root.has(MASTER_LINK));
    assert!(root.has(WORKER_LINK));
    root.must("dpkg --purge buildbot-conda");
    assert_eq!(root.text(own), text);
}

/// Put there by configuration management, for instance.
fn a_hand_made_unit_in_the_packages_place_stays_in_force(release: Release) {
    let root = DebianRoot::new(release);
    let text = "[Service]\nExecStart=/home/bb/start.sh\n[Install]\nWantedBy=multi-user.target\n";
    let other = text.replace("start.sh", "other.sh");
    for unit in ["buildbot-master.service", "buildbot-worker@.service"] {
        root.write(&format!("/usr/lib/systemd/system/{unit}"), text);
    }
    // This one was not in force.
    root.write("/usr/lib/systemd/system/buildbot-worker.service", &other);
    root.write("/etc/systemd/system/buildbot-worker.service", text);
    root.must("systemctl enable buildbot-master.service");
    let talk = root.install().talk();
    let own = "/etc/systemd/system";
    for unit in ["buildbot-master.service", "buildbot-worker@.service"] {
        assert_eq!(root.text(&format!("{own}/{unit}")), text);
        assert!(talk.contains(&format!("is {own}/{unit} now")), "{talk}");
        let hides = format!("{own}/{unit} overrides the package's unit");
        assert!(talk.contains(&hides), "{talk}");
    }
    assert_eq!(
        root.text(&format!("{own}/buildbot-worker.service.from-lib")),
        other
    );
    assert_eq!(root.must("dpkg --verify buildbot-conda"), "");
    let adopted = root.must("buildbot-conda adopt --dry-run 2>&1 || :");
    assert!(adopted.contains("buildbot-master.service"), "{adopted}");
    // Ours are not moved, be they of this version or of another one.
    let talk = root.install().talk();
    assert!(!talk.contains("was written by hand"), "{talk}");
    root.must("dpkg --purge buildbot-conda");
    assert_eq!(root.text(&format!("{own}/buildbot-master.service")), text);
    assert!(root.has(MASTER_LINK));
}

fn removal_keeps_configuration_and_enablement(release: Release) {
    let root = DebianRoot::installed(release);
    root.must("sed -i 's/\"buildbot\"/\"other\"/' /etc/buildbot-conda/config.toml");
    root.must("echo secret >/etc/buildbot-conda/credentials/password");
    let before = root.text(CONFIGURATION);
    root.must("dpkg --remove buildbot-conda");
    assert_eq!(root.text(CONFIGURATION), before);
    assert!(root.has("/etc/buildbot-conda/credentials/password"));
    root.install();
    assert_eq!(root.text(CONFIGURATION), before);
    assert!(root.has(MASTER_LINK));
}

fn purge_removes_what_the_package_made_and_nothing_else(release: Release) {
    let root = DebianRoot::installed(release);
    root.must("install -D /dev/null /home/bb/master/buildbot.tac");
    root.must("echo secret >/etc/buildbot-conda/credentials/password");
    root.must("install -D /dev/null /var/lib/buildbot-conda/instances/master/state.sqlite");
    root.must("systemctl enable buildbot-worker@gpu.service");
    root.must("ln -s /srv/mine.service /etc/systemd/system/multi-user.target.wants/buildbot-worker@mine.service");
    root.must("dpkg --purge buildbot-conda");
    let left = root.must(
        "find / -xdev \\( -path /proc -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /home \\) \
         -prune -o -name '*buildbot-*' -print | sort",
    );
    assert_eq!(
        left,
        "/buildbot-conda.deb\n/etc/systemd/system/multi-user.target.wants/buildbot-worker@mine.service\n"
    );
    assert_eq!(root.must("debconf-show buildbot-conda"), "");
    assert!(root.has("/home/bb/master/buildbot.tac"));
    root.must("getent passwd bb");
    // Purging twice, as after an interruption, is not an error.
    root.must("dpkg --purge buildbot-conda || true; dpkg --audit");
}

fn debians_own_buildbot_is_replaced(release: Release) {
    let root = DebianRoot::with_programs(release, &["buildbot", "buildbot-worker"]);
    root.must(
        "for place in masters/one workers/one; do
             install -D -m 0640 -o buildbot -g buildbot /dev/null /var/lib/buildbot/$place/buildbot.tac
         done
         echo data >/var/lib/buildbot/masters/one/state.sqlite",
    );
    let state = "find /var/lib/buildbot -printf '%p %m %U:%G %l\\n' -type f -exec md5sum {} +; getent passwd buildbot";
    let before = root.must(state);
    let talk = root.install().talk();
    for package in ["buildbot", "buildbot-worker"] {
        assert!(talk.contains(&format!("Removing {package} ")), "{talk}");
        let status = format!("dpkg-query --show --showformat='${{db:Status-Status}}' {package}");
        assert_ne!(root.run(&status).stdout, "installed");
    }
    assert_eq!(root.must(state), before);
    // And the other way round.
    root.must("dpkg --purge buildbot-conda");
    assert_eq!(root.must(state), before);
}
