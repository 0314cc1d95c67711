"""The database of a new master on a real PostgreSQL server, made and taken away by the command line's own programs."""

import json
import os
import pathlib
import sqlite3
import subprocess

import pytest

from postgresql import Server
from test_upgrade import programs

# With what it is set up, and what its starter says of the database.
CONFIGURATION = "from buildbot.plugins import *\nc = BuildmasterConfig = {'buildbotNetUsageData': None, 'db': %s}\n"


@pytest.fixture
def server():
    found = Server()
    yield found
    found.remove()


class Commands:
    """The hidden verbs that work with a database, each run as the account that it is for."""

    def __init__(self, server, place, python):
        self.server, self.place = server, place
        self.prefix = place / "prefix"
        for path in ("prefix/bin", "prefix/conda-meta", "etc/buildbot-conda"):
            (place / path).mkdir(parents=True)
        (self.prefix / "conda-meta/history").touch()
        script = self.prefix / "bin/python"
        script.write_text('#!/bin/sh\nexec "%s" "$@"\n' % python)
        script.chmod(0o755)
        self.directory = place / "master"
        text = "[master]\nconda-root = '%s/none'\nconda-env = '%s'\ndirectory = '%s'\n"
        (place / "etc/buildbot-conda/config.toml").write_text(text % (place, self.prefix, self.directory))

    def make(self, verb, directory, request, user=()):
        command = [*user, str(programs() / "buildbot-conda"), "--root", str(self.place), "service", "make", verb]
        environment = dict(os.environ, PGHOST=str(self.server.place), LANG="C.UTF-8")
        done = subprocess.run(
            [*command, "--", str(directory)], env=environment, input=json.dumps(request), capture_output=True, text=True
        )
        assert done.returncode in (0, 1), done
        return done.stdout.strip() if done.returncode == 0 else done.stderr

    def server_does(self, deed, role="ci", database="buildbot_master"):
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if self.server.by_root else []
        return self.make("server", "/", {"deed": deed, "role": role, "database": database}, user)

    def use(self, directory):
        """The host's master is this one."""
        file = self.place / "etc/buildbot-conda/config.toml"
        file.write_text(file.read_text().replace(str(self.directory), str(directory)))

    def transfer(self, request):
        """What `service transfer` says of the host's master, or that it failed."""
        command = [str(programs() / "buildbot-conda"), "--root", str(self.place), "service", "transfer", "master"]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else done.stderr[done.stderr.rindex("error: ") :]

    def look(self, **request):
        request = {"prefix": str(self.prefix), "url": self.server.url, "place": "x", "clear": False, **request}
        return json.loads(self.make("reach", "/", request))


@pytest.fixture
def commands(server, tmp_path, python):
    place = tmp_path / "host"
    place.mkdir()
    return Commands(server, place, python)


def test_a_role_and_a_database_are_made_and_dropped_if_they_are_ours(commands):
    does = commands.server_does
    found = json.loads(does("Look"))
    assert (found["has_role"], found["owner"], found["tables"]) == (False, None, 0)
    assert does("CreateRole") == does("CreateDatabase") == ""
    found = json.loads(does("Look"))
    assert (found["port"], found["has_role"], found["owner"], found["tables"]) == (5432, True, "ci", 0)
    assert "already exists" in does("CreateDatabase")
    # Its database needs it; a database of another role is not dropped.
    assert does("DropRole") == does("DropDatabase", role="bb") == ""
    assert json.loads(does("Look"))["owner"] == "ci"
    assert does("DropDatabase") == does("DropDatabase") == ""
    assert does("DropRole") == does("DropRole") == ""
    assert not json.loads(does("Look"))["has_role"]
    # It was made by somebody else.
    assert does("DropDatabase", role="bb", database="buildbot") == does("DropRole", role="bb") == ""
    assert json.loads(does("Look", role="bb"))["has_role"]
    # Names are data.
    odd = 'x"; drop role bb; --\\'
    assert does("CreateRole", role=odd) == does("CreateDatabase", role=odd) == ""
    assert json.loads(does("Look", role=odd))["owner"] == odd


def test_a_server_that_is_stopped_is_named(commands):
    commands.server.stop()
    said = commands.server_does("Look")
    assert said.startswith("error: PostgreSQL: connection to server on socket"), said
    problem = commands.look()["problem"]
    assert "connection" in problem and "Background on this error" not in problem, problem


