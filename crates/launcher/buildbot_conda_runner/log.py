"""Converts Twisted's log events to text, level and fields for the journal."""

import sys
import time

from .names import ERROR, INFO, PRIORITIES, WARNING


def event_text(event):
    """The text of a Twisted log event, traceback included."""
    text = event.get("log_text")
    if text is not None:
        return text
    from twisted.logger import formatEvent

    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text += "\n" + failure.getTraceback()
    return text


def event_failure(event):
    return event.get("log_failure") or event.get("failure")


def event_fields(event):
    """Journal fields of a Twisted log event, as (name, value) pairs."""
    fields = []
    namespace = event.get("log_namespace")
    if namespace and namespace != "log_legacy":
        fields.append(("BUILDBOT_NAMESPACE", namespace))
    system = event.get("log_system")
    if system and system != "-":
        fields.append(("BUILDBOT_SYSTEM", system))
    frames = getattr(event_failure(event), "frames", None)
    if frames:
        function, file, line = frames[-1][:3]
        fields += [("CODE_FILE", file), ("CODE_LINE", line), ("CODE_FUNC", function)]
    return fields


# Lines which Buildbot logs like any other, though an administrator looks for them.
IMPORTANT = (
    ("Configuration Errors:", ERROR),
    ("BuildMaster startup failed", ERROR),
    ("configuration update aborted", ERROR),
    ("reconfig aborted", ERROR),
    ("WARNING: ", WARNING),
    ("unauthorized login", WARNING),
)


def event_priority(event, text):
    if event.get("isError"):
        return ERROR
    if event.get("log_namespace") == "stderr":  # what libraries print there is seldom an error
        return WARNING
    level = getattr(event.get("log_level"), "name", "info")
    if level == "info":
        for start, priority in IMPORTANT:
            if text.startswith(start):
                return priority
    return PRIORITIES.get(level, INFO)


class Observer:
    """The Twisted log observer: every event goes to the journal, then to `watch(event, text)`."""

    def __init__(self, journal, watch):
        self.journal, self.watch = journal, watch

    def __call__(self, event):
        try:
            text = event_text(event)
            self.journal.write(event_priority(event, text), text, event_fields(event))
            if event.get("log_namespace") not in ("stdout", "stderr"):
                self.watch(event, text)
        except Exception as error:
            self.journal.write(ERROR, "cannot handle a log event: %r" % error)


class Calm:
    """Keeps an observer of the tac from flooding the journal when it fails, as on a full disk."""

    PAUSE = 3600  # seconds between two complaints

    def __init__(self, observer, journal):
        self.observer, self.journal, self.complained = observer, journal, None

    def __call__(self, event):
        try:
            self.observer(event)
        except Exception as error:
            now = time.monotonic()
            if self.complained is None or now > self.complained + self.PAUSE:
                self.complained = now
                self.journal.write(ERROR, "cannot write the log of buildbot.tac: %s" % error)


def observers_of(application, journal):
    """What `--log both` adds: the log observer that the tac chose, or twistd's own.

    One that writes to stdout is left out, as everything would then be in the journal twice.
    """
    from twisted import logger
    from twisted.python import log, logfile

    standard = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    observer = application.getComponent(logger.ILogObserver, None)
    if observer is not None:
        return [] if getattr(observer, "_outFile", None) in standard else [Calm(observer, journal)]
    observer = application.getComponent(log.ILogObserver, None)
    if observer is not None:
        write = getattr(getattr(observer, "__self__", None), "write", None)
        if getattr(write, "__self__", None) in standard:
            return []
        return [Calm(logger.LegacyLogObserverWrapper(observer), journal)]
    file = logfile.LogFile.fromFullPath("twistd.log")
    return [Calm(logger.textFileLogObserver(file), journal)]
