"""What can be said about the runner without running it."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys

LAUNCHER = pathlib.Path(__file__).resolve().parents[1]
RUNNER = LAUNCHER / "runner.py"
SOURCES = [RUNNER, *sorted((LAUNCHER / "buildbot_conda_runner").glob("*.py"))]
# Imported together with Buildbot, and not by anything before.
LATE = {"outage", "reload", "router", "siblings", "standby"}
FOREIGN = {"autobahn", "buildbot", "cryptography", "twisted", "zope", "sqlalchemy", "OpenSSL", "pip"}


def imported(nodes):
    """Top-level names of the modules that some nodes import, our own left out."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - {"buildbot_conda_runner"}


def test_source_is_python_3_8():
    for source in SOURCES:
        ast.parse(source.read_text(), feature_version=(3, 8))


def of_ours(nodes):
    """Names of our own modules that some nodes import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def test_only_the_standard_library_is_imported_at_the_top():
    trees = [ast.parse(source.read_text()) for source in SOURCES]
    for source, tree in zip(SOURCES, trees):
        if source.stem not in LATE:
            assert imported(tree.body) <= set(sys.stdlib_module_names), source
            assert not of_ours(tree.body) & LATE, source
    everywhere = set().union(*(imported(ast.walk(tree)) for tree in trees))
    assert everywhere - set(sys.stdlib_module_names) == FOREIGN


def defined(tree):
    """Names that a program defines at its top."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store))


def test_no_part_of_a_program_of_the_command_line_replaces_what_another_part_defines():
    programs = 0
    for source in (LAUNCHER.parent / "cli/src").rglob("*.rs"):
        for parts in re.findall(r"concat!\((.*?)\);", source.read_text(), re.DOTALL):
            names = []
            for part in re.findall(r'include_str!\("(.*?)"\)', parts):
                names.extend(defined(ast.parse((source.parent / part).read_text())))
            assert sorted(set(names)) == sorted(names), source
            programs += bool(names)
    assert programs > 3


def installed(directory):
    """A copy of the runner: its path."""
    target = directory / "libexec"
    shutil.copytree(LAUNCHER / "buildbot_conda_runner", target / "buildbot_conda_runner")
    return pathlib.Path(shutil.copy(RUNNER, target))


def refused(python, runner, **variables):
    """Run the runner up to its refusal of a missing directory."""
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables}
    done = subprocess.run(
        [python, str(runner), "master", "/nowhere"], capture_output=True, text=True, env=variables
    )
    assert done.returncode == 78 and "/nowhere" in done.stdout, done
    assert not done.stderr


def test_bytecode_is_kept_in_the_state_directory_and_nowhere_else(python, tmp_path):
    runner = installed(tmp_path)
    refused(python, runner)
    assert not list(tmp_path.rglob("*.pyc"))
    state = tmp_path / "state"
    refused(python, runner, STATE_DIRECTORY=str(state))
    kept = {path: path.stat().st_ino for path in state.rglob("*.pyc")}
    assert {path.name.partition(".")[0] for path in kept} > {"runner", "journal", "lock"}
    assert set(kept) == set(tmp_path.rglob("*.pyc"))
    refused(python, runner, STATE_DIRECTORY=str(state))
    assert kept == {path: path.stat().st_ino for path in state.rglob("*.pyc")}


def test_bytecode_of_an_earlier_installation_is_not_used(python, tmp_path):
    runner, state = installed(tmp_path), tmp_path / "state"
    refused(python, runner, STATE_DIRECTORY=str(state))
    text = runner.parent / "buildbot_conda_runner" / "arguments.py"
    before = text.stat()
    changed = text.read_text().replace("expected `master` or `worker`", "EXPECTED `master` or `worker`")
    new = text.with_suffix(".new")
    new.write_text(changed)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))  # as packages of one date have it
    new.rename(text)
    variables = {**os.environ, "STATE_DIRECTORY": str(state)}
    done = subprocess.run([python, str(runner)], capture_output=True, text=True, env=variables)
    assert "EXPECTED" in done.stderr


def test_damaged_bytecode_is_no_obstacle(python, tmp_path):
    runner, state = installed(tmp_path), tmp_path / "state"
    refused(python, runner, STATE_DIRECTORY=str(state))
    for damage in (lambda data: data[:16] + bytes(len(data) - 16), lambda data: data[:40], lambda _: b""):
        for path in state.rglob("*.pyc"):
            path.write_bytes(damage(path.read_bytes()))
        refused(python, runner, STATE_DIRECTORY=str(state))


def test_a_state_directory_that_cannot_be_written_is_no_obstacle(python, tmp_path):
    refused(python, installed(tmp_path), STATE_DIRECTORY="/proc/nowhere")


def run(python, *arguments):
    return subprocess.run([python, str(RUNNER), *arguments], capture_output=True, text=True)


def test_wrong_usage_exits_2_and_says_why(python):
    for arguments, reason in [
        ([], "expected `master` or `worker`"),
        (["slave", "/tmp"], "expected `master` or `worker`"),
        (["master", "/tmp", "--log", "loud"], "`--log` must be journal or both"),
        (["master", "/tmp", "--start-timeout", "soon"], "`--start-timeout` needs seconds"),
        (["master", "/tmp", "--drain"], "`--drain` needs a value"),
        (["master", "/tmp", "--colour=red"], "unknown option `--colour`"),
    ]:
        done = run(python, *arguments)
        assert done.returncode == 2 and reason in done.stderr and not done.stdout


def test_absent_directory_exits_78_and_names_it(python, tmp_path):
    done = run(python, "master", str(tmp_path / "né nt"))
    assert done.returncode == 78
    assert "né nt`: No such file or directory" in done.stdout


def test_endless_directory_name_exits_78(python):
    done = run(python, "worker", "/" + "x" * 5000)
    assert done.returncode == 78 and "File name too long" in done.stdout


def test_postponed_imports_are_complete_when_asked_for(python):
    code = """
import sys
sys.path.insert(0, %r)
from buildbot_conda_runner.shortcuts import Shortcuts
shortcuts = Shortcuts("master")
import alembic.ddl
from alembic.ddl.impl import _impls
assert 'sqlite' in _impls and 'postgresql' not in _impls
assert 'pygments' not in sys.modules
shortcuts.complete()
assert {'postgresql', 'mysql', 'mssql', 'oracle', 'sqlite'} <= set(_impls)
shortcuts.remove()
import pygments
""" % str(LAUNCHER)
    done = subprocess.run([python, "-B", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
