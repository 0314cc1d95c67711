"""Determines from the syntax of a worker's tac how it connects, before the tac is run.

The answer only decides what is imported. In doubt it is no, which costs time and nothing else.
"""

import ast

# What the tac files of all versions of `create-worker` import, and what cannot ask for TLS.
HARMLESS = {"os", "os.path", "pathlib", "sys", "buildbot_worker.bot"}
HARMLESS_PACKAGES = ("twisted.application", "twisted.python")
# Names with which a tac may do things that its syntax does not show.
OPAQUE = {"__import__", "compile", "eval", "exec", "execfile", "globals", "locals", "setattr", "vars"}
STRUCTURES = (ast.AsyncFunctionDef, ast.ClassDef, ast.FunctionDef, ast.Lambda)

# Parameters of buildbot_worker.bot.Worker that choose the connection, and what keeps it plain.
PARAMETERS = {
    "connection_string": lambda value: not value or str(value).startswith(("tcp:", "unix:")),
    "protocol": lambda value: value in (None, "pb"),
    "proxy_connection_string": lambda value: not value,
    "useTls": lambda value: not value,
}
# Host, port, name, password, directory, keepalive: the last before parameters of other kinds.
POSITIONAL = 6


def is_plain(path):
    """Whether the workers of a tac speak Buildbot's own protocol over bare TCP or a socket, beyond doubt."""
    try:
        with open(path, "rb") as file:
            return _is_plain(ast.parse(file.read()))
    except (OSError, RecursionError, SyntaxError, ValueError):
        return False


def _is_plain(tree):
    nodes = list(ast.walk(tree))
    if not all(map(_is_harmless, nodes)):
        return False
    values = _assigned(nodes)
    calls = [node for node in nodes if isinstance(node, ast.Call) and _name(node.func) == "Worker"]
    # Called and nothing else: not renamed, not handed on.
    mentioned = [node for node in nodes if _name(node) == "Worker"]
    return bool(calls) and len(calls) == len(mentioned) and all(_call_is_plain(call, values) for call in calls)


def _name(node):
    return node.id if isinstance(node, ast.Name) else None


def _is_harmless(node):
    if isinstance(node, ast.Import):
        return all(alias.name in HARMLESS for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        known = node.module in HARMLESS or str(node.module).startswith(HARMLESS_PACKAGES)
        return known and not node.level and all(alias.asname is None for alias in node.names)
    return not isinstance(node, STRUCTURES) and _name(node) not in OPAQUE


def _assigned(nodes):
    """Every name that is only ever assigned constants, with them; names of any other kind are left out."""
    values, bound = {}, {}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] = bound.get(node.id, 0) + 1
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.Constant):
            values.setdefault(_name(node.targets[0]), []).append(node.value.value)
    return {name: found for name, found in values.items() if bound.get(name) == len(found)}


def _call_is_plain(call, values):
    if len(call.args) > POSITIONAL or any(isinstance(argument, ast.Starred) for argument in call.args):
        return False
    for keyword in call.keywords:
        if keyword.arg is None:
            return False
        if keyword.arg in PARAMETERS:
            value = keyword.value
            found = [value.value] if isinstance(value, ast.Constant) else values.get(_name(value))
            if not found or not all(map(PARAMETERS[keyword.arg], found)):
                return False
    return True
