"""Tell which database a master uses, and how its schema stands to the Buildbot that is installed.

Run by `python -c` as the service user, in the activated environment: DIRECTORY LOCK ["check"].
LOCK is the number of an inherited lock descriptor, or `-`. One JSON object goes to stdout, whatever
the configuration prints goes to stderr. Works with CPython 3.8 and later and Buildbot 2.10 to 4.x.

The configuration is read as the start reads it: by the loader of the master that `buildbot.tac` makes.
SQLite files are then read without SQLAlchemy, because Buildbot's own engine would make a file that is
missing.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]  # the current directory: modules of the master are not ours

import contextlib
import json
import os
import traceback


def keep(number):
    """Hold the lock in this process, and in none that the configuration leaves behind."""
    if number != "-":
        number = int(number)
        os.set_inheritable(number, False)
        os.register_at_fork(after_in_child=lambda: os.close(number))


class Problem(Exception):
    def __init__(self, kind, text):
        super().__init__(text)
        self.kind, self.text = kind, text


def configuration(directory):
    """(configuration, base directory, its file) of the master in a directory."""
    from buildbot.config import ConfigErrors

    note_handled(ConfigErrors)  # noqa: F821, from causes.py
    try:
        base, name = place_of(directory)  # noqa: F821, from master_of.py
        return loader(base, name).loadConfig(), base, name
    except ConfigErrors as error:
        lines = [line.strip() for text in error.errors for line in text.splitlines() if line.strip()]
        if any(line.startswith("Traceback") for line in lines):
            sys.stderr.write("\n".join(lines) + "\n")
            lines = lines[-1:]
        raise Problem(kind_of(error), "; ".join(lines))
    except BaseException as error:
        traceback.print_exc()
        raise Problem(kind_of(error), "%s: %s%s" % (type(error).__name__, error, permission(error)))


def loader(base, name):
    try:
        from buildbot.config.master import FileLoader
    except ImportError:  # before 3.0
        from buildbot.config import FileLoader
    return FileLoader(base, name)


def kind_of(error):
    return "away" if may_heal(error) else "configuration"  # noqa: F821, from causes.py


def permission(error):
    """What would allow that which the sandbox of the service has refused, where it was that."""
    allowed = allowed_by(error)  # noqa: F821, from causes.py
    return "; " + allowed if allowed else ""


def database_url(directory, config):
    """(url, keyword arguments of the engine), secrets filled in."""
    url = getattr(config.db, "db_url", None) or config.db["db_url"]
    from buildbot.interfaces import IRenderable

    if not IRenderable.providedBy(url):
        return url, getattr(config.db, "engine_kwargs", None) or {}
    from buildbot.master import BuildMaster
    from twisted.internet import defer, reactor

    found = []

    @defer.inlineCallbacks
    def render():
        try:
            master = BuildMaster(directory)
            master.config = config
            yield master.secrets_manager.setup()
            found.append((yield master.get_db_config(config)))
        except Exception as error:
            traceback.print_exc()
            found.append(Problem("configuration", "db_url: %s: %s" % (type(error).__name__, error)))
        reactor.stop()

    reactor.callWhenRunning(render)
    reactor.run(installSignalHandlers=False)
    if isinstance(found[0], Problem):
        raise found[0]
    return found[0].db_url, found[0].engine_kwargs


def schemas():
    """(family, head, revisions known) of the Buildbot installed: `alembic`, or before 3.0 `migrate`."""
    from buildbot.db import model

    if not hasattr(model.Model, "alembic_get_scripts"):
        from migrate.versioning.repository import Repository

        return "migrate", str(int(Repository(model.Model.repo_path).latest)), None
    import alembic.config
    import alembic.script

    scripts = alembic.script.ScriptDirectory.from_config(alembic.config.Config(model.Model.config_path))
    return "alembic", scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}


def relation(tables, revision_of):
    """{revision, head, relation} of a database with these tables; `revision_of(table, column)`."""
    family, head, known = schemas()
    if "alembic_version" in tables:
        revision = revision_of("alembic_version", "version_num")
        if family == "migrate":
            found = "newer"
        elif revision == head:
            found = "current"
        else:
            found = "older" if revision is None or revision in known else "newer"
    elif "migrate_version" in tables:
        revision = str(revision_of("migrate_version", "version"))
        if family == "alembic":
            found = "older"
        else:
            found = {-1: "older", 0: "current", 1: "newer"}[
                (int(revision) > int(head)) - (int(revision) < int(head))
            ]
    else:
        revision, found = None, "older" if "buildrequests" in tables else "empty"
    return {"revision": revision, "head": head, "relation": found}


# Grows with every build, every request of one and every change; a copy has the same.
PROGRESS = """
select (select coalesce(max(id), 0) from builds) + (select coalesce(max(id), 0) from buildrequests)
    + (select coalesce(max(changeid), 0) from changes)
