//! Tables of what is asked for and what comes of it.

#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes its texts so"
)]

use buildbot_conda_core::settings::Settings;
use buildbot_conda_core::values::AccountName;
use expect_test::{Expect, expect};

use super::*;

const CONFIGURATION: &str = "[master]\ndirectory = \"/m\"\n[\"master@old\"]\ndirectory = \"/o\"\n\
                             [\"master@tcp\"]\ndirectory = \"/t\"\n";

/// A host with three masters: a new one, an old one whose workers share a password, and one with a port.
fn facts() -> Facts {
    let settings = Settings::parse("config.toml", CONFIGURATION.as_bytes());
    let master = |reference: &str, port, credential: Option<&str>, shared: Option<&str>| Master {
        instance: settings
            .instance(&reference.parse().unwrap())
            .unwrap()
            .clone(),
        record: Some(Record {
            web_port: 8010,
            worker_port: port,
            worker: "worker".to_owned(),
            worker_credential: credential.map(str::to_owned),
            database: None,
        }),
        shared: shared.map(str::to_owned),
    };
    Facts {
        masters: vec![
            master("master", None, Some("password-of-worker"), None),
            master("master@old", Some(9989), None, Some("worker-password")),
            master(
                "master@tcp",
                Some(9990),
                Some("password-of-first-worker-tcp"),
                None,
            ),
        ],
        configured_user: "bb".to_owned(),
        taken: ["bb".to_owned()].into(),
        open_environment: true,
        homes: [("bb", "/home/bb"), ("ci", "/srv/ci")]
            .map(|(name, home)| (name.to_owned(), PathBuf::from(home)))
            .into(),
        workers: Vec::new(),
        credentials: ["password-of-worker", "worker-password"]
            .map(str::to_owned)
            .into(),
    }
}

fn wish(name: &str) -> Wish {
    Wish {
        name: (!name.is_empty()).then(|| name.parse().unwrap()),
        ..Wish::default()
    }
}

/// One line of what is decided, or the refusal.
fn decided(wish: &Wish, facts: &Facts) -> String {
    match decide(wish, facts) {
        Err(error) => error.to_string(),
        Ok(decision) => format!(
            "{} by {}{} in {}, {} at {}, {:?}",
            decision.reference,
            decision.user.as_deref().unwrap_or("the configured account"),
            if decision.makes_account { " (new)" } else { "" },
            decision.home.display(),
            decision.worker.as_str(),
            decision.way,
            decision.secret
        ),
    }
}

#[track_caller]
fn check(wish: &Wish, expect: &Expect) {
    expect.assert_eq(&decided(wish, &facts()));
}

#[test]
fn beside_a_master_each_worker_has_an_account_and_a_password_of_its_own() {
    check(
        &wish(""),
        &expect![[
            r#"worker by bb-worker (new) in /home/bb-worker, worker at /run/buildbot-conda/master/workers, Present("password-of-worker")"#
        ]],
    );
    check(
        &wish("gpu"),
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at /run/buildbot-conda/master/workers, Generated("password-of-worker-gpu")"#
        ]],
    );
    let named = Wish {
        worker_name: Some("other".parse().unwrap()),
        ..wish("")
    };
    check(
        &named,
        &expect![[
            r#"worker by bb-worker (new) in /home/bb-worker, other at /run/buildbot-conda/master/workers, Generated("password-of-worker.other")"#
        ]],
    );
}

#[test]
fn an_older_master_is_served_as_it_was() {
    let old = Wish {
        master: Some("master@old".to_owned()),
        ..wish("gpu")
    };
    check(
        &old,
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at localhost:9989, Present("worker-password")"#
        ]],
    );
    let given = Wish {
        has_password: true,
        ..old
    };
    check(
        &given,
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at localhost:9989, Given("password-of-worker-gpu")"#
        ]],
    );
}