def test_a_new_master_has_its_tables_on_the_server_and_its_url_nowhere_else(commands):
    server = commands.server
    server.sql("alter role bb password 'Geheim'")
    url = server.url.replace("bb@", "bb:Geheim@")
    found = commands.look(url=url)
    assert (found["tables"], found["buildbot"], found["may_create"]) == (0, False, True)
    server.sql("create role ci login")
    found = commands.look(url=url.replace("bb:Geheim@", "ci@"))
    assert (found["account"], found["may_create"]) == ("ci", False)

    configuration = {"path": "master.cfg", "text": CONFIGURATION % {"db_url": url}, "mode": "0600"}
    request = {"database": "master", "url": url, "files": [configuration]}
    assert commands.make("fill", commands.directory, request) == ""
    made = {path.name for path in pathlib.Path(commands.directory).iterdir()}
    assert {"buildbot.tac", "master.cfg", "master.cfg.sample"} <= made and "state.sqlite" not in made, made
    for name in made - {"master.cfg"}:
        assert "Geheim" not in (commands.directory / name).read_text()
    found = commands.look(url=url)
    assert found["buildbot"] and found["tables"] > 30
    # It is complete: Buildbot has nothing to upgrade in it.
    assert server.ask("select count(*) from alembic_version") == "1"

    assert commands.look(url=url, clear=True) == {}
    assert commands.look(url=url)["tables"] == 0


def test_a_database_that_cannot_be_used_leaves_no_directory_that_looks_complete(commands):
    request = {"database": "master", "url": commands.server.url + "x", "files": []}
    said = commands.make("fill", commands.directory, request)
    assert "`buildbot create-master` failed" in said, said
    assert not (commands.directory / "buildbot.tac").exists()


def test_tables_that_a_master_uses_are_not_dropped(commands, make, python):
    server = commands.server
    master = make(python, "master").configure(extra="\nc['db'] = {'db_url': %r}\n" % server.url)
    done = master.buildbot("upgrade-master", "-q", str(master.directory))
    assert done.returncode == 0, done
    master.start().ready()
    problem = commands.look(clear=True)["problem"]
    assert problem.startswith("its tables are used by `"), problem
    master.stop()
    assert commands.look(clear=True) == {}


def rows(url, directory, python):
    """How many rows each table of a database has, by Buildbot's own model."""
    script = "import sys, json; exec(open(sys.argv[1]).read().split('def copy')[0]); print(json.dumps(count(*sys.argv[2:])))"
    program = pathlib.Path(__file__).parents[2] / "cli/src/database/transfer.py"
    done = subprocess.run([python, "-c", script, program, url, directory], capture_output=True, text=True)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_a_database_is_copied_there_and_back_with_every_row(server, make, tmp_path, both_pythons):
    python = both_pythons[1]
    master = make(python, "master").configure(command="echo built")
    worker = make.worker(python, master)
    master.start().ready()
    worker.start().attached()
    for number in (1, 2, 3):
        master.force()
        assert master.finished(number) == 0
    worker.stop()
    master.stop()
    place = tmp_path / "host"
    place.mkdir()
    commands = Commands(server, place, python)
    commands.use(master.directory)
    there = server.url
    here = "sqlite:///%s" % (master.directory / "state.sqlite")

    found = json.loads(commands.transfer({"look": True}))
    assert (found["kind"], found["has_file"]) == ("sqlite", True), found
    copied = json.loads(commands.transfer({"copy": there}))
    before = rows(here, str(master.directory), python)
    assert before["builds"] == 3 and before["logchunks"] > 0
    assert rows(there, str(master.directory), python) == before
    assert copied == {"tables": len(before), "rows": sum(before.values())}
    # Not twice into the same.
    said = commands.transfer({"copy": there})
    assert said.startswith("error: copy the database: "), said

    # The master serves from it, and what it builds there goes back.
    configuration = master.directory / "master.cfg"
    text = configuration.read_text() + "\nc['db'] = {'db_url': %r}\n" % there
    configuration.write_text(text)
    master.start().ready()
    said = commands.transfer({"copy": here})
    assert "in use" in said or "PID" in said, said
    worker.start().attached()
    master.force()
    assert master.finished(4) == 0
    worker.stop()
    master.stop()
    os.rename(master.directory / "state.sqlite", master.directory / "before.sqlite")
    commands.transfer({"copy": "sqlite:///state.sqlite"})
    assert rows(here, str(master.directory), python) == rows(there, str(master.directory), python)
    assert rows(here, str(master.directory), python)["builds"] == 4
    assert commands.transfer({"remove": True}) == "null"
    assert not (master.directory / "state.sqlite").exists()


def test_a_copy_that_cannot_be_complete_fails_with_the_reason(server, make, tmp_path, both_pythons):
    python = both_pythons[1]
    master = make(python, "master").configure()
    master.start().ready()
    master.stop()
    place = tmp_path / "host"
    place.mkdir()
    commands = Commands(server, place, python)
    commands.use(master.directory)
    # PostgreSQL has no such character in a text.
    connection = sqlite3.connect(master.directory / "state.sqlite")
    connection.execute("insert into users (identifier) values ('a' || char(0) || 'b')")
    connection.commit()
    connection.close()
    said = commands.transfer({"copy": server.url})
    assert said.startswith("error: copy the database: ValueError: A string literal cannot contain NUL"), said
    # Such a database serves as before.
    assert commands.transfer({"remove": True}).startswith("error: `%s" % master.directory)
    master.start().ready()
