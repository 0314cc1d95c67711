"""A PostgreSQL server of Debian's package, which a test starts, disturbs and stops."""

import contextlib
import os
import pathlib
import subprocess
import tempfile


class Server:
    """A server on its own Unix socket with one database, `buildbot`, owned by the role `bb`.

    With an address, clients in the same network can connect, too.
    """

    def __init__(self, address=""):
        programs = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
        self.programs = max(programs, key=lambda path: float(path.parent.name))
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="runner-"))
        # In memory and small, so that the disk can be filled. This needs root, as which the server refuses to run.
        self.by_root = os.geteuid() == 0
        if self.by_root:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(self.place)], check=True)
            subprocess.run(["chown", "postgres", str(self.place)], check=True)
        try:
            self.run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--pgdata", self.place / "data")
            with open(self.place / "data" / "postgresql.conf", "a") as file:
                file.write("listen_addresses = '%s'\n" % address)
                file.write("unix_socket_directories = '%s'\nfsync = off\n" % self.place)
            with open(self.place / "data" / "pg_hba.conf", "a") as file:
                file.write("host all all samenet trust\n")
            self.start()
            self.sql("create role bb login", "create database buildbot owner bb")
        except BaseException:
            self.remove()
            raise
        self.url = "postgresql+psycopg2://bb@/buildbot?host=%s" % (address or self.place)

    def run(self, program, *words, stdout=subprocess.DEVNULL):
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if self.by_root else []
        command = [*user, str(self.programs / program), *map(str, words)]
        return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=stdout, cwd="/")

    def start(self):
        self.run("pg_ctl", "--pgdata", self.place / "data", "--log", self.place / "log", "--wait", "start")

    def revive(self):
        """Start it if it has stopped, for example because there was no space for its log."""
        try:
            self.run("pg_ctl", "--pgdata", self.place / "data", "status")
        except subprocess.CalledProcessError:
            self.start()

    def stop(self):
        """As a crash is, or a host that goes down."""
        self.run("pg_ctl", "--pgdata", self.place / "data", "--mode=immediate", "--wait", "stop")

    def sql(self, *statements):
        words = [word for statement in statements for word in ("--command", statement)]
        self.run("psql", "--quiet", "--host", self.place, "--username=postgres", *words, "postgres")

    def ask(self, query):
        """What a query in Buildbot's database answers, as text."""
        words = ("--quiet", "--no-align", "--tuples-only", "--host", self.place, "--username=postgres", "--command", query)
        return self.run("psql", *words, "buildbot", stdout=subprocess.PIPE).stdout.decode().strip()

    def disconnect(self):
        """End every connection of Buildbot's."""
        self.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bb'")

    def remove(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        if self.by_root:
            subprocess.run(["umount", "--lazy", str(self.place)])
        subprocess.run(["rm", "-r", "--one-file-system", str(self.place)])
