//! `migrate` as far as it needs no Buildbot: its plan, and what it refuses before anything is stopped.

use expect_test::{Expect, expect};

use crate::create::data::host_with_table;
use crate::house::Host;

/// After `create master`, with drivers and a server.
fn host(line: &str) -> Host {
    let host = host_with_table("[worker]\n");
    host.write("home/bb/master/master.cfg", line);
    for module in ["psycopg2", "buildbot"] {
        let packages = "home/bb/anaconda3/envs/buildbot/lib/python3.11/site-packages";
        host.write(&format!("{packages}/{module}/__init__.py"), "");
    }
    for program in ["lib/postgresql/17/bin/postgres", "bin/psql"] {
        host.write(&format!("usr/{program}"), "");
    }
    host
}

#[track_caller]
fn check(host: &Host, to: &[&str], expect: &Expect) {
    let before = host.snapshot();
    let words = [&["migrate", "master", "--dry-run"], to].concat();
    expect.assert_eq(&host.run(&words).to_string());
    assert_eq!(host.snapshot(), before);
}

#[test]
fn the_configuration_is_changed_after_the_copy_is_complete() {
    let host = host("c[\"db\"] = {\"db_url\": \"sqlite:///state.sqlite\"}\n");
    check(
        &host,
        &["--to", "postgresql"],
        &expect![[r#"
        status 0
        stdout:
        # the database is copied to `postgresql:///buildbot_master`, and kept
        # a line of `/home/bb/master/master.cfg` becomes: c["db"] = {"db_url": "postgresql+psycopg2:///buildbot_master?host=/run/postgresql"}
        back up the database of `master`
        create the role `bb` in PostgreSQL
        create the database `buildbot_master` of `bb` in PostgreSQL
        as `bb`, check that `postgresql:///buildbot_master` is empty and can be used
        copy the database of `master` to `postgresql:///buildbot_master`, and compare the rows of all tables
        write `/var/lib/buildbot-conda/created/master.json`, mode 0644
        as `bb`, write `/home/bb/master/master.cfg`, mode 0644
        check that the configuration of `master` names `postgresql:///buildbot_master`
        stderr:
    "#]],
    );
    host.write("secret", "postgresql://bb:Geheim@db/b\n");
    let file = host.path("secret");
    // Its password would be in the configuration.
    check(
        &host,
        &["--to-file", file.to_str().unwrap()],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: cannot change `/home/bb/master/master.cfg`: it contains no function `secret` that reads a credential
            hint: the URL has to be a text on one line, as in `c["db"] = {"db_url": "..."}`; the migration makes it `c["db"] = {"db_url": secret("database-url")}`
        "#]],
    );
    let path = "home/bb/master/master.cfg";
    host.write(
        path,
        &format!("def secret(name):\n    pass\n{}", host.read(path)),
    );
    check(
        &host,
        &["--to-file", file.to_str().unwrap()],
        &expect![[r#"
            status 0
            stdout:
            # the database is copied to `postgresql://db/b`, and kept
            # a line of `/home/bb/master/master.cfg` becomes: c["db"] = {"db_url": secret("database-url")}
            back up the database of `master`
            as `bb`, check that `postgresql://db/b` is empty and can be used
            copy the database of `master` to `postgresql://db/b`, and compare the rows of all tables
            write `/etc/buildbot-conda/credentials/database-url`, mode 0600
            in `/etc/buildbot-conda/config.toml`:
                master.credentials.database-url = "database-url"
            reload systemd units
            write `/var/lib/buildbot-conda/created/master.json`, mode 0644
            as `bb`, write `/home/bb/master/master.cfg`, mode 0644
            check that the configuration of `master` names `postgresql://db/b`
            stderr:
        "#]],
    );
}

#[test]
fn what_cannot_be_changed_is_named_with_the_line_to_write() {
    let host = host("c['db'] = dict(db_url=URL)\n");
    check(
        &host,
        &["--to", "postgresql://db/b"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: cannot change `/home/bb/master/master.cfg`: its value of `db_url` is not a plain text on the same line
        hint: the URL has to be a text on one line, as in `c["db"] = {"db_url": "..."}`; the migration makes it `c["db"] = {"db_url": "postgresql+psycopg2://db/b"}`
    "#]],
    );
    let said = host.run(&["migrate", "worker", "--to", "sqlite", "--dry-run"]);
    assert_eq!(
        said.stderr,
        "error: `worker` is a worker and has no database\n"
    );
}
