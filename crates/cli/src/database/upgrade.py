"""`buildbot upgrade-master` of the environment, without the script that may have been moved with it.

Run by `python -c` as the service user: LOCK, then Buildbot's own arguments. LOCK is the number of an
inherited lock descriptor: the lock lives on in this process if whoever started it is killed, and in
no process that the configuration leaves behind.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

import os

lock = int(sys.argv.pop(1))
os.set_inheritable(lock, False)
os.register_at_fork(after_in_child=lambda: os.close(lock))
sys.argv[0] = "buildbot"

from buildbot.scripts.runner import run

run()
