//! A new master with its builds on a `PostgreSQL` server, as far as no server is needed: what has to be there first, what
//! the plan has, and that a password is nowhere to be seen.

use expect_test::expect;

use super::{add_modules, check, host};
use crate::house::{CONFIGURATION, Host};

/// With Buildbot, its driver for `PostgreSQL`, and a server.
fn host_with_server() -> Host {
    let host = host();
    add_modules(
        &host,
        &[
            "buildbot/__init__.py",
            "buildbot_www/__init__.py",
            "buildbot-4.3.0.dist-info/METADATA",
            "psycopg2/__init__.py",
        ],
    );
    for program in ["lib/postgresql/17/bin/postgres", "bin/psql"] {
        host.write(&format!("usr/{program}"), "");
    }
    host
}

#[test]
fn a_database_of_this_host_is_made_for_the_account_and_used_by_its_socket() {
    check(
        &host_with_server(),
        &["create", "master", "--database", "postgresql", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` as user `bb`, directory `/home/bb/master`, environment `/home/bb/anaconda3/envs/buildbot`
            # web pages at http://localhost:8010/, workers at `/run/buildbot-conda/master/workers`
            create `/etc/buildbot-conda/credentials`
            write `/etc/buildbot-conda/credentials/web-password`, mode 0600
            write `/etc/buildbot-conda/credentials/password-of-worker`, mode 0600
            in `/etc/buildbot-conda/config.toml`:
                master.credentials.web-password = "web-password"
            create the role `bb` in PostgreSQL
            create the database `buildbot_master` of `bb` in PostgreSQL
            as `bb`, check that `postgresql:///buildbot_master` is empty and can be used
            as `bb`, set up a master in `/home/bb/master`: `buildbot.tac`, tables of the database, `master.cfg`, `workers.toml`, `passwords/worker`
            create `/var/lib/buildbot-conda/created`
            write `/var/lib/buildbot-conda/created/master.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_named_master_has_a_database_of_its_own() {
    let words = [
        "create",
        "master",
        "nightly",
        "--database=postgresql",
        "--dry-run",
        "--conda-env=/home/bb/anaconda3/envs/buildbot",
    ];
    let plan = host_with_server().run(&words).stdout;
    let step = "create the database `buildbot_master_nightly` of `bb` in PostgreSQL\n";
    assert!(plan.contains(step), "{plan}");
}

#[test]
fn a_url_with_a_password_comes_by_a_file_and_becomes_a_credential() {
    let host = host_with_server();
    host.write("secret", "postgresql://bb:Geheim@db.example.org/builds\n");
    let file = host.path("secret");
    let words = [
        "create",
        "master",
        "--dry-run",
        "--database-file",
        file.to_str().unwrap(),
    ];
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        # `master` as user `bb`, directory `/home/bb/master`, environment `/home/bb/anaconda3/envs/buildbot`
        # web pages at http://localhost:8010/, workers at `/run/buildbot-conda/master/workers`
        create `/etc/buildbot-conda/credentials`
        write `/etc/buildbot-conda/credentials/web-password`, mode 0600
        write `/etc/buildbot-conda/credentials/password-of-worker`, mode 0600
        write `/etc/buildbot-conda/credentials/database-url`, mode 0600
        in `/etc/buildbot-conda/config.toml`:
            master.credentials.web-password = "web-password"
            master.credentials.database-url = "database-url"
        as `bb`, check that `postgresql://db.example.org/builds` is empty and can be used
        as `bb`, set up a master in `/home/bb/master`: `buildbot.tac`, tables of the database, `master.cfg`, `workers.toml`, `passwords/worker`
        create `/var/lib/buildbot-conda/created`
        write `/var/lib/buildbot-conda/created/master.json`, mode 0644
        create `/etc/systemd/system/multi-user.target.wants`
        link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
        stderr:
    "#]],
    );
    let words = [
        "create",
        "master",
        "--dry-run",
        "--database=postgresql://bb:Geheim@db.example.org/builds",
    ];
    let said = host.run(&words);
    assert!(!said.to_string().contains("Geheim"), "{said}");
    expect![[r#"
        status 1
        stdout:
        stderr:
        error: the URL has a password, but everybody on this host can see the arguments of a command
        hint: write the URL to a file that only root can read, and use `--database-file FILE`; with `--database-file -`, it is prompted for
    "#]]
    .assert_eq(&said.to_string());
}

#[test]
fn standard_input_has_one_secret() {
    let words = [
        "create",
        "master",
        "--dry-run",
        "--password-stdin",
        "--database-file=-",
    ];
    expect![[r#"
        status 1
        stdout:
        stderr:
        error: `--password-stdin` and `--database-file -` both read standard input
        hint: write one of the two to a file that only root can read
    "#]]
    .assert_eq(&host_with_server().run(&words).to_string());
}

#[test]
fn what_is_missing_for_a_server_is_said_before_the_first_step() {
    let refusal = |host: &Host, database: &str| {
        let before = host.snapshot();
        let said = host.run(&["create", "master", "--dry-run", "--database", database]);
        assert_eq!(said.status, Some(1), "{said}");
        assert_eq!(host.snapshot(), before);
        said.stderr
    };
    let host = host_with_server();
    let remove = |path: &str| std::fs::remove_dir_all(host.path(path)).unwrap();
    expect![[r#"
        error: read `--database`: this is not the URL of a PostgreSQL database; write `postgresql://USER@HOST/DATABASE`
        hint: or use `postgresql` for a new database on this host, or `sqlite`
    "#]].assert_eq(&refusal(&host, "mysql://db/b"));
    expect![[r#"
        error: the environment `/home/bb/anaconda3/envs/buildbot` lacks `psycopg`, the driver for PostgreSQL
        hint: install this with the program that created the environment
    "#]].assert_eq(&refusal(&host, "postgresql+psycopg://db/b"));
    remove("home/bb/anaconda3/envs/buildbot/lib/python3.11/site-packages/psycopg2");
    host.write("home/bb/anaconda3/bin/conda", "");
    expect![[r#"
        error: the environment `/home/bb/anaconda3/envs/buildbot` lacks `psycopg2`, the driver for PostgreSQL
        hint: `/home/bb/anaconda3/bin/conda install --prefix /home/bb/anaconda3/envs/buildbot --channel conda-forge psycopg2` installs it
    "#]].assert_eq(&refusal(&host, "postgresql:postgresql://db/b"));
    std::fs::remove_file(host.path("usr/bin/psql")).unwrap();
    expect![[r#"
        error: the client of PostgreSQL is not installed on this host
        hint: `apt install postgresql` installs it; or use the server of another host, with the URL of an empty database
    "#]].assert_eq(&refusal(&host, "postgresql"));
    remove("usr/lib/postgresql");
    expect![[r#"
        error: the server of PostgreSQL is not installed on this host
        hint: `apt install postgresql` installs it; or use the server of another host, with the URL of an empty database
    "#]].assert_eq(&refusal(&host, "postgresql"));
}

#[test]
fn a_removed_master_says_what_becomes_of_its_database() {
    let host = host_with_server();
    let text = host.read(CONFIGURATION);
    for (record, words) in [
        (
            r#"{"made": {"database": "buildbot_master", "role": "bb"}}"#,
            &["remove", "master", "--dry-run"][..],
        ),
        (
            r#"{"made": {"database": "buildbot_master", "role": "bb"}}"#,
            &["remove", "master", "--data", "--dry-run"],
        ),
        (
            r#"{"given": "postgresql://db/b"}"#,
            &["remove", "master", "--data", "--dry-run"],
        ),
    ] {
        host.write(CONFIGURATION, &text);
        host.write(
            "var/lib/buildbot-conda/created/master.json",
            &format!("{{\"web_port\":8010,\"worker\":\"worker\",\"database\":{record}}}\n"),
        );
        let plan = host.run(words).stdout;
        let lines = plan
            .lines()
            .filter(|line| line.contains("database") || line.contains("PostgreSQL"));
        let lines: Vec<&str> = lines.collect();
        let expected: &[&str] = match (record.contains("given"), words.len()) {
            (false, 3) => &["# kept the database `buildbot_master` of PostgreSQL"],
            (false, _) => &[
                "drop the database `buildbot_master` from PostgreSQL",
                "drop the role `bb` from PostgreSQL if it was created for this and nothing else belongs to it",
            ],
            _ => &["# kept Buildbot's tables in the database `postgresql://db/b`"],
        };
        assert_eq!(lines, expected, "{plan}");
    }
}
