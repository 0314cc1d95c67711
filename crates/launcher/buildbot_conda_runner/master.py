"""A BuildMaster, followed from its start over its reconfigurations to its stop."""

import os
import signal
import sys
import time

from . import answers, attachment, audit, causes, credentials, liveness
from .arguments import Refusal
from .attached import Attached
from .door import Door
from .log import event_failure
from .names import AWAY, CONFIGURATION, ERROR, NOTICE, SCHEMA, UNEXPECTED
from .reasons import compare_schema, error_place, error_text, exit_status, is_damage, status_of_code
from .role import Role, stop_reactor, tolerate_second_stop, wrap
from .text import one_line
from .watching import diagnose_hang


class Master(Role):
    """Follows a BuildMaster: its lines on which upstream's own tools rely (logwatcher.py), and the
    exceptions behind them."""

    package, distribution = "buildbot", "buildbot"

    def __init__(self, runner):
        super().__init__(runner)
        self.state = "starting"  # starting, running, draining, stopping, failed
        self.errors = []  # exceptions since the start or reconfiguration began, in order
        self.load_failed = False  # whether the first of them came from reading master.cfg
        self.place = self.advice = ""
        self.schema = None  # (older or newer, text) once compared
        self.reloads = 0
        self.master = None
        self.read = None  # what `sources` gave when the configuration was last read
        self.announcement = None  # the message of a start that is put off
        self.previous = None  # the configuration in effect, while another is read
        self.router = self.outage = self.serving = self.gauges = None
        self.away = None  # what is not there, or not to be had, without which there is no serving
        self.old_name = None  # what Buildbot has called it, where the configuration has another name
        self.others = ""  # who serves from the same database, once an older schema was found
        self.certificates = {}  # what `reload.stamps` gave when the ports were opened
        self.door, self.attached = Door(runner), Attached(runner.database.state, runner.journal)

    def find(self, services):
        for service in services:
            if any(kind.__name__ == "BuildMaster" for kind in type(service).__mro__):
                self.master = service
        return self.master is not None

    def attach(self):
        master = self.master
        from buildbot.config import ConfigErrors

        causes.note_handled(ConfigErrors)
        attachment.mend(self.attached.note)
        liveness.mend(sys.modules["twisted.spread.pb"].Broker)
        by_websocket = sys.modules.get("buildbot.worker.protocols.manager.msgpack")
        if by_websocket is not None:
            liveness.mend(by_websocket.BuildbotWebSocketServerProtocol)
        remember_descriptions()
        if self.runner.options.name:
            from . import naming

            self.old_name = naming.give(master, self.runner.options.name)
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory and credentials.is_needed(self.report.status["buildbot"]):
            credentials.mend(directory)
        if hasattr(getattr(master, "data", None), "getEndpoint"):
            audit.attach(master.data, self.runner.journal, lambda: audit.builders_of(master))
        keep_beating(getattr(master, "masterHeartbeatService", None))
        keep_beating(getattr(getattr(master, "db", None), "cleanup_timer", None))
        wrap(master, "startService", failed=self._start_ended)
        # If that fails, the code that waits for the services to stop would not stop the process.
        wrap(master, "stopService", before=self._stopping, failed=lambda _: stop_reactor())
        self.reconfigure = getattr(master, "reconfigServiceWithBuildbotConfig", None)
        if self.reconfigure is not None:
            master.reconfigServiceWithBuildbotConfig = self._apply
            wrap(master, "reconfigServiceWithBuildbotConfig", failed=self.errors.append)
        if not hasattr(master, "config_loader"):
            self.runner.shortcuts.complete()
            return
        self.load, master.config_loader.loadConfig = master.config_loader.loadConfig, self._load
        wrap(master.config_loader, "loadConfig", self._loading, self._load_failed)

    def reactor_started(self):
        self.runner.stop_at_once_on_signals()  # the reactor has put its own handlers in place
        tolerate_second_stop()

    # Starting

    # Names of files in the master's directory that a configuration is made of.
    SOURCES = (".cfg", ".py", ".toml", ".yaml", ".yml")

    def sources(self):
        """What changes with the files of the configuration: name -> inode, bytes and time."""
        found = {}
        try:
            with os.scandir(".") as entries:
                for entry in entries:
                    if entry.name.endswith(self.SOURCES):
                        info = entry.stat()
                        found[entry.name] = (info.st_ino, info.st_size, info.st_mtime_ns)
        except OSError:
            pass  # what cannot be seen has not changed
        return found

    def _loading(self):
        self.read = self.sources()
        if self.state == "starting":
            self.report.change(message="starting: reading %s" % self.master.configFileName)
            setup = self.master.db.setup
            self.master.db.setup = lambda *words, **named: self._lock(setup(*words, **named))
            wrap(self.master.db, "setup", self._database, self._database_failed)

    def _load(self):
        new = self.load()
        if self.state != "starting":
            from buildbot.config import ConfigErrors

            from . import reload

            self.previous = self.master.config
            refusals = reload.refusals(self.previous, new)
            if refusals:
                raise ConfigErrors(refusals)
        return new

    def _apply(self, new):
        if self.previous is None:  # at the start, and where there is no loader to listen to
            return self.reconfigure(new)
        from . import reload

        applied = reload.apply(self.master, self.reconfigure, self.previous, new, self.certificates)
        return applied.addCallback(self._note_certificates)

    def _note_certificates(self, found):
        from . import reload

        self.certificates = found
        if any(found.values()) or self.report.status.get("certificates"):
            self.report.change(certificates=reload.expiries(self.master.config, found))

    def _load_failed(self, error):
        self.load_failed = True
        self.errors.append(error)
        self.place = self.place or error_place(error)  # now: Twisted may clear the traceback later
        if self.state != "starting" and not isinstance(error, Exception):
            # SystemExit, which neither ends a reconfiguration of Buildbot nor is reported by it.
            raise RuntimeError("the configuration exited with %s" % error_text(error)) from error

    def _database(self):
        database = self.master.config.db
        url = database.get("db_url") if isinstance(database, dict) else getattr(database, "db_url", None)
        self.url = str(url)
        if not self.url.startswith("sqlite"):
            self.runner.shortcuts.complete()
            from . import outage

            outage.limit_connections()
        if self.master.config.mq.get("type") == "wamp":
            from .router import Router

            self.router = Router(self)
        self.report.change(message="starting: opening the database")

    def _lock(self, setting_up):
        """Have the database for this master, once it has been set up and before anything is written."""
        is_alone = self.url.startswith("sqlite")
        if (is_alone and self.old_name is None) or not hasattr(setting_up, "addCallback"):
            return setting_up
        from . import naming, serving

        def begin(_):
            if not is_alone:
                found = {"name": self.master.name, "place": naming.place(self.master.db.pool.engine.url)}
                self.report.change(database=found)
            return serving.begin(self)

        begun = setting_up.addCallback(begin)
        if self.old_name is not None:
            begun.addCallback(
                lambda _: naming.take_along(self, self.old_name, lambda asked: serving.is_served(asked, self.old_name))
            )
        return begun

    def stand_by(self, message):
        """Another serves by this master's name."""
        self.journal.write(NOTICE, message)
        if self.state == "standby":
            self.report.change(message=message)
            return
        self.state = "standby"
        self.runner.stand_by(message)

    def take_over(self, message):
        self.state = "starting"
        self.report.change("starting", message)
        # systemd considers it started, and watches it.
        self.runner.vouch(self.runner.too_late)

    def _database_failed(self, error):
        self.errors.append(error)
        if exit_status(error) != SCHEMA:
            return None
        model, pool = self.master.db.model, self.master.db.pool

        def compare(connection):
            self.schema = compare_schema(connection, model)
            if not self.url.startswith("sqlite"):
                from .serving import others

                self.others = others(connection)

        return pool.do(compare).addErrback(self._not_compared)

    def _not_compared(self, failure):
        # Versions before 4 treat a file that is not a database as an old one, and version 2 does so with one that it
        # cannot reach.
        if is_damage(failure.value) or exit_status(failure.value) == AWAY:
            self.errors.insert(0, failure.value)

    def _start_ended(self, error):
        """An exception that Buildbot does not catch, SystemExit above all, ends nothing upstream."""
        if error not in self.errors:
            self.errors.append(error)
        self._start_failed()

    def _start_failed(self):
        if self.state != "starting":
            return
        self.state = "failed"
        self.runner.end_soon(15)

    def watch(self, event, text):
        """Follow one log event."""
        failure = event_failure(event)
        if failure is not None and isinstance(failure.value, BaseException):
            if event.get("why") == "error while parsing config file:":
                self.place = error_place(failure.value)
                if self.state != "starting":
                    from . import reload

                    self.advice = reload.credential(failure.value)
            elif event.get("why") in ("while starting BuildMaster", "during reconfig:"):
                if failure.value not in self.errors:
                    self.errors.append(failure.value)
        elif text.startswith("BuildbotSite starting on "):
            answers.mend()
        elif text == "BuildMaster is running":
            self._running()
        elif text == "BuildMaster startup failed":
            self._start_failed()
        elif text == "beginning configuration update":
            self._reload_begun()
        elif text.startswith("configuration update complete"):
            self._reload_ended("complete")
        elif text.startswith(("configuration update aborted", "reconfig aborted")):
            self._reload_ended("aborted")
        elif text.startswith(("WARNING: configuration update partially", "WARNING: reconfig partially")):
            self._reload_ended("partial")
        elif text == "Initiating clean shutdown" and self.state == "starting":
            self.asked = True  # USR1 between Buildbot's own handler and the end of the start
        elif text == "Initiating clean shutdown" and self.state == "running":
            self._drain("finishing running builds, then stopping")
        elif text.startswith("Waiting for ") and self.state == "draining":
            count = text.split()[2]
            self._drain("finishing %s running build%s, then stopping" % (count, "s"[count == "1" :]))
        elif self.router is not None and text.startswith("CloseDetails("):
            self.router.watch(text)
        elif text == "Cancelling clean shutdown" and self.state == "draining":
            self.state, self.asked = "running", False
            self.runner.stop_ticking("drain")
            self.report.change("running", "running")

    def _running(self):
        if self.state != "starting":
            return
        if self.router is not None and not self.router.is_there():
            self.router.when_there(self._running)
            return
        self.errors.clear()
        if not self._renew():
            self._start_failed()
            return
        self.state = "running"
        config = self.master.config
        if "ssl:" in str((getattr(config, "protocols", None), config.www.get("port"))):
            from . import reload

            self._note_certificates(reload.stamps(config))
        self.announcement = self._serving()
        self._announce()

    def _renew(self):
        """Do what follows from a configuration that is in effect; returns whether that succeeded."""
        self.attached.keep({worker.workername for worker in self.master.config.workers})
        try:
            self.door.renew(self.master)
        except Exception as error:
            self.errors.append(error)
            return False
        return True

    def settled(self):
        from .gauges import Gauges
        from .outage import Outage

        self.outage = Outage(self)
        self.gauges = Gauges(self, self.outage.ask)

    def show_serving(self):
        if self.state == "running":
            self.report.change(message=self._serving())

    def _serving(self):
        url = getattr(self.master.config, "buildbotURL", None)
        return "running: Buildbot %s%s" % (self.report.status["buildbot"], ", %s" % url if url else "")

    def _announce(self):
        """Report that the start has succeeded, once the configuration on disk has been read.

        systemd treats a reload that is requested meanwhile as a part of the start.
        """
        from twisted.internet import reactor

        if self.read is not None and self.sources() != self.read:
            self.journal.write(NOTICE, "the configuration was changed during the start, reading it again")
            reactor.callLater(0, self.on_signal, signal.SIGHUP)
            return
        message, self.announcement = self.announcement, None
        self.runner.started(message)
        self.runner.database.remember_version()

    # Reconfiguring

    def _reload_begun(self):
        self.reloads += 1
        self.errors.clear()
        self.place = self.advice = ""
        if self.state == "running":
            self._reload("running", "reading the configuration again", "reloading")
            # Reading it happens in a thread, putting it into effect in the reactor, which may be
            # busy for longer than the watchdog's patience. Vouch for it, but not for ever.
            self.runner.vouch(self._reload_hangs)

    def _reload_hangs(self):
        _, why, text = diagnose_hang()
        self.journal.write(ERROR, "the reconfiguration does not finish: %s\n%s" % (why, text))
        self._reload("running", "the reconfiguration does not finish: %s" % why, "reloading")

    def _reload_ended(self, outcome):
        self.runner.stop_vouching()
        if outcome != "aborted" and not self._renew():
            outcome = "partial"
        reason = one_line(self.advice + "; ".join(error_text(error) for error in self.errors) + self.place)
        message = {
            "complete": self._serving() + "; configuration update complete",
            "aborted": "running with the previous configuration, the new one was rejected: " + reason,
            "partial": "running, but the new configuration is only partly in effect: " + reason,
        }[outcome]
        if self.announcement is not None:
            self._announce()
        if self.announcement is None:
            self._reload(outcome, message, "running")

    def _reload(self, outcome, message, state):
        reconfiguration = {
            "number": self.reloads,
            "outcome": outcome,
            "message": one_line(message),
            "at": time.time(),
        }
        if self.state != "running":  # it began before a stop
            self.report.change(reconfiguration=reconfiguration)
            return
        if state == "running":
            tags = ["READY=1"]
        else:
            tags = ["RELOADING=1", "MONOTONIC_USEC=%d" % (time.monotonic() * 1e6)]
        self.report.change(state, message, tags, reconfiguration=reconfiguration)

    # Stopping

    def _drain(self, message):
        self.state, self.asked = "draining", True
        # Not STOPPING=1 yet, which would start systemd's stop time-out.
        self.report.change("stopping", message)
        self.runner.tick("drain", 10, self.extend)

    def _stopping(self):
        """Before the master stops for any reason: make it retry its builds.

        Its own quick shutdown, which TERM causes, cancels them. The clean shutdown of USR1 sets the flag that prevents
        the quick one; the builds then end as RETRY.
        """
        self.runner.stop_ticking("drain")
        self.runner.stop_ticking("gauges")
        if self.state == "failed":
            return
        # A handler that was installed after ours has informed only the master.
        self.asked = self.asked or getattr(self.master, "_got_sigterm", False)
        self.state = "stopping"
        if self.outage is not None:
            self.outage.give_up()
        self.runner.stopping()
        if not self.asked:  # whoever began it may have stopped the services alone
            from twisted.internet import reactor

            reactor.callFromThread(stop_reactor)
        if getattr(self.master, "running", False):
            shutdown = self.master.botmaster.cleanShutdown(stopReactor=False)
            if hasattr(shutdown, "addErrback"):
                shutdown.addErrback(lambda failure: None)

    def lost_router(self):
        if self.state == "running":
            stop_reactor()
        self._start_failed()

    def outcome(self):
        """(exit status, reason, hint) after the reactor has stopped."""
        if self.away and not self.asked:
            return AWAY, self.away, None
        if self.state != "failed":
            if not self.asked:
                return UNEXPECTED, "Buildbot stopped unexpectedly", None
            return 0, "stopped", None
        if self.schema is not None:
            return self._schema_outcome()
        if not self.errors:
            return UNEXPECTED, "BuildMaster startup failed", None
        error = self.errors[0]
        if isinstance(error, Refusal):
            return error.code, error.reason, error.hint
        if is_damage(error):
            hint = "restore a backup with `buildbot-conda restore %s`; `--list` shows all backups"
            return SCHEMA, "the database is damaged: " + error_text(error), hint % self.runner.options.reference
        if exit_status(error) == SCHEMA:  # and it could not be compared
            self.schema = ("older", "it needs to be upgraded before this version can run")
            return self._schema_outcome()
        from . import tls

        lack = tls.lack(error)
        if lack:
            return CONFIGURATION, *lack
        port = getattr(error, "described_port", None)
        if port is not None:
            return CONFIGURATION, "the port `%s` cannot be opened: %s" % (port, error_text(error)), None
        code = status_of_code(error) if self.load_failed else exit_status(error)
        hint = causes.allowed_by(error) or causes.allowed_by(error.__context__) or self._hidden_link()
        if isinstance(error, ImportError):
            hint = "install it into `%s`" % sys.prefix
        return code, error_text(error) + self.place, hint

    def _hidden_link(self):
        """What shows the file of the configuration to a service whose sandbox hides the place that it is a link to."""
        path = os.path.join(self.master.basedir, self.master.configFileName)
        if not os.path.islink(path) or os.path.exists(path):
            return None
        target = os.path.realpath(path)
        text = "`%s` is a link to `%s`, which the service cannot access: if its sandbox hides it, "
        return (text + "`BindReadOnlyPaths=%s` in a drop-in makes it accessible") % (path, target, os.path.dirname(target))

    def _schema_outcome(self):
        version = self.report.status["buildbot"]
        if self.schema[0] == "newer":
            last = self.runner.database.last_version()
            writer = "Buildbot %s" % last if last and last != version else "a newer Buildbot"
            return self.runner.database.is_newer(
                SCHEMA,
                "the database is newer than Buildbot %s: %s" % (version, self.schema[1]),
                "install the version that wrote it (%s), or restore a backup of an older schema with "
                "`buildbot-conda restore %s`; `--list` shows all backups" % (writer, self.runner.options.reference),
            )
        if self.others:
            text = "the database is older than Buildbot %s, and %s still uses it"
            hint = "stop that master, or upgrade it to the same version"
            return AWAY, text % (version, self.others), hint
        return self.runner.database.is_older(
            SCHEMA,
            "the database is older than Buildbot %s: %s" % (version, self.schema[1]),
            "back it up and upgrade it with `buildbot-conda upgrade %s`" % self.runner.options.reference,
        )

    def on_signal(self, number):
        """HUP or USR1 that arrived before Buildbot could handle it: pass it on now."""
        if signal.getsignal(number) != self.runner.keep_signal:
            os.kill(os.getpid(), number)


def keep_beating(timer):
    """Let the calls of a TimerService fail: Twisted makes an error of one the last of them."""
    if timer is None:
        return
    call, words, named = timer.call

    def beat():
        from twisted.internet import defer
        from twisted.python import log

        return defer.maybeDeferred(call, *words, **named).addErrback(log.err, "retrying")

    timer.call = (beat, (), {})


def remember_descriptions():
    """Add the description of the port to an error that prevents the attempt to open it."""
    from twisted.application import strports
    from twisted.internet.error import CannotListenError

    def remembering(original):
        def changed(description, *words, **named):
            try:
                return original(description, *words, **named)
            except Exception as error:
                if not isinstance(error, CannotListenError):
                    error.described_port = description
                raise

        return changed

    for name in ("listen", "service"):
        setattr(strports, name, remembering(getattr(strports, name)))
