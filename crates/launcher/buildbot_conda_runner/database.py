"""The database of a master: which Buildbot wrote it, and the way to `buildbot-conda service prepare`,
which brings an older one up to date, and one back that an unfinished update has made newer."""

import os
import sys

from .arguments import Refusal, own_directory
from .handover import become, below
from .names import CLI, NOTICE, PREPARED, SCHEMA, UNFINISHED_UPDATE, UPGRADE_MARK, WARNING
from .report import replace_file


class Database:
    """What is known of it outside of Buildbot; `runner` is the start that this is a part of."""

    def __init__(self, runner):
        self.runner, self.options, self.variables = runner, runner.options, runner.variables
        self.journal = runner.journal
        # The instance's own directory below /var/lib, without which nothing is kept or upgraded.
        name = "buildbot-conda/instances/" + self.options.reference
        self.state = own_directory(self.variables.get("STATE_DIRECTORY", ""), name)

    # The version that wrote it

    def remember_version(self):
        path, version = os.path.join(self.state, "last-version"), self.runner.report.status["buildbot"]
        if self.state and version and self.last_version() != version:
            try:
                replace_file(path, "%s.%d" % (path, os.getpid()), version + "\n")
            except OSError as error:
                self.journal.write(WARNING, "cannot write `%s`: %s" % (path, error.strerror))

    def last_version(self):
        if not self.state:
            return None
        try:
            with open(os.path.join(self.state, "last-version"), encoding="ascii") as file:
                return file.read(64).strip() or None
        except (OSError, ValueError):
            return None

    # An older one

    def is_unfinished(self):
        """Whether the database may be damaged: nothing may use it before it is restored."""
        return self.options.role == "master" and self._mark() is not None

    def directories(self):
        """Where backups and the mark of an upgrade are, and where earlier versions of this package kept them."""
        if not self.state:
            return []
        instances, reference = os.path.split(self.state)
        return [os.path.join(os.path.dirname(instances), "backups", reference), self.state]

    def _mark(self):
        marks = [os.path.join(directory, UPGRADE_MARK) for directory in self.directories()]
        return next(filter(os.path.lexists, marks), None)

    def is_older(self, code, reason, hint):
        """With `--upgrade auto`, do not end but become the command that upgrades it."""
        if self.variables.get(PREPARED):
            return code, "%s, even after an upgrade" % reason, hint
        if self.options.upgrade == "auto" and self.state and self.runner.lock is not None:
            self.journal.write(NOTICE, reason)
            why = self._prepare()
            return code, "%s; %s" % (reason, why), hint
        return code, reason, hint

    def is_newer(self, code, reason, hint):
        """While an update of the managed environment has not come to its end, it may have been that which upgraded the
        database, and `buildbot-conda service prepare` knows the way back."""
        note = os.path.join(os.path.dirname(sys.prefix), UNFINISHED_UPDATE)
        if os.path.lexists(note) and not self.variables.get(PREPARED) and self.state and self.runner.lock is not None:
            self.journal.write(NOTICE, reason)
            why = self._prepare()
            return code, "%s; %s" % (reason, why), hint
        return code, reason, hint

    def become_whole(self):
        """Become the command that brings an interrupted upgrade to its end, or refuse to start."""
        reason = "`%s`: an upgrade of the database was interrupted" % self._mark()
        if self.runner.lock is None:
            why = "no lock is held"
        elif self.variables.get(PREPARED):
            why = "and could not be completed"
        else:
            self.journal.write(NOTICE, reason)
            why = self._prepare()
        raise Refusal(SCHEMA, "%s; %s" % (reason, why))

    def _prepare(self):
        """Become `buildbot-conda service prepare`, which upgrades the database and then starts this instance again,
        with the same process and the same lock. Returns only if that failed, with the reason."""
        return become(self.runner, below(self.options, CLI) + ["service", "prepare", self.options.reference])