"""


def sqlite(path, check):
    import sqlite3
    import urllib.parse

    answer = {"kind": "sqlite", "path": path, "place": path, "size": 0, "intact": True}
    if not os.path.exists(path):
        answer.update(relation((), None))
        return answer
    for end in ("", "-wal"):
        with contextlib.suppress(OSError):
            answer["size"] += os.stat(path + end).st_size
    try:
        uri = "file:%s?mode=rw" % urllib.parse.quote(path)
        connection = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
        rows = connection.execute("select name from sqlite_master where type = 'table'").fetchall()

        def revision_of(table, column):
            row = connection.execute("select %s from %s" % (column, table)).fetchone()
            return row[0] if row else None

        answer.update(relation([row[0] for row in rows], revision_of))
        with contextlib.suppress(sqlite3.Error):
            answer["progress"] = connection.execute(PROGRESS).fetchone()[0]
        if check:
            answer["intact"] = connection.execute("pragma quick_check(1)").fetchone()[0] == "ok"
        connection.close()
    except sqlite3.OperationalError as error:
        raise Problem("away", "database `%s`: %s" % (path, error))
    except sqlite3.DatabaseError as error:
        # Not a database, or a malformed one.
        sys.stderr.write("database `%s`: %s\n" % (path, error))
        answer.update(revision=None, head=schemas()[1], relation="damaged", intact=False)
    return answer


def server(url, text, directory, arguments):
    import sqlalchemy
    from buildbot.db import enginestrategy

    family = url.drivername.partition("+")[0]
    answer = {
        "kind": {"postgres": "postgresql", "mariadb": "mysql"}.get(family, family),
        "place": "%s://%s/%s" % (family, url.host or "", url.database or ""),
        "server": {
            "driver": url.drivername,
            # A socket's directory is written as an argument of the URL.
            "host": url.host or url.query.get("host"),
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": url.database,
        },
        "intact": True,
    }
    try:
        engine = enginestrategy.create_engine(text, basedir=directory, **arguments)
        with engine.connect() as connection:
            tables = tables_of_buildbot(sqlalchemy.inspect(connection))  # noqa: F821, from tables.py
            answer["server"]["tables"] = sorted(tables)
            if engine.dialect.name == "postgresql":
                cursor = connection.connection.cursor()
                answer["server"]["version"] = connection.dialect.server_version_info[0]
                answer["others"] = holders(cursor, SCHEMA) or None  # noqa: F821, from holders.py

            def revision_of(table, column):
                row = connection.execute(sqlalchemy.text("select %s from %s" % (column, table))).fetchone()
                return row[0] if row else None

            answer.update(relation(tables, revision_of))
            with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                answer["progress"] = int(connection.execute(sqlalchemy.text(PROGRESS)).fetchone()[0])
    except Exception as error:
        if isinstance(error, ImportError) and error.name:
            # The beginning is what `doctor` knows it by.
            text = "the environment lacks the driver `%s` of `%s://`" % (error.name, url.drivername)
            raise Problem("configuration", text)
        traceback.print_exc()
        reason = (str(error).strip().splitlines() or [""])[0]
        away = "OperationalError" in {kind.__name__ for kind in type(error).__mro__}
        kind = "away" if away else "configuration"
        raise Problem(kind, "database: %s: %s" % (type(error).__name__, reason))
    return answer


def ports(config):
    """The TCP ports that a master listens on, as far as its configuration names them."""
    import re

    found = []
    places = dict(getattr(config, "protocols", None) or {}, www=getattr(config, "www", None) or {})
    for purpose, settings in sorted(places.items()):
        values = settings.get("port") if isinstance(settings, dict) else None
        for value in values if isinstance(values, (list, tuple)) else [values]:
            match = re.match(r"(?:(?:tcp6?|ssl|tls):)?(?:port=)?(\d+)(?::|$)", str(value))
            if match and 0 < int(match.group(1)) < 65536:
                found.append({"purpose": purpose, "port": int(match.group(1))})
    return found


def own_work(config, base):
    """What builds do inside the master's own service, whose sandbox is then theirs, in a few words each."""

    def names(kind):
        return {parent.__name__ for parent in getattr(kind, "__mro__", ())}

    found = []
    for worker in getattr(config, "workers", None) or ():
        # Those of Buildbot's own services, such as `__Janitor`, touch the database alone.
        if "LocalWorker" in names(type(worker)) and not worker.workername.startswith("__"):
            found.append("the LocalWorker `%s`" % worker.workername)
    for builder in getattr(config, "builders", None) or ():
        for step in getattr(builder.factory, "steps", ()):
            kinds = names(getattr(step, "step_class", None) or getattr(step, "factory", None))  # the latter before 3.0
            place = getattr(step, "kwargs", {}).get("masterdest")
            place = getattr(place, "fmtstring", place)  # of an Interpolate
            if "MasterShellCommand" in kinds:
                found.append("MasterShellCommand in `%s`" % builder.name)
            elif isinstance(place, str) and os.path.relpath(os.path.join(base, place), base).startswith("../"):
                found.append("an upload to `%s` in `%s`" % (place, builder.name))
    return sorted(set(found))


