"""Importing, which is most of a start: what can wait does."""

import os
import sys

from .names import TAC


def mentions(path, word):
    """Whether a file holds some bytes; no when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return word in file.read()
    except OSError:
        return False


class Shortcuts:
    """An import hook that leaves out, until the instance serves, what a start does not need.

    Importing is five sixths of a start. Some of it can wait without anybody noticing: mako's
    colouring of error pages with Pygments, which mako itself holds to be optional; support for
    databases that are not in use, which is loaded on first use or by `complete()`; what is merely
    mentioned where it is imported, which is loaded once the instance serves; and, for a worker that
    does not use it, TLS: Twisted works without OpenSSL, and a worker's package does not ask for it.
    """

    SKIPPED = {"mako.ext.pygmentplugin"}
    DATABASES = {"alembic.ddl." + name for name in "mssql mysql oracle postgresql".split()} | {
        "sqlalchemy.dialects.mysql." + name
        for name in "aiomysql asyncmy cymysql mariadbconnector mysqlconnector pyodbc".split()
    } | {"sqlalchemy.dialects.sqlite.aiosqlite", "sqlalchemy.dialects.sqlite.pysqlcipher"}
    MENTIONED = {"alembic.command", "http.cookiejar", "jinja2", "unittest"}
    LATER = DATABASES | MENTIONED

    def __init__(self, role):
        self.skipped = set(self.SKIPPED)
        if role == "worker":
            from . import tac

            if tac.is_plain(TAC):
                self.skipped.add("OpenSSL")
        # When Autobahn is imported, it compiles a checker of UTF-8 for WebSockets, and has a slower one that needs no
        # compiler. Only one protocol of workers sends enough data for a noticeable difference.
        name = "AUTOBAHN_USE_NVX"
        files = {"master": (TAC, "master.cfg"), "worker": (TAC,)}[role]
        self.variable = None
        if name not in os.environ and not any(mentions(file, b"msgpack") for file in files):
            self.variable = name
            os.environ[name] = "0"
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name in self.skipped:
            raise ModuleNotFoundError("`%s` is not needed" % name, name=name)
        if name in self.LATER:
            from importlib import machinery, util

            spec = machinery.PathFinder.find_spec(name, path)
            if spec is not None and spec.loader is not None:
                spec.loader = util.LazyLoader(spec.loader)
            return spec
        return None

    def tac_is_read(self):
        """From here on, the process may pass its environment on to builds."""
        if self.variable is not None:
            os.environ.pop(self.variable, None)

    def remove(self):
        sys.meta_path.remove(self)

    def complete(self, names=LATER):
        """Load postponed modules; not for threads, which lazy modules do not support before Python 3.12."""
        for name in names & set(sys.modules):
            getattr(sys.modules[name], "__all__", None)