#[test]
fn a_master_with_a_port_is_reached_by_it() {
    let tcp = Wish {
        master: Some("master@tcp".to_owned()),
        ..wish("gpu")
    };
    check(
        &tcp,
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at localhost:9990, Generated("password-of-worker-gpu")"#
        ]],
    );
    check(
        &Wish { tls: true, ..tcp },
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at localhost:9990, Generated("password-of-worker-gpu")"#
        ]],
    );
    let tls = Wish {
        tls: true,
        ..wish("gpu")
    };
    check(
        &tls,
        &expect![[r#"
        `master` accepts workers of this host on a socket, which needs no TLS
        hint: omit `--tls`"#]],
    );
}

#[test]
fn a_master_elsewhere_needs_a_password_from_somebody() {
    let away = || Wish {
        master: Some("ci.example.org:9989".to_owned()),
        ..wish("gpu")
    };
    check(
        &away(),
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at ci.example.org:9989, Asked("password-of-worker-gpu")"#
        ]],
    );
    let given = Wish {
        has_password: true,
        tls: true,
        ..away()
    };
    check(
        &given,
        &expect![[
            r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at ci.example.org:9989, Given("password-of-worker-gpu")"#
        ]],
    );
    // That of a worker that was removed, say.
    let mut facts = facts();
    facts
        .credentials
        .insert("password-of-worker-gpu".to_owned());
    expect![[r#"worker@gpu by bb-worker-gpu (new) in /home/bb-worker-gpu, gpu at ci.example.org:9989, Present("password-of-worker-gpu")"#]].assert_eq(&decided(&away(), &facts));
    expect![[r#"
        the credential `password-of-worker-gpu` already exists
        hint: omit the password to use it"#]]
    .assert_eq(&decided(&given, &facts));
}

#[test]
fn an_account_is_shared_only_where_somebody_asks_or_nothing_else_is_possible() {
    let asked = Wish {
        user: Some("ci".to_owned()),
        ..wish("gpu")
    };
    check(
        &asked,
        &expect![[
            r#"worker@gpu by ci in /srv/ci, gpu at /run/buildbot-conda/master/workers, Generated("password-of-worker-gpu")"#
        ]],
    );
    let unknown = Wish {
        user: Some("nobody-knows".to_owned()),
        ..wish("gpu")
    };
    check(
        &unknown,
        &expect!["select the account: account `nobody-knows` not found"],
    );
    let closed = Facts {
        open_environment: false,
        ..facts()
    };
    expect![[r#"worker@gpu by the configured account in /home/bb, gpu at /run/buildbot-conda/master/workers, Generated("password-of-worker-gpu")"#]].assert_eq(&decided(&wish("gpu"), &closed));
    let alone = Facts {
        taken: BTreeSet::new(),
        ..facts()
    };
    expect![[r#"worker@gpu by the configured account in /home/bb, gpu at /run/buildbot-conda/master/workers, Generated("password-of-worker-gpu")"#]].assert_eq(&decided(&wish("gpu"), &alone));
}

#[test]
fn masters_that_are_not_there_and_names_that_are_taken_are_refused() {
    for (master, expect) in [
        (
            "master@none",
            expect![[r#"
            `master@none` was not created with `buildbot-conda create master`
            hint: specify the master with `--master HOST` or `--master master@NAME`"#]],
        ),
        (
            "mastr",
            expect!["`mastr` is not an instance; did you mean `master`?"],
        ),
        (
            "host:x",
            expect![
                "`host:x` is not an address; write `HOST` or `HOST:PORT`, such as `ci.example.org:9989`"
            ],
        ),
    ] {
        let wish = Wish {
            master: Some(master.to_owned()),
            ..wish("")
        };
        check(&wish, &expect);
    }
    let mut facts = facts();
    let record = WorkerRecord {
        asked: Asked::default(),
        master: "/run/buildbot-conda/master/workers".to_owned(),
        worker: "gpu".to_owned(),
        instance: Some("master".to_owned()),
    };
    facts.workers.push(("worker@a".parse().unwrap(), record));
    expect![[r#"
        `worker@a` already is the worker `gpu` of the master at /run/buildbot-conda/master/workers
        hint: choose another name with `--worker-name`"#]]
    .assert_eq(&decided(&wish("gpu"), &facts));
    facts.masters.clear();
    expect![[r#"
        no master on this host was created with `buildbot-conda create master`
        hint: specify the master with `--master HOST` or `--master master@NAME`"#]]
    .assert_eq(&decided(&wish("gpu"), &facts));
}

#[test]
fn every_name_of_an_instance_has_an_account_that_can_be_made() {
    let long = "a".repeat(31);
    let other = format!("{}b", "a".repeat(30));
    let names = ["gpu", "0", &long, &other].map(|name| {
        let name = account_name(Some(&name.parse().unwrap()));
        assert!(name.parse::<AccountName>().is_ok(), "{name}");
        name
    });
    assert_eq!(names[0], "bb-worker-gpu");
    assert_ne!(names[2], names[3]);
}