def inspect(directory, check):
    os.chdir(directory)
    try:
        import buildbot
        from sqlalchemy.engine import url as urls
    except ImportError as error:
        raise Problem("configuration", str(error))
    place = directory
    config, directory, file = configuration(directory)
    text, arguments = database_url(directory, config)
    try:
        url = urls.make_url(text)
    except Exception as error:
        raise Problem("configuration", "db_url: %s" % type(error).__name__)  # its text has the URL
    if not url.drivername.startswith("sqlite"):
        answer = server(url, text, directory, arguments)
    elif not url.database or url.database == ":memory:":
        answer = {"kind": "memory", "place": "memory", "intact": True, "relation": "current"}
        answer.update(revision=None, head=schemas()[1])
    elif url.database.startswith("file:"):
        raise Problem("configuration", "db_url: a SQLite URI cannot be backed up, write a path")
    else:
        path = os.path.join(directory, url.database % {"basedir": directory})
        answer = sqlite(os.path.realpath(path), check)
    answer["buildbot"] = buildbot.version
    answer["ports"] = ports(config)
    answer["own_work"] = own_work(config, directory)
    www = (getattr(config, "www", None) or {}).get("port")
    answer["www"] = [str(port) for port in (www if isinstance(www, (list, tuple)) else [www]) if port]
    if os.path.realpath(directory) != os.path.realpath(place):
        answer["elsewhere"] = "%s, and its configuration `%s`" % (directory, file)
    return answer


def inspect_file(path):
    """Of a copy of a SQLite database, without a configuration."""
    import buildbot

    return dict(sqlite(path, True), buildbot=buildbot.version)


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        directory, lock = sys.argv[1:3]
        keep(lock)
        if sys.argv[3:4] == ["file"]:
            answer = inspect_file(sys.argv[4])
        else:
            answer = inspect(directory, "check" in sys.argv[3:])
    except Problem as problem:
        answer = {"problem": problem.kind, "text": problem.text}
    except BaseException as error:
        traceback.print_exc()
        answer = {"problem": "unexpected", "text": "%s: %s" % (type(error).__name__, error)}
    answers.write(json.dumps(answer))
    answers.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the configuration would keep the interpreter from ending


main()
