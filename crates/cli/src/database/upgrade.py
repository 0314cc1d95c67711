"""`buildbot upgrade-master` of the environment, without the script that may have been moved with it.

Run by `python -c` as the service user: LOCK and the directory, where the master may not have its base. LOCK is the number of an
inherited lock descriptor: the lock lives on in this process if whoever started it is killed, and in
no process that the configuration leaves behind.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

import os

lock, directory = int(sys.argv[1]), sys.argv[2]
os.set_inheritable(lock, False)
os.register_at_fork(after_in_child=lambda: os.close(lock))
base, configuration = place_of(directory)  # noqa: F821, from master_of.py

from buildbot.scripts import base as scripts
from buildbot.scripts.runner import run

# Upstream looks for a tac of its own making in the base directory; whoever holds the lock knows that no master runs.
scripts.checkBasedir = lambda config: True
scripts.getConfigFileFromTac = lambda *words, **named: configuration
sys.argv = ["buildbot", "upgrade-master", base]
run()
