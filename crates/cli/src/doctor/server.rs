//! What a master needs for a database on a server, and when it needs such a one: the driver in its environment, tools for
//! backups on the host, and more than a file can do.

use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::inside::{Database, MasterFacts};
use super::prefix::Prefix;
use super::scene::Scene;
use crate::database::dump::Trouble;
use crate::database::facts::MISSING_DRIVER;
use crate::system::status_file::Load;

/// Python modules of drivers that Buildbot can use, and how conda-forge calls their packages.
const DRIVERS: [(&str, &str); 4] = [
    ("psycopg2", "psycopg2"),
    ("psycopg", "psycopg"),
    ("MySQLdb", "mysqlclient"),
    ("pymysql", "pymysql"),
];
/// Builds at a time up to which `SQLite` is no hindrance.
const MOST_BUILDS: u64 = 10;
/// Seconds in which a file has answered a small question unless it is busy with others.
const LONGEST_ANSWER: f64 = 1.0;

/// That the environment has no driver for the database; then nothing else is known of it.
pub(super) fn missing_driver(
    instance: &Instance,
    facts: &MasterFacts,
    scene: &Scene<'_>,
) -> Option<Finding> {
    let (_, reason) = facts.failure.as_ref()?;
    let rest = reason.as_str().strip_prefix(MISSING_DRIVER)?;
    let mut drivers = DRIVERS.into_iter();
    let (module, package) = drivers.find(|(module, _)| rest.starts_with(&format!("{module}`")))?;
    let reference = Some(&instance.reference);
    let finding = Finding::problem(Check::Database, reference, reason.as_str());
    if module == "psycopg" && rest.ends_with("`postgresql://`") {
        return Some(finding.words(
            "from version 2.1 on, SQLAlchemy takes `postgresql://` for psycopg 3: write `postgresql+psycopg2://` in \
             `master.cfg`, and install `psycopg2` into the environment if it is missing",
        ));
    }
    Some(Prefix::of(instance, scene).extend(finding, &[package]))
}

/// Everything else.
pub(super) fn judge(instance: &Instance, facts: &MasterFacts, load: Option<&Load>) -> Vec<Finding> {
    let Some(database) = &facts.database else {
        return Vec::new();
    };
    let found = [
        unnamed_driver(instance, database),
        facts
            .trouble
            .map(|trouble| tools(instance, database, trouble)),
        load.and_then(|load| bottleneck(instance, database, load)),
    ];
    found.into_iter().flatten().collect()
}

fn unnamed_driver(instance: &Instance, database: &Database) -> Option<Finding> {
    let driver = database.driver.as_ref()?;
    if *driver != "postgresql" {
        return None;
    }
    let seen = format!(
        "the configuration names `{}` without a driver, which is psycopg2 until SQLAlchemy 2.0 and psycopg 3 from 2.1 on: an \
         update of the environment may keep the master from starting",
        database.place
    );
    let finding = Finding::warning(Check::Database, Some(&instance.reference), seen);
    Some(
        finding.words("write `postgresql+psycopg2://` in `master.cfg`, or `postgresql+psycopg://`"),
    )
}

fn tools(instance: &Instance, database: &Database, trouble: Trouble) -> Finding {
    let place = &database.place;
    let reference = Some(&instance.reference);
    let missing = |programs: &str, package: &str| {
        let seen = format!(
            "`{place}` cannot be backed up because of missing programs ({programs}): a start upgrades it without a backup"
        );
        Finding::warning(Check::Database, reference, seen).command(["apt-get", "install", package])
    };
    match trouble {
        Trouble::PostgresqlMissing => missing("`pg_dump`, `pg_restore`", "postgresql-client"),
        Trouble::MysqlMissing => missing("`mysqldump`, `mysql`", "default-mysql-client"),
        Trouble::Older { tool, server } => {
            let seen = format!(
                "`{place}` cannot be backed up because `pg_dump` {tool} refuses its server, which is PostgreSQL {server}"
            );
            Finding::warning(Check::Database, reference, seen).words(format!(
                "install `postgresql-client-{server}`, which https://apt.postgresql.org has for every release of Debian"
            ))
        }
    }
}

