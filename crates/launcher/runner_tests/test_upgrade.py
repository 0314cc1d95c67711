"""An older database through the whole chain of programs: launcher, runner, `service prepare` and back, below a root
directory, with Buildbots of two schemas. After a kill at any moment, the next start serves and every build is kept."""

import functools
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from instances import PATIENCE, RUNNER, Master, wait_until
from postgresql import Server

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILDS = 3


@functools.lru_cache(maxsize=None)
def programs():
    """The directory with our compiled programs, from RUNNER_TEST_PROGRAMS or compiled here."""
    named = os.environ.get("RUNNER_TEST_PROGRAMS")
    if named:
        return pathlib.Path(named)
    command = ["cargo", "build", "--quiet", "--package=buildbot-conda-cli", "--package=buildbot-conda-launcher"]
    subprocess.run(command, cwd=ROOT, check=True)
    metadata = ["cargo", "metadata", "--format-version=1", "--no-deps"]
    output = subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True).stdout
    return pathlib.Path(json.loads(output)["target_directory"]) / "debug"


def rows(database):
    """Numbers of rows of the tables that hold what was built."""
    tables = ["builds", "buildrequests", "buildsets", "steps", "logs", "logchunks"]
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return {name: connection.execute("select count(*) from %s" % name).fetchone()[0] for name in tables}
    finally:
        connection.close()


def revision(database):
    """The schema's revision, or None if it cannot be determined."""
    try:
        connection = sqlite3.connect("file:%s?mode=ro" % database, uri=True, timeout=0)
        try:
            return connection.execute("select version_num from alembic_version").fetchone()[0]
        finally:
            connection.close()
    except (sqlite3.Error, TypeError):
        return None


