# Created by `buildbot-conda create`; edit it as you like.
# Reference: https://docs.buildbot.net/latest/manual/installation/worker.html
import os

from buildbot_worker.bot import Worker
from twisted.application import service
from twisted.python.log import FileLogObserver, ILogObserver
from twisted.python.logfile import LogFile

basedir = os.path.abspath(os.path.dirname(__file__))

# note: this line is matched against to check that this is a worker
# directory; do not edit it.
application = service.Application('buildbot-worker')

# Only with `log = "both"`; the journal contains everything.
logfile = LogFile.fromFullPath(os.path.join(basedir, "twistd.log"), rotateLength=10000000, maxRotatedFiles=10)
application.setComponent(ILogObserver, FileLogObserver(logfile).emit)

# systemd passes it from the file that [worker.credentials] in
# /etc/buildbot-conda/config.toml names.
with open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "password")) as file:
    password = file.read().strip()

# 200 workers in this process, with one build and one directory each. The number must match `slots` in
# `workers.toml` of the master.
name = "gpu"
for slot in range(1, 200 + 1):
    directory = os.path.join(basedir, "slots", str(slot))
    if not os.path.isdir(directory):
        os.makedirs(directory)
        os.symlink(os.path.join("..", "..", "info"), os.path.join(directory, "info"))
    worker = Worker(
        None,
        None,
        name if slot == 1 else "%s-%d" % (name, slot),
        password,
        directory,
        # Seconds between keepalive messages. Even without them, a lost master is detected within 45 s.
        60,
        # Maximum number of seconds between two attempts.
        maxdelay=30,
        # `systemctl reload` and `buildbot-conda drain` let running builds finish.
        allow_shutdown="signal",
        connection_string="unix:path=/run/buildbot-conda/master/workers",
    )
    worker.setServiceParent(application)
