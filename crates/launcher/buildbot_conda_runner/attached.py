"""Records which workers have ever been attached to a master: `attached.json` in the state directory of the instance.

It contains `{"since": SECONDS, "workers": {NAME: SECONDS}}`, in seconds since 1970: the start of the record, and the
first connection of each configured worker. `buildbot-conda invite` uses it to determine which invitations were used. If
it does not exist, or starts after an invitation, this is unknown.
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
        self.journal, self.is_kept = journal, True
        try:
            with open(self.path or os.devnull, "rb") as file:
                found = json.load(file)
                self.since, self.workers = int(found["since"]), dict(found["workers"])
        except (OSError, ValueError, TypeError, KeyError):
            self.since, self.workers = int(time.time()), {}
            self._save()

    def note(self, name):
        if name not in self.workers or not self.is_kept:
            self.workers.setdefault(name, int(time.time()))
            self._save()

    def keep(self, names):
        """Forget the workers that the configuration no longer has: another one may get the name."""
        kept = {name: when for name, when in self.workers.items() if name in names}
        if kept != self.workers or not self.is_kept:
            self.workers = kept
            self._save()

    def _save(self):
        if self.path is None:
            return
        content = {"since": self.since, "workers": self.workers}
        try:
            replace_file(self.path, "%s.%d" % (self.path, os.getpid()), json.dumps(content) + "\n")
            self.is_kept = True
        except OSError as error:
            self.is_kept = False
            self.journal.write(WARNING, "cannot write `%s`: %s" % (self.path, error.strerror))
            try:
                os.unlink(self.path)  # one that lacks a worker would be believed
            except OSError:
                pass