class Host(Master):
    """A master with an older database, started as its unit starts it."""

    def __init__(self, maker, python, directory, root):
        super().__init__(maker, python, "master", directory, "master")
        self.root = root
        self.state = root / "var/lib/buildbot-conda/instances/master"
        self.shelf = root / "var/lib/buildbot-conda/backups/master"
        self.mark = self.shelf / "upgrade-in-progress"
        self.database = self.directory / "state.sqlite"
        for path in ("etc/buildbot-conda", "usr/bin", "usr/libexec/buildbot-conda", "prefix/bin", "prefix/conda-meta"):
            (root / path).mkdir(parents=True)
        self.state.mkdir(parents=True)
        self.shelf.mkdir(parents=True)
        (root / "prefix/conda-meta/history").touch()
        (root / "usr/bin/buildbot-conda").symlink_to(programs() / "buildbot-conda")
        libexec = root / "usr/libexec/buildbot-conda"
        (libexec / "launcher").symlink_to(programs() / "buildbot-conda-launcher")
        (libexec / "runner.py").symlink_to(RUNNER)
        self.use(python)
        self.settings()

    def use(self, python):
        """The environment now has this Buildbot."""
        for program in ("python", "buildbot"):
            target = pathlib.Path(python).parent / program
            script = self.root / "prefix/bin" / program
            script.write_text('#!/bin/sh\nexec "%s" "$@"\n' % target)
            script.chmod(0o755)

    def settings(self, **settings):
        settings.update({"directory": str(self.directory)})
        lines = ["[defaults]", "conda-root = '%s/none'" % self.root, "conda-env = '%s/prefix'" % self.root]
        lines += ["[master]"] + ["%s = '%s'" % item for item in settings.items()]
        (self.root / "etc/buildbot-conda/config.toml").write_text("\n".join(lines) + "\n")

    def start(self):
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.root),
            "NOTIFY_SOCKET": self.notify.path,
            "RUNTIME_DIRECTORY": str(self.run),
            "STATE_DIRECTORY": str(self.state),
        }
        self.started_at = len(self.notify.messages)
        command = [str(self.root / "usr/libexec/buildbot-conda/launcher"), "--root", str(self.root), "master"]
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def kill(self):
        """What systemd does to a control group whose power is cut."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def cli(self, *words):
        command = [str(self.root / "usr/bin/buildbot-conda"), "--root", str(self.root), *words]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    def backups(self):
        """Names of the backups, oldest first."""
        return sorted(p.name for p in self.shelf.glob("2*"))

    def is_partial(self):
        return any(p.name.startswith(".partial-") for p in self.shelf.iterdir())

    def end(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        super().end()


def built(older, make, shared):
    """A master's directory with builds of the older Buildbot, made once."""
    import fcntl
    import shutil

    directory = shared / "built"
    with open(str(directory) + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            master = make.master(older)
            master.start().ready()
            worker = make.worker(older, master)
            worker.start().attached()
            for number in range(1, BUILDS + 1):
                master.force()
                assert master.finished(number) == 0
            assert worker.stop() == 0 and master.stop() == 0
            # Large, so that copying takes time.
            with sqlite3.connect(master.directory / "state.sqlite") as connection:
                log = connection.execute("select min(id) from logs").fetchone()[0]
                connection.execute("delete from logchunks where logid = ?", (log,))
                chunk = "insert into logchunks (logid, first_line, last_line, content, compressed) values (?, ?, ?, ?, 0)"
                connection.executemany(chunk, ((log, n, n, b"o" + os.urandom(16000)) for n in range(2500)))
            connection.close()
            shutil.copytree(master.directory, str(directory) + ".new")
            os.rename(str(directory) + ".new", directory)
    return directory


@pytest.fixture
def host(both_pythons, make, tmp_path):
    """A host whose environment has a newer Buildbot than its master's database."""
    import shutil

    older, newer = both_pythons
    directory = tmp_path / "root" / "master"
    directory.parent.mkdir()
    shutil.copytree(built(older, make, make.shared), directory)
    host = Host(make, newer, directory, tmp_path / "root")
    make.made.append(host)
    host.configure()
    host.before = rows(host.database)
    host.old = revision(host.database)
    (host.state / "last-version").write_text(pathlib.Path(older).parents[1].name + "\n")
    return host


def serves_everything(host):
    """The master serves, at its own schema, with every build, and nothing is left of the upgrade."""
    host.ready()
    assert [host.build(number)["results"] for number in range(1, BUILDS + 1)] == [0] * BUILDS
    assert not host.mark.exists()
    assert host.stop() == 0
    assert rows(host.database) == host.before
    assert revision(host.database) != host.old
    assert not [p.name for p in host.directory.iterdir() if p.name.startswith(("state.sqlite.r", "state.sqlite.d"))]


def backup_is_good(host):
    names = host.backups()
    assert names, host.describe()
    for name in names:
        path = host.shelf / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert revision(path) in name
        assert rows(path) == host.before


def test_older_database_is_backed_up_upgraded_and_served(host):
    tac = (host.directory / "buildbot.tac").read_bytes()
    host.start()
    pid = host.process.pid
    serves_everything(host)
    backup_is_good(host)
    assert len(host.backups()) == 1 and "buildbot-3.11.9-schema-064" in host.backups()[0]
    assert (host.directory / "buildbot.tac").read_bytes() == tac
    texts = "\n".join(host.statuses())
    for words in ("backing up the database", "upgrading the database from schema 064", "running"):
        assert words in texts
    extensions = [lines for lines in host.messages() if lines[0].startswith("EXTEND_TIMEOUT_USEC=")]
    assert len(extensions) >= 2
    assert host.status_file()["pid"] == pid, "one process from the first step to the last"


BASE_ELSEWHERE = """
from buildbot.master import BuildMaster
from helper_beside_the_tac import NAME
from twisted.application import service

application = service.Application(NAME)
BuildMaster(%r, %r).setServiceParent(application)
"""


def test_base_directory_is_where_the_tac_has_it(host):
    base, settings = host.root / "base", host.root / "settings"
    base.mkdir()
    settings.mkdir()
    for path in list(host.directory.iterdir()):
        if path.name.startswith("state.sqlite") or path.is_dir():
            path.rename(base / path.name)
    (host.directory / "master.cfg").rename(settings / "main.cfg")
    # What is not used must not be taken for what is.
    (host.directory / "master.cfg").write_text("raise ValueError('not this one')")
    host.database.write_bytes(b"not a database")
    host.database = base / "state.sqlite"
    (host.directory / "helper_beside_the_tac.py").write_text("NAME = 'a name of its own'\n")
    (host.directory / "buildbot.tac").write_text(BASE_ELSEWHERE % (str(base), str(settings / "main.cfg")))
    serves_everything(host.start())
    backup_is_good(host)
    current = rows(host.database)
    done = host.cli("backup", "master")
    assert done.returncode == 0, done
    with sqlite3.connect(host.database) as connection:
        connection.execute("delete from logchunks")
    connection.close()
    done = host.cli("restore", "master", host.backups()[-1])
    assert done.returncode == 0, done
    assert rows(host.database) == current
    assert (host.directory / "state.sqlite").read_bytes() == b"not a database"
    done = host.cli("upgrade", "master")
    assert done.returncode == 0 and str(base) in done.stdout + done.stderr, done


def test_what_may_heal_is_69_also_before_an_upgrade(host):
    text = (host.directory / "master.cfg").read_text()
    fetch = "\nimport os, socket\nif os.path.exists('away'):\n    socket.getaddrinfo('nowhere.invalid', 1)\n"
    (host.directory / "master.cfg").write_text(text + fetch)
    (host.directory / "away").touch()
    done = host.cli("upgrade", "master")
    assert done.returncode == 69 and "gaierror" in done.stderr, done
    assert revision(host.database) == host.old and not host.mark.exists()
    (host.directory / "away").unlink()
    serves_everything(host.start())


def test_log_in_a_place_that_is_read_only_says_what_allows_it(host):
    line = "raise OSError(30, 'Read-only file system', '/var/log/buildbot/twistd.log')\n"
    tac = host.directory / "buildbot.tac"
    tac.write_text(line + tac.read_text())
    done = host.cli("backup", "master")
    assert done.returncode == 78 and "`ReadWritePaths=/var/log/buildbot`" in done.stderr, done
    assert host.start().wait() == 78
    assert "`ReadWritePaths=/var/log/buildbot`" in host.log().split("hint: ")[-1], host.describe()


# When a kill comes: the name of a moment, and how to know that it is now.
MOMENTS = {
    "while the backup is made": lambda host: host.is_partial(),
    "when the backup is complete": lambda host: host.backups(),
    "when the mark is there": lambda host: host.mark.exists(),
    "when the upgrade begins": lambda host: "upgrading database (" in host.log(),
    "when the first revision is through": lambda host: revision(host.database) not in (None, "064"),
    "when the last revision is through": lambda host: revision(host.database) == "067",
    "when Buildbot says it is done": lambda host: "upgrade complete" in host.log(),
    "when the mark is gone": lambda host: host.backups() and not host.mark.exists() and host.mark_was_seen,
}


def wait_for_moment(host, is_now):
    host.mark_was_seen = False
    end = time.monotonic() + PATIENCE
    while not is_now(host):
        host.mark_was_seen = host.mark_was_seen or host.mark.exists()
        assert host.process.poll() is None and time.monotonic() < end, host.describe()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_the_next_start_serves_everything(host, moment):
    host.start()
    wait_for_moment(host, MOMENTS[moment])
    host.kill()
    host.start()
    serves_everything(host)
    backup_is_good(host)


def test_mark_is_read_where_earlier_versions_had_it_and_outlives_the_state(host):
    host.start()
    wait_for_moment(host, MOMENTS["when the first revision is through"])
    host.kill()
    former = host.state / "upgrade-in-progress"
    host.mark.rename(former)
    host.start()
    wait_for_moment(host, lambda host: host.mark.exists() and revision(host.database) not in (None, "064"))
    assert not former.exists(), "there is one mark"
    host.kill()
    # What `systemctl clean --what=state` does.
    shutil.rmtree(host.state)
    host.state.mkdir()
    host.start()
    serves_everything(host)
    backup_is_good(host)
    assert not host.mark.exists()


def test_killed_while_it_restores_the_next_start_serves_everything(host):
    host.start()
    wait_for_moment(host, MOMENTS["when the first revision is through"])
    host.kill()
    before = len(host.log())
    host.start()
    wait_until(lambda: "restoring the database from" in host.log()[before:], host.describe)
    host.kill()
    host.start()
    serves_everything(host)
    backup_is_good(host)


def test_upgrade_that_outlives_its_parent_keeps_others_away(host):
    host.start()
    wait_for_moment(host, MOMENTS["when the mark is there"])
    os.kill(host.process.pid, signal.SIGKILL)
    host.process.wait()
    statuses = []
    # As systemd does: tried again until the database is free.
    while True:
        host.start()
        wait_until(
            lambda: host.process.poll() is not None or any("READY=1" in m for m in host.messages()), host.describe
        )
        if host.process.poll() is None:
            break
        statuses.append(host.process.wait())
    assert set(statuses) <= {69}, host.describe()
    serves_everything(host)


def test_manual_upgrade_is_refused_then_done_by_hand(host):
    host.settings(upgrade="manual")
    assert host.start().wait() == 65
    assert "buildbot-conda upgrade master" in host.log()
    assert revision(host.database) == "064" and not host.backups()
    plan = host.cli("upgrade", "master", "--dry-run")
    assert plan.returncode == 0 and "from schema 064 to 067" in plan.stdout
    assert revision(host.database) == "064" and not host.backups()
    done = host.cli("upgrade", "master")
    assert done.returncode == 0, done.stderr
    backup_is_good(host)
    host.start()
    serves_everything(host)


def test_failed_upgrade_restores_the_database_and_says_why(host):
    # A table that the upgrade wants to make is there already.
    with sqlite3.connect(host.database) as connection:
        connection.execute("create table codebases (id integer)")
    connection.close()
    assert host.start().wait() == 65
    assert "the database was restored" in host.status()
    assert "codebases already exists" in host.status()
    assert revision(host.database) == "064" and rows(host.database) == host.before
    assert not host.mark.exists()
    failed = host.status_file()
    assert failed["state"] == "failed" and failed["exit_status"] == 65
    backup_is_good(host)


def test_newer_database_is_refused_until_a_backup_is_restored(host, both_pythons):
    older, _ = both_pythons
    host.start()
    serves_everything(host)
    host.use(older)
    assert host.start().wait() == 65
    assert "Buildbot 4.3.0" in host.log().split("hint: ")[-1]
    # An earlier version of the package has made the backup.
    host.shelf.rename(host.state / "backups")
    host.shelf.mkdir()
    restored = host.cli("restore", "master")
    assert restored.returncode == 0, restored.stderr
    assert revision(host.database) == "064"
    listed = json.loads(host.cli("restore", "master", "--list", "--json").stdout)
    assert [(b["schema"], b["buildbot"]) for b in listed] == [("067", "4.3.0"), ("064", "3.11.9")]
    host.start().ready()
    assert host.stop() == 0
    assert rows(host.database) == host.before


def test_running_master_is_backed_up_and_neither_upgraded_nor_restored(host):
    host.start().ready()
    holder = "PID %d" % host.process.pid
    for words in (("upgrade", "master"), ("restore", "master")):
        refused = host.cli(*words)
        assert refused.returncode == 69 and holder in refused.stderr, refused
    before = host.backups()
    done = host.cli("backup", "master")
    assert done.returncode == 0, done.stderr
    (new,) = set(host.backups()) - set(before)
    assert done.stdout.strip() == str(host.shelf / new)
    assert rows(done.stdout.strip()) == host.before
    tried = tried_out(host, new)
    assert (tried["schema"], tried["upgraded_to"]) == ("067", None)
    assert {name: tried["tables"][name] for name in host.before} == host.before
    assert host.stop() == 0


def tried_out(host, *words):
    """What `restore --try` finds in a backup, of which it leaves nothing else."""
    before = sorted(host.shelf.iterdir())
    done = host.cli("restore", "master", "--try", "--json", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(host.shelf.iterdir()) == before
    return json.loads(done.stdout)


def is_refused(host, name, status, words):
    refused = host.cli("restore", "master", "--try", name)
    assert refused.returncode == status and words in refused.stderr, refused


def test_backups_that_cannot_be_restored_are_found_out(host, both_pythons):
    done = host.cli("backup", "master")
    assert done.returncode == 0, done.stderr
    (name,) = host.backups()
    assert tried_out(host)["upgraded_to"] == "067"
    whole = (host.shelf / name).read_bytes()
    (host.shelf / name).write_bytes(whole[: len(whole) // 2])
    is_refused(host, name, 1, "is damaged")
    elsewhere = host.root / "copy.sqlite"
    elsewhere.write_bytes(whole)
    assert tried_out(host, str(elsewhere))["schema"] == "064"
    connection = sqlite3.connect(elsewhere)
    connection.execute("update alembic_version set version_num = 'of-the-future'")
    connection.commit()
    connection.close()
    is_refused(host, str(elsewhere), 65, "which is newer than schema 067")


def test_postgresql_database_is_backed_up_tried_and_restored(host):
    server = Server()
    try:
        host.configure(extra="c['db'] = {'db_url': %r}\n" % server.url)
        begun = host.cli("upgrade", "master")
        assert begun.returncode == 0, begun.stderr
        done = host.cli("backup", "master")
        assert done.returncode == 0, done.stderr
        (name,) = host.backups()
        tried = tried_out(host, name)
        assert tried["schema"] == "067" and tried["tables"]["masters"] == 0, tried
        restored = host.cli("restore", "master", name)
        assert restored.returncode == 0, restored.stderr
        whole = (host.shelf / name).read_bytes()
        (host.shelf / name).write_bytes(whole[: len(whole) // 2])
        is_refused(host, name, 1, "is damaged")
    finally:
        server.remove()


def test_five_backups_are_kept(host):
    for _ in range(7):
        done = host.cli("backup", "master")
        assert done.returncode == 0, done.stderr
    assert len(host.backups()) == 5
    assert done.stdout.strip().endswith(host.backups()[-1])


def test_damaged_database_is_kept_when_a_backup_is_restored(host):
    assert host.cli("backup", "master").returncode == 0
    for end in ("-wal", "-shm"):
        pathlib.Path(str(host.database) + end).unlink(missing_ok=True)
    host.database.write_bytes(b"not a database" * 1000)
    restored = host.cli("restore", "master")
    assert restored.returncode == 0, restored.stderr
    assert rows(host.database) == host.before
    (kept,) = host.directory.glob("state.sqlite.damaged-*")
    assert kept.read_bytes().startswith(b"not a database")


def test_empty_database_of_a_master_that_has_served_is_refused(host):
    host.database.unlink()
    assert host.start().wait() == 65
    assert "is empty, though this master has served before" in host.status()
    begun = host.cli("upgrade", "master")
    assert begun.returncode == 0, begun.stderr
    host.start().ready()
    assert host.stop() == 0


def test_database_behind_a_secret_is_found(host):
    secrets = host.directory / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "database").write_text("sqlite:///state.sqlite")
    (secrets / "database").chmod(0o600)
    extra = "c['secretsProviders'] = [__import__('buildbot.plugins', fromlist=['*']).secrets.SecretInAFile(dirname=%r)]\n"
    host.configure(extra=extra % str(secrets) + "c['db'] = {'db_url': util.Secret('database')}\n")
    host.start()
    serves_everything(host)


@pytest.mark.parametrize("place", ["beside the backups", "state"])
def test_mark_of_an_upgrade_keeps_an_unprepared_runner_from_starting(make, both_pythons, place):
    _, newer = both_pythons
    master = make.master(newer)
    state = master.state if place == "state" else master.state.parents[1] / "backups" / master.state.name
    state.mkdir(parents=True, exist_ok=True)
    (state / "upgrade-in-progress").write_text("{}")
    # Without the command line installed.
    assert master.start().wait() == 65
    assert "upgrade-in-progress" in master.status() and "buildbot-conda" in master.status()


def test_lock_of_another_directory_is_not_believed(make, both_pythons, tmp_path):
    _, newer = both_pythons
    master = make.master(newer)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(other, True)
    master.start(env={"BUILDBOT_CONDA_LOCK": str(other)}).ready()
    assert (master.directory / ".buildbot-conda.lock").read_text() == "%d\n" % master.process.pid
    os.close(other)
    assert master.stop() == 0