fn bottleneck(instance: &Instance, database: &Database, load: &Load) -> Option<Finding> {
    if database.kind != "sqlite" {
        return None;
    }
    let answered_in = load.database.as_ref().map(|database| database.answered_in);
    let seen = if load.builds > MOST_BUILDS {
        format!(
            "{} builds write to `{}` at the same time",
            load.builds, database.place
        )
    } else {
        let seconds = answered_in.filter(|seconds| *seconds > LONGEST_ANSWER)?;
        format!("`{}` needs {seconds:.1} s to answer", database.place)
    };
    let finding = Finding::warning(
        Check::Database,
        Some(&instance.reference),
        format!("{seen}, and SQLite serves one after the other"),
    );
    let word = instance.reference.to_string();
    Some(
        finding
            .command(["buildbot-conda", "migrate", &word, "--to", "postgresql"])
            .words(
                "a PostgreSQL server accepts requests and finishes builds several times as fast",
            ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildbot_conda_core::settings::Settings;

    fn seen(facts: &serde_json::Value, load: &serde_json::Value) -> Vec<String> {
        let settings = Settings::parse("c", b"[master]\n");
        let instance = settings.instance(&"master".parse().unwrap()).unwrap();
        let mut database = serde_json::json!({
            "relation": "current", "place": "p", "revision": "1", "head": "1", "buildbot": "4.3.0",
        });
        let facts = facts.as_object().unwrap().clone();
        let trouble = facts.get("trouble").cloned();
        database.as_object_mut().unwrap().extend(facts);
        let facts = serde_json::json!({
            "failure": null, "is_marked": false, "database": database, "ports": [], "trouble": trouble,
        });
        let facts: MasterFacts = serde_json::from_value(facts).unwrap();
        let mut all = serde_json::json!({
            "at": 0.0, "lag": 0.0, "builds": 0, "oldest_build": null, "workers": {}, "backup": null, "database": null,
        });
        all.as_object_mut()
            .unwrap()
            .extend(load.as_object().unwrap().clone());
        let load: Load = serde_json::from_value(all).unwrap();
        let findings = judge(instance, &facts, Some(&load));
        let seen = findings.iter().map(|finding| finding.seen.to_string());
        seen.collect()
    }

    #[test]
    fn a_file_is_enough_for_ten_builds_that_are_recorded_at_once() {
        let none = serde_json::json!({});
        let slow = serde_json::json!({
            "database": {"requests": 9, "oldest_request": 0.0, "answered_in": 1.25, "size": 1},
        });
        for (kind, load, expected) in [
            ("sqlite", serde_json::json!({"builds": 10}), &[][..]),
            (
                "sqlite",
                serde_json::json!({"builds": 11}),
                &["11 builds write to `p` at the same time, and SQLite serves one after the other"],
            ),
            (
                "sqlite",
                slow.clone(),
                &["`p` needs 1.2 s to answer, and SQLite serves one after the other"],
            ),
            ("postgresql", slow, &[]),
            ("postgresql", serde_json::json!({"builds": 11}), &[]),
            ("sqlite", none, &[]),
        ] {
            assert_eq!(seen(&serde_json::json!({"kind": kind}), &load), expected);
        }
    }

    #[test]
    fn a_server_needs_a_driver_that_is_named_and_tools_that_know_it() {
        let none = serde_json::json!({});
        for (facts, expected) in [
            (
                serde_json::json!({"kind": "postgresql", "driver": "postgresql"}),
                "the configuration names `p` without a driver",
            ),
            (
                serde_json::json!({"trouble": "PostgresqlMissing"}),
                "`p` cannot be backed up because of missing programs (`pg_dump`, `pg_restore`)",
            ),
            (
                serde_json::json!({"trouble": {"Older": {"tool": 15, "server": 17}}}),
                "`p` cannot be backed up because `pg_dump` 15 refuses its server, which is PostgreSQL 17",
            ),
        ] {
            let found = seen(&facts, &none);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{found:?}"
            );
        }
        let good = serde_json::json!({"kind": "postgresql", "driver": "postgresql+psycopg2"});
        assert!(seen(&good, &none).is_empty());
    }
}
