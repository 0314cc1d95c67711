"""One start of one instance, from the command line to the exit status."""

import os
import signal
import sys
import threading

from .arguments import Options, Refusal, inherited_environment, take_environment
from .causes import allowed_by
from .database import Database
from .handover import become, below
from .imports import Imports
from .journal import Journal
from .lock import remove_pid_file, take_lock, write_pid_file
from .log import Observer, observers_of
from .names import (
    AWAY,
    CONFIGURATION,
    CRITICAL,
    ERROR,
    HANDED_LOCK,
    LAUNCHER,
    NOTICE,
    PREPARED,
    SERVED_MARK,
    STOP_PATIENCE,
    TAC,
    UNASKED_PATIENCE,
    UNEXPECTED,
    WARNING,
)
from .reasons import error_place, error_text, exit_status, status_of_code
from .report import Report
from .role import stop_reactor
from .shortcuts import Shortcuts
from .watching import Minder, diagnose_hang, place


class Runner:
    """One start of one instance, from the command line to the exit status."""

    def __init__(self, options):
        self.options = options
        self.inherited = inherited_environment()
        self.variables = take_environment()
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        self.lock = self.imports = None
        self.is_too_late = False
        self.report = Report(options, self.variables, self.inherited)
        self.journal = Journal(options, self.variables.get("JOURNAL_STREAM"))
        self.minder = Minder()
        self.report.later = self.minder.after
        self.database = Database(self)
        self.pending = set()  # HUP and USR1 that came too early
        self.ticks = {}  # name -> delayed call
        self.is_started = False
        self.role = None

    # Signals

    def keep_signal(self, number, _frame):
        """HUP and USR1 until Buildbot has its own handlers (a worker may never have)."""
        if self.is_started:
            self.role.on_signal(number)
        else:
            self.pending.add(number)

    def stop_at_once(self, _number, _frame):
        """TERM and INT during a start: no build runs yet, and a configuration may never return."""
        self.report.withdraw_reload()
        self.hard_exit(0, "stopped" if self.report.status["state"] == "standby" else "stopped during the start")

    def stop_at_once_on_signals(self):
        signal.signal(signal.SIGTERM, self.stop_at_once)
        signal.signal(signal.SIGINT, self.stop_at_once)

    def take_signals(self):
        self.stop_at_once_on_signals()
        kept = (signal.SIGHUP, signal.SIGUSR1)
        for number in kept:
            signal.signal(number, self.keep_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, kept)  # a launcher may have held them back

    # The end

    def finish(self, code, reason, hint=None):
        """Report the result and return the exit status; does not return when a reload waits for a new start."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not code and self.report.is_reload_awaited():
            code, reason = UNEXPECTED, self.start_again("restarting")
        if code and self.may_be_due_to_imports():
            self.journal.write(NOTICE, "the start failed, retrying without the import cache: " + reason)
            prepared = {PREPARED: self.variables[PREPARED]} if PREPARED in self.variables else {}
            why = self.start_again("restarting without the import cache", **prepared)
            self.journal.write(WARNING, why)
        if code:
            text = reason if hint is None else "%s\nhint: %s" % (reason, hint)
            self.journal.write(ERROR, text)
        self.report.change("failed" if code else "stopped", reason, exit_status=code)
        remove_pid_file()
        return code

    def may_be_due_to_imports(self):
        """Whether this start has failed while it made use of what is remembered; the file is not found by the next."""
        return not self.is_started and not self.is_too_late and self.imports is not None and self.imports.is_in_use()

    def start_again(self, message, **variables):
        """Become the launcher. Returns only if that failed, with the reason.

        From systemd 259 on, a unit must not stop during a reload, so the process stays the same.
        """
        self.report.withdraw_reload()
        self.report.change("starting", message)
        role, _, name = self.options.reference.partition("@")
        words = [role, name] if name else [role]
        return become(self, below(self.options, LAUNCHER) + words, **variables)

    def hard_exit(self, code, reason, hint=None):
        """End this process now, from any thread."""
        code = self.finish(code, reason, hint)
        for stream in (sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        self.real_exit(code)

    def guard_exit(self):
        """A configuration that calls os._exit() would end as if all were well."""
        self.real_exit = os._exit
        pid = os.getpid()

        def guarded(status):
            if os.getpid() == pid:
                frame = sys._getframe(1)
                entry = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
                if self.is_started and threading.current_thread() is not threading.main_thread():
                    raise SystemExit("os._exit(%s) was called" % status)  # where a master.cfg is read
                code = (status or UNEXPECTED) if self.is_started else CONFIGURATION
                self.hard_exit(code, "os._exit(%s) was called: %s" % (status, place(entry)))
            self.real_exit(status)

        os._exit = guarded

    def stopping(self):
        """Report it, and make sure that the stop completes: some versions of Buildbot wait forever for a worker that
        left at
        the wrong moment. Builds are not lost when the process exits like this."""
        self.start_is_over()
        # systemd would stop the unit after a reload during which it was informed of a stop.
        tags = [] if self.report.is_reload_awaited() else ["STOPPING=1"]
        self.report.change("stopping", "stopping", tags)
        patience = STOP_PATIENCE if self.role.asked else UNASKED_PATIENCE
        self.minder.after("deadline", patience, lambda: self._stop_too_late(patience))

    def _stop_too_late(self, patience):
        _, _, text = diagnose_hang()
        self.journal.write(WARNING, "the stop took more than %d s, terminating at\n%s" % (patience, text))
        code, reason, hint = self.role.outcome()
        self.hard_exit(code, reason + ", but Buildbot did not exit by itself", hint)

    def end_soon(self, seconds):
        """The start has failed: stop the reactor, and in `seconds` the process if that hangs."""
        from twisted.internet import reactor

        reactor.callFromThread(stop_reactor)
        self.minder.after("deadline", seconds, lambda: self.hard_exit(*self.role.outcome()))

    def too_late(self):
        self.is_too_late = True
        code, why, text = diagnose_hang()
        if self.role is not None and self.role.awaited:
            code, why = AWAY, "still waiting for %s" % self.role.awaited
        reason = "the start did not finish within %g s: %s" % (self.options.start_timeout, why)
        self.journal.write(ERROR, "stack at that moment:\n" + text)
        self.hard_exit(code, reason)

    # Time

    def start_is_over(self):
        """No time limit for it any more."""
        self.minder.forget("deadline")
        signal.setitimer(signal.ITIMER_REAL, 0)

    def watch_start(self):
        seconds = self.options.start_timeout
        self.minder.start()
        if not 0 < seconds < 1e8:
            return
        # Time spent before this process, in activation scripts, is not the configuration's fault.
        self.report.notify("EXTEND_TIMEOUT_USEC=%d" % ((seconds + 10) * 1e6))
        self.minder.after("deadline", seconds, self.too_late)

    def tick(self, name, seconds, call):
        """Call now and every so many seconds, from the reactor, until `stop_ticking(name)`."""
        from twisted.internet import reactor

        self.stop_ticking(name)

        def again():
            self.ticks[name] = reactor.callLater(seconds, again)
            call()

        again()

    def stop_ticking(self, name):
        call = self.ticks.pop(name, None)
        if call is not None and call.active():
            call.cancel()

    def watchdog_seconds(self):
        """Half of what systemd allows, or None."""
        try:
            if int(self.variables.get("WATCHDOG_PID", self.report.pid)) != self.report.pid:
                return None
            return int(self.variables["WATCHDOG_USEC"]) / 2e6 or None
        except (KeyError, ValueError):
            return None

    def vouch(self, hangs):
        """During a reconfiguration, called by the minder, for as long as a start may take."""
        seconds = min(self.watchdog_seconds() or 10, 10)

        def ping():
            self.report.notify("WATCHDOG=1", "EXTEND_TIMEOUT_USEC=%d" % (seconds * 3e6))

        def enough():
            self.stop_vouching()
            hangs()

        self.minder.after("vouch", 0, ping, every=seconds)
        self.minder.after("enough", self.options.start_timeout or 90, enough)

    def stop_vouching(self):
        self.minder.forget("vouch", "enough")

    def stand_by(self, message):
        """The instance waits as long as another one serves: for systemd, it has started."""
        import gc

        self.start_is_over()
        self.imports.worked()
        gc.enable()
        self.report.change("standby", message, ["READY=1"])
        self.vouch_by_reactor()

    def vouch_by_reactor(self):
        seconds = self.watchdog_seconds()
        if seconds:
            self.tick("watchdog", seconds, lambda: self.report.notify("WATCHDOG=1"))

    def started(self, message):
        """The instance serves: inform systemd, then do what was delayed."""
        from twisted.internet import reactor

        self.start_is_over()
        self.stop_vouching()
        # Before READY: the caller may send TERM as soon as it sees it. An exit that was not requested is a failure, and
        # this distinguishes it from a stop.
        if signal.getsignal(signal.SIGTERM) == self.stop_at_once:  # Buildbot before 3.0 has no own
            signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop_reactor))
        stop = signal.getsignal(signal.SIGTERM)

        def asked(*arguments):
            self.role.asked = True
            return stop(*arguments)

        signal.signal(signal.SIGTERM, asked)
        signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        self.is_started = True
        self.imports.worked()
        self.report.change("running", message, ["READY=1"])
        reactor.callLater(1, self.settle)
        self.vouch_by_reactor()
        for number in sorted(self.pending):
            reactor.callLater(0, self.role.on_signal, number)
        self.pending.clear()

    def settle(self):
        """Do what a start has postponed, now that nothing waits for it: some 0.1 s."""
        import gc

        self.shortcuts.remove()
        self.imports.end()
        self.note_that_it_served()
        self.shortcuts.complete(Shortcuts.MENTIONED)
        self.role.settled()
        # What has survived until here stays, and need not be looked through again and again.
        gc.collect()
        gc.freeze()
        gc.enable()

    def note_that_it_served(self):
        state = self.database.state
        if state:
            try:
                os.close(os.open(os.path.join(state, SERVED_MARK), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            except OSError as error:
                self.journal.write(WARNING, "cannot write `%s` in `%s`: %s" % (SERVED_MARK, state, error.strerror))

    # Running

    def run(self):
        import faulthandler
        import gc

        self.guard_exit()
        self.take_signals()
        self.report.change()
        self.watch_start()
        # Collecting garbage while everything is being imported finds nothing and takes time.
        gc.disable()
        try:
            faulthandler.enable()  # a crash, or the watchdog's SIGABRT, then says where
            if 0 < self.options.start_timeout < 1e8:
                # Code that never lets another thread run escapes the minder, not this: the kernel
                # ends the process, after the stacks were printed, and the units do not restart it.
                signal.setitimer(signal.ITIMER_REAL, self.options.start_timeout + 5)
                faulthandler.register(signal.SIGALRM, chain=True)
        except (AttributeError, OSError, ValueError, RuntimeError):
            pass  # no usable stderr
        try:
            os.chdir(self.options.directory)
        except OSError as error:
            raise Refusal(CONFIGURATION, "`%s`: %s" % (self.options.directory, error.strerror))
        self.lock = take_lock(self.journal, self.variables.get(HANDED_LOCK))
        self.imports = Imports(self.database.state)
        if self.database.is_unfinished():
            self.database.become_whole()
        write_pid_file(self.journal)
        sys.path.insert(0, os.getcwd())
        # Some tac files and plugins look at how twistd was called.
        sys.argv = ["twistd", "--no_save", "--nodaemon", "--logfile=twistd.log", "--python=" + TAC, "--pidfile="]
        self.report.change(message="starting: reading " + TAC)
        application = self.load()
        return self.serve(application)

    def load(self):
        """Run the tac; returns its application."""
        self.shortcuts = Shortcuts(self.options.role)
        try:
            from twisted.application import service

            if self.options.role == "master":
                from .master import Master as Role
            else:
                from .worker import Worker as Role
            self.role = Role(self)
            application = service.loadApplication(TAC, "python")
        except BaseException as error:
            raise self.tac_refusal(error)
        finally:
            self.shortcuts.tac_is_read()
            if sys.stdout is not None:
                try:
                    sys.stdout.flush()
                except (OSError, ValueError):
                    pass
        services = [service.IService(application)]
        for parent in services:
            services.extend(getattr(parent, "services", ()))
        if not self.role.find(services):
            raise Refusal(
                CONFIGURATION,
                "`%s` defines no Buildbot %s" % (os.path.abspath(TAC), self.options.role),
            )
        if self.options.role == "worker":  # the tac has read its password; builds need not know where
            os.environ.pop("CREDENTIALS_DIRECTORY", None)
        self.report.status["buildbot"] = getattr(sys.modules.get(self.role.package), "version", None)
        self.role.attach()
        return application

    def tac_refusal(self, error):
        """What an exception from reading the tac means."""
        path = os.path.abspath(TAC)
        if isinstance(error, FileNotFoundError) and error.filename == TAC:
            return Refusal(CONFIGURATION, "`%s` is missing" % path)
        if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] in (
            "twisted",
            "zope",
            "buildbot",
            "buildbot_worker",
        ):
            name = getattr(self.role, "distribution", "buildbot")
            if error.name.partition(".")[0] == "buildbot":
                name = "buildbot"
            hint = "install `%s` into `%s`, or choose another environment" % (name, sys.prefix)
            return Refusal(CONFIGURATION, "`%s`: %s%s" % (path, error, error_place(error)), hint)
        from . import tls

        lack = tls.lack(error)
        if lack:
            return Refusal(CONFIGURATION, "`%s`: %s" % (path, lack[0]), lack[1])
        if isinstance(error, KeyError) and error.args == ("application",):
            return Refusal(CONFIGURATION, "`%s` does not define `application`" % path)
        import traceback

        self.journal.write(ERROR, "".join(traceback.format_exception(type(error), error, error.__traceback__)))
        reason = "`%s`: %s%s" % (path, error_text(error), error_place(error))
        return Refusal(status_of_code(error), reason, allowed_by(error))

    def serve(self, application):
        """Start the application's services and run the reactor to its end."""
        from twisted import logger
        from twisted.application import service
        from twisted.internet import reactor

        observers = [Observer(self.journal, self.role.watch)]
        if self.options.log == "both":
            try:
                observers += observers_of(application, self.journal)
            except OSError as error:
                self.journal.write(WARNING, "cannot write `twistd.log`: %s" % error.strerror)
        logger.globalLogBeginner.beginLoggingTo(observers)
        # First in the queue: the reactor's own handlers are in place, Buildbot's are not.
        reactor.callWhenRunning(self.role.reactor_started)
        root = service.IService(application)
        try:
            root.privilegedStartService()
            root.startService()
        except Exception as error:
            import traceback

            self.journal.write(ERROR, traceback.format_exc())
            raise Refusal(exit_status(error), error_text(error) + error_place(error), allowed_by(error))
        reactor.addSystemEventTrigger("before", "shutdown", root.stopService)
        reactor.run()
        self.stop_vouching()
        # Threads of the configuration may keep the interpreter from ending.
        code, reason, hint = self.role.outcome()
        code = self.finish(code, reason, hint)
        self.minder.after("deadline", 10, lambda: self.real_exit(code))
        return code


def main(arguments):
    """Run an instance; returns the exit status."""
    try:
        runner = Runner(Options(arguments))
    except Refusal as refusal:
        sys.stderr.write("error: %s\n" % refusal.reason)
        return refusal.code
    try:
        return runner.run()
    except Refusal as refusal:
        runner.hard_exit(refusal.code, refusal.reason, refusal.hint)
    except BaseException as error:
        import traceback

        runner.journal.write(CRITICAL, "the runner failed\n" + traceback.format_exc())
        runner.hard_exit(UNEXPECTED, "the runner failed: %s" % error_text(error))
