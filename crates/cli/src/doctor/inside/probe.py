"""Report whether the environment's Python can run an instance, and to which master a worker's tac connects.

Run by `python -c` as the service user, in the activated environment: ROLE DIRECTORY WISH... A wish is `python`,
`plugins`, `bytecode`, `tac` or `connection`. One JSON object is written to stdout; the output of imported modules and
of a tac goes to stderr. Works with CPython 3.8 and later and Buildbot 2.10 to 4.x.

Nothing remains: no bytecode is written, the log file of a tac is not opened, and nothing is started. A worker's tac is
run in the same way as by Twisted, because only this shows what it passes to Buildbot.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]  # the current directory: modules of the instance are not ours

import importlib
import json
import os
import re

# What Buildbot cannot do without, beginning with what most often is missing.
MODULES = {
    "master": ("ssl", "sqlite3", "twisted", "sqlalchemy", "buildbot.master"),
    "worker": ("ssl", "twisted", "buildbot_worker.bot"),
}
# What a module of Buildbot imports that its package does not always bring along; asked where that one fails.
BESIDE = {"buildbot_worker.bot": ("msgpack", "autobahn")}
# Modules that Buildbot does not need, but whose absence has consequences.
WANTED = {"master": ("buildbot_www",), "worker": ()}
# Packages that a start imports much of.
COMPILED = ("buildbot", "buildbot_worker", "twisted", "sqlalchemy")
# Seconds for each step on the way to a master.
PATIENCE = 5


def text_of(error):
    """`NAME: reason` of an exception, on one line."""
    lines = str(error).strip().splitlines()
    allowed = allowed_by(error)  # noqa: F821, from causes.py
    reason = lines[-1] if lines else "no reason given"
    return "%s: %s%s" % (type(error).__name__, reason, "; " + allowed if allowed else "")


def failed_imports(names):
    failures = {}
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:
            failures[name] = text_of(error)
    return failures


def missing(names):
    import importlib.util

    return [name for name in names if importlib.util.find_spec(name) is None]


def failed_plugins():
    """{entry point: reason} of those that do not come with Buildbot itself."""
    from importlib import metadata

    found = metadata.entry_points()
    groups = found if hasattr(found, "keys") else {group: found.select(group=group) for group in found.groups}
    failures = {}
    for group in groups:
        if not group.startswith("buildbot."):
            continue
        for point in groups[group]:
            if point.value.split(".")[0].split(":")[0] == "buildbot":
                continue
            try:
                point.load()
            except BaseException as error:
                failures["%s:%s" % (group, point.name)] = text_of(error)
    return failures


def bytecode():
    """The number of imported sources of the packages that have no bytecode."""
    import importlib.util

    sources = missing = 0
    writable = True
    for name in COMPILED:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            writable = writable and os.access(place, os.W_OK)
            for directory, directories, files in os.walk(place):
                directories[:] = [name for name in directories if name not in ("__pycache__", "test", "tests")]
                for file in files:
                    if file.endswith(".py"):
                        sources += 1
                        compiled = importlib.util.cache_from_source(os.path.join(directory, file))
                        missing += not os.path.exists(compiled)
    return {"sources": sources, "missing": missing, "writable": writable}


def run_tac(directory):
    """What `buildbot.tac` hands to its workers: a list of {argument: value}."""
    import inspect

    from buildbot_worker import bot
    from twisted.python import logfile

    found = []
    original = bot.Worker.__init__
    signature = inspect.signature(original)

    def note(self, *words, **named):
        bound = signature.bind(self, *words, **named)
        bound.apply_defaults()
        found.append(dict(bound.arguments))
        return original(self, *words, **named)

    def open_nothing(*words, **named):
        return open(os.devnull, "w")

    bot.Worker.__init__ = note
    logfile.LogFile.fromFullPath = open_nothing
    os.chdir(directory)
    sys.path.insert(0, directory)
    path = os.path.join(directory, "buildbot.tac")
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    names = {"__file__": path}
    exec(code, names)
    if "application" not in names:
        raise NameError("no `application` in it")
    return found


def text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def target(arguments):
    """(host, port, TLS) of a worker; a host of None where it goes through a proxy, a port of None where it is a socket.

    TLS is None, or what makes the context that trusts what the worker trusts.
    """
    described = arguments.get("connection_string")
    if arguments.get("proxy_connection_string"):
        return None, None, None
    if not described:
        host = arguments.get("buildmaster_host", arguments.get("host"))
        return text(host), int(arguments["port"]), verified("") if arguments.get("useTls") else None
    from twisted.internet import reactor
    from twisted.internet.endpoints import clientFromString

    endpoint = clientFromString(reactor, text(described))
    endpoint = getattr(endpoint, "_wrappedEndpoint", endpoint)
    path = getattr(endpoint, "_path", None)
    if path is not None:
        return os.fsdecode(path), None, None
    host = getattr(endpoint, "_hostText", None) or getattr(endpoint, "_host", None)
    port = getattr(endpoint, "_port", None)
    kind = text(described).partition(":")[0].lower()
    if port is None:
        return None, None, None
    return (text(host) if host else None), int(port), {"tls": verified(text(described)), "ssl": unverified}.get(kind)


def verified(described):
    """Makes a context with the authorities of `trustRoots`, as Twisted's `tls:` does, or with the environment's."""
    roots = re.search(r":trustRoots=((?:[^:\\]|\\.)*)", described)

    def context():
        import ssl

        if roots is None:
            return ssl.create_default_context()
        directory = re.sub(r"\\(.)", r"\1", roots.group(1))
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for name in os.listdir(directory):
            if name.endswith(".pem"):
                found.load_verify_locations(os.path.join(directory, name))
        return found

    return context


def unverified():
    """A context that accepts every certificate, like Twisted's `ssl:`."""
    import ssl

    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


