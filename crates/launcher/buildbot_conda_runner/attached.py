"""Which workers have ever been attached to a master: `attached.json` in the state directory of the instance.

It has `{"workers": {NAME: seconds since 1970}}`, the first time of each worker that the configuration has.
`buildbot-conda invite` tells by it which invitations were used.
"""

import json
import os
import time

from .names import WARNING
from .report import replace_file


class Attached:
    """The workers that were; `state` is the state directory, without which nothing is kept."""

    def __init__(self, state, journal):
        self.path = os.path.join(state, "attached.json") if state else None
        self.journal, self.workers = journal, {}
        try:
            with open(self.path or os.devnull, "rb") as file:
                self.workers = dict(json.load(file)["workers"])
        except (OSError, ValueError, TypeError, KeyError):
            pass  # none was, as far as is known

    def note(self, name):
        if name not in self.workers:
            self.workers[name] = int(time.time())
            self._save()

    def keep(self, names):
        """Forget the workers that the configuration no longer has: another one may get the name."""
        kept = {name: when for name, when in self.workers.items() if name in names}
        if kept != self.workers:
            self.workers = kept
            self._save()

    def _save(self):
        if self.path is None:
            return
        try:
            replace_file(self.path, "%s.%d" % (self.path, os.getpid()), json.dumps({"workers": self.workers}) + "\n")
        except OSError as error:
            self.journal.write(WARNING, "cannot write `%s`: %s" % (self.path, error.strerror))
