"""Real certificates for the tests, made by openssl(1)."""

import pathlib
import subprocess
import time

# For openssl-ca(1), which alone takes the second in which a certificate ends: database, directory.
SETTINGS = """
[ca]
default_ca = this
[this]
database = %s
new_certs_dir = %s
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
"""


class Authority:
    """An authority in a separate directory, which Twisted calls `trustRoots`."""

    def __init__(self, directory, name="Test authority"):
        self.roots = pathlib.Path(directory) / "roots"
        self.roots.mkdir(parents=True)
        self.key, self.file = self.roots / "authority.key", self.roots / "authority.pem"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=" + name,
                "-keyout", self.key, "-out", self.file)  # fmt: skip

    def certificate(self, names="DNS:localhost,IP:127.0.0.1", days=9, seconds=None):
        """Writes a new key and a certificate of so many days or seconds; returns their paths."""
        place = self.roots.parent
        key, file = place / "master.key", place / "master.crt"
        request, extensions = place / "request", place / "extensions"
        extensions.write_text("subjectAltName=%s\n" % names)
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=master", "-keyout", key, "-out", request)
        if seconds is None:
            openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key, "-CAcreateserial",
                    "-days", str(days), "-extfile", extensions, "-out", file)  # fmt: skip
        else:
            settings, database = place / "settings", place / "database"
            settings.write_text(SETTINGS % (database, place))
            database.write_text("")
            end = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))
            openssl("ca", "-batch", "-config", settings, "-in", request, "-cert", self.file, "-keyfile", self.key,
                    "-enddate", end, "-extfile", extensions, "-notext", "-out", file)  # fmt: skip
        return key, file

    def port(self, number, **certificate):
        """A port for workers with a new certificate, as Twisted describes it."""
        return "ssl:%d:privateKey=%s:certKey=%s:interface=127.0.0.1" % (number, *self.certificate(**certificate))


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


TAC = """
import os
from buildbot_worker.bot import Worker
from twisted.application import service
application = service.Application('buildbot-worker')
basedir = os.path.abspath(os.path.dirname(__file__))
s = Worker(None, None, 'w1', 'secret', basedir, 60, connection_string=%r)
s.setServiceParent(application)
"""


def trust(worker, roots, port, host="localhost"):
    """Have a worker ask for TLS, with the authorities of one directory."""
    text = TAC % ("tls:%s:%d:trustRoots=%s" % (host.replace(":", "\\:"), port, roots))
    (worker.directory / "buildbot.tac").write_text(text)
    return worker