def reach_socket(path):
    """As `reach`, by a socket: {step, reason}."""
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
        except OSError as error:
            return {"step": "tcp", "reason": error.strerror or "no answer"}
    return {"step": "greeting", "reason": None}


def reach(host, port, tls, protocol):
    """{step, reason} of what fails on the way to a master; a reason of None when nothing does."""
    import socket

    if port is None:
        return reach_socket(host)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return {"step": "dns", "reason": error.strerror or text_of(error)}
    try:
        connection = socket.create_connection((host, port), PATIENCE)
    except OSError as error:
        return {"step": "tcp", "reason": error.strerror or "no answer"}
    try:
        if tls:
            try:
                connection = tls().wrap_socket(connection, server_hostname=host)
            except (OSError, ValueError) as error:
                reason = getattr(error, "verify_message", None) or getattr(error, "reason", None)
                return {"step": "tls", "reason": reason or text_of(error)}
        if protocol == "pb":
            # Perspective Broker's server speaks first, and names its dialects.
            connection.settimeout(PATIENCE)
            try:
                greeting = connection.recv(64)
            except OSError:
                greeting = b""
            if b"pb" not in greeting:
                return {"step": "greeting", "reason": "the server there does not accept workers"}
    finally:
        connection.close()
    return {"step": "greeting", "reason": None}


def worker(directory, wishes):
    """The worker's tac, as far as it can be determined."""
    answer = {"failure": None, "workers": []}
    try:
        found = run_tac(directory)
    except BaseException as error:
        answer["failure"] = text_of(error)
        return answer
    reached = {}
    for arguments in found:
        one = {"target": None, "reach": None}
        one["allow_shutdown"] = arguments.get("allow_shutdown") and text(arguments["allow_shutdown"])
        host, port, tls = target(arguments)
        if host is not None:
            name = "[%s]:%s" if ":" in host else "%s:%s"
            one["target"] = host if port is None else name % (host, port)
            if "connection" in wishes:
                if one["target"] not in reached:  # once for all workers of a process
                    reached[one["target"]] = reach(host, port, tls, arguments.get("protocol", "pb"))
                one["reach"] = reached[one["target"]]
        if one not in answer["workers"]:
            answer["workers"].append(one)
    return answer


def literals(path):
    """Names in lines that start with `NAME = ...`, which a stream editor can change."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return re.findall(r"^(allow_shutdown) *= ", file.read(), re.M)


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    role, directory = sys.argv[1:3]
    wishes = sys.argv[3:]
    answer = {
        "version": "%d.%d.%d" % sys.version_info[:3],
        "prefix": sys.prefix,
        "library": os.path.dirname(os.__file__),
        "imports": {},
        "missing": [],
        "plugins": {},
        "bytecode": None,
        "tac": None,
        "editable": [],
    }
    if "python" in wishes:
        answer["imports"] = failed_imports(MODULES[role])
        for name in set(BESIDE) & set(answer["imports"]):
            answer["imports"].update(failed_imports(missing(BESIDE[name])))
    if "plugins" in wishes:
        answer["missing"] = missing(WANTED[role])
    if "plugins" in wishes and role == "master":
        answer["plugins"] = failed_plugins()
    if "bytecode" in wishes:
        answer["bytecode"] = bytecode()
    if role == "worker" and ("tac" in wishes or "connection" in wishes):
        answer["tac"] = worker(directory, wishes)
        try:
            answer["editable"] = literals(os.path.join(directory, "buildbot.tac"))
        except OSError:
            pass
    answers.write(json.dumps(answer))
    answers.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of a tac would keep the interpreter from ending


main()
