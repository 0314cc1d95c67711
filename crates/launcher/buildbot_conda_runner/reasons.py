"""Why a start failed: the exit status and the words for an exception."""

import errno
import os

from .arguments import Refusal
from .causes import may_heal
from .names import AWAY, CONFIGURATION, SCHEMA, UNEXPECTED
from .watching import is_ours, place


def exit_status(error):
    """The exit status for an exception that aborted a start."""
    kinds = type(error).__mro__
    names = {kind.__name__ for kind in kinds}
    if "DatabaseNotReadyError" in names:
        return SCHEMA
    if any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in kinds):
        if names & {"ArgumentError", "NoSuchModuleError"}:
            return CONFIGURATION
        from .passing import is_outage

        return AWAY if is_outage(error) or names & {"OperationalError", "InterfaceError", "TimeoutError"} else UNEXPECTED
    if names & {"ConfigErrors", "SystemExit", "ImportError", "SyntaxError"}:
        return status_of_code(error)
    if "CannotListenError" in names:
        denied = getattr(getattr(error, "socketError", None), "errno", None) == errno.EACCES
        return CONFIGURATION if denied else AWAY
    if "is it installed?" in str(error):  # how Buildbot reports a missing web plugin
        return CONFIGURATION
    if names & {"OSError", "ConnectError", "ConnectionClosed", "DNSLookupError"}:
        return AWAY
    return UNEXPECTED


def status_of_code(error):
    """The exit status for an exception that code of the configuration has raised."""
    return AWAY if may_heal(error) else CONFIGURATION


def is_damage(error):
    """Whether SQLite reports that a file is not a database, or is damaged, which is permanent."""
    kinds = type(error).__mro__
    if not any(kind.__module__.partition(".")[0] in ("sqlalchemy", "sqlite3") for kind in kinds):
        return False
    return type(error).__name__ == "DatabaseError"


def error_text(error):
    """An exception in Buildbot's own words; several lines where it has several."""
    if isinstance(error, Refusal):
        return error.reason
    errors = getattr(error, "errors", None)
    if type(error).__name__ == "ConfigErrors" and errors:
        return "\n".join(errors)
    text = str(error).strip()
    if any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in type(error).__mro__):
        # The rest is the statement and a link to the manual.
        return "database: " + (text.splitlines() or [type(error).__name__])[0]
    if type(error).__name__ == "CannotListenError":
        return text + holder_text(getattr(error, "port", None))
    return "%s: %s" % (type(error).__name__, text) if text else type(error).__name__


def holder_text(port):
    """`; ACCOUNT has the port` where a process of another account than this one listens on a port."""
    others = port_holders(port) - {os.geteuid()} if isinstance(port, int) else set()
    return "".join("; the port is used by the account `%s`" % account_name(uid) for uid in sorted(others))


def port_holders(port):
    """The accounts, by number, whose processes listen on a TCP port; proc_net(5)."""
    holders = set()
    for name in ("tcp", "tcp6"):
        try:
            with open("/proc/net/" + name) as file:
                lines = [line.split() for line in file][1:]
        except OSError:
            continue
        # Local address, state (0A listens), account.
        holders.update(
            int(fields[7]) for fields in lines if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
        )
    return holders


def account_name(uid):
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def error_place(error):
    """` (FILE, line N, in FUNCTION)` of the last line of the user's own code, or nothing."""
    trace, last = error.__traceback__, None
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_ours(code.co_filename):
            last = (code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next
    return " (%s)" % place(last) if last else ""


def compare_schema(connection, model):
    """How the schema of the database relates to this Buildbot: ("older"|"newer", text).

    Upstream prints the same advice, to upgrade, for both.
    """
    import sqlalchemy

    tables = sqlalchemy.inspect(connection).get_table_names()
    rows = []
    if "alembic_version" in tables:
        rows = connection.execute(sqlalchemy.text("select version_num from alembic_version")).fetchall()
    if not rows:
        return "older", "its schema revision is unknown to this Buildbot"
    revision = rows[0][0]
    if not hasattr(model, "alembic_get_scripts"):  # Buildbot before 3.0
        return "newer", "it is at revision %s of Buildbot 3 or later" % revision
    scripts = model.alembic_get_scripts()
    head = scripts.get_current_head()
    known = {script.revision for script in scripts.walk_revisions()}
    text = "it is at revision %s, this Buildbot is at %s" % (revision, head)
    return ("older" if revision in known else "newer"), text
