"""What can be said about the runner without running it."""

import ast
import pathlib
import subprocess
import sys

RUNNER = pathlib.Path(__file__).resolve().parents[1] / "runner.py"
FOREIGN = {"twisted", "zope", "sqlalchemy"}


def test_source_is_python_3_8():
    ast.parse(RUNNER.read_text(), feature_version=(3, 8))


def test_only_the_standard_library_is_imported_at_the_top():
    tree = ast.parse(RUNNER.read_text())
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert names and names <= set(sys.stdlib_module_names)
    everywhere = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert everywhere - set(sys.stdlib_module_names) == FOREIGN


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
import runner
shortcuts = runner.Shortcuts("master")
import alembic.ddl
from alembic.ddl.impl import _impls
assert 'sqlite' in _impls and 'postgresql' not in _impls
assert 'pygments' not in sys.modules
shortcuts.complete()
assert {'postgresql', 'mysql', 'mssql', 'oracle', 'sqlite'} <= set(_impls)
shortcuts.remove()
import pygments
""" % str(RUNNER.parent)
    done = subprocess.run([python, "-B", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
