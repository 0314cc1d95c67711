"""What a start remembers of its imports, and when the next believes it."""

import json
import os
import pathlib
import subprocess

import pytest
from instances import free_port, wait_until

LAUNCHER = pathlib.Path(__file__).resolve().parents[1]

# One start in a separate interpreter: argv is the state directory, the search path and `end` or `die`.
START = r"""
import json, sys, threading, traceback
sys.path.insert(0, LAUNCHER)
sys.dont_write_bytecode = True
from buildbot_conda_runner import imports
sys.dont_write_bytecode = False
sys.path.remove(LAUNCHER)
sys.prefix, state, path, how = PREFIX, sys.argv[1], sys.argv[2].split(":"), sys.argv[3]
imports.TOLERATED = 0
sys.path[:0] = path
start = imports.Imports(state)
usual = []
from importlib import machinery
find = machinery.PathFinder.find_spec
class Finder(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        usual.append(name)
        return find(name, path, target)
sys.meta_path[sys.meta_path.index(machinery.PathFinder)] = Finder
if how == "invalidate":
    import importlib
    importlib.invalidate_caches()
words = {}
for name in ("plain", "package", "package.inner", "package.other"):
    try:
        __import__(name)
        module = sys.modules[name]
        loader = isinstance(module.__loader__, machinery.SourceFileLoader)
        assert module.__spec__.loader is module.__loader__ and module.__spec__.has_location, name
        words[name] = [module.WORD, module.__file__, module.__cached__, loader, module.__package__]
        words[name].append(list(getattr(module, "__path__", ())))
        try:
            module.fail()
        except ValueError:
            words[name].append(traceback.format_exc().count("raise ValueError"))
            words[name].append(module.__loader__.get_source(name))
    except ImportError:
        words[name] = traceback.format_exc()
if how == "die":
    sys.exit()
start.worked()
start.end()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
assert start not in sys.meta_path
print(json.dumps([words, [name for name in usual if name in words]]))
"""
MODULE = "WORD = %r\n\n\ndef fail():\n    raise ValueError(WORD)\n"


class Tree:
    """Some modules of an environment, and starts that import them."""

    def __init__(self, python, directory):
        self.python, self.prefix, self.state = python, directory / "prefix", directory / "state"
        self.site, self.early = self.prefix / "site", self.prefix / "early"
        for path, word in [("plain", "p"), ("package/__init__", "q"), ("package/inner", "r"), ("package/other", "s")]:
            self.write(self.site / (path + ".py"), word)
        self.early.mkdir()
        self.file = self.state / "bytecode" / "imports"

    def write(self, path, word):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MODULE % word)

    def start(self, how="end", options=(), **variables):
        """The words of the modules, all that was seen of them, and which were found in the usual way."""
        code = START.replace("LAUNCHER", repr(str(LAUNCHER))).replace("PREFIX", repr(str(self.prefix)))
        path = "%s:%s" % (self.early, self.site)
        done = subprocess.run(
            [self.python, *options, "-c", code, str(self.state), path, how],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables},
        )
        assert done.returncode == 0, done.stderr
        if how == "die":
            return None
        seen, usual = json.loads(done.stdout)
        words = "".join(one[0] if isinstance(one, list) else "-" for one in seen.values())
        return words, seen, sorted(usual)


ALL = ["package", "package.inner", "package.other", "plain"]


@pytest.fixture
def tree(python, tmp_path):
    return Tree(python, tmp_path)


def test_second_start_finds_what_the_first_has_found(tree):
    first = tree.start()
    assert first[0] == "pqrs" and first[2] == ALL
    written = tree.file.stat().st_ino
    second = tree.start()
    assert second[1] == first[1] and second[2] == []
    assert tree.file.stat().st_ino == written
    assert [path.name for path in tree.file.parent.iterdir()] == ["imports"]


def test_bytecode_that_was_compiled_elsewhere_is_remembered_under_its_own_name(tree):
    program = (
        "import importlib.util, py_compile, sys\n"
        "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH\n"
        "for path in sys.argv[1:]:\n"
        "    py_compile.compile(path, dfile='elsewhere.py', doraise=True, invalidation_mode=mode)\n"
    )
    subprocess.run([tree.python, "-c", program, *map(str, tree.site.rglob("*.py"))], check=True)
    first = tree.start()
    assert tree.file.exists()
    second = tree.start()
    # With the source lines in tracebacks.
    assert second[1] == first[1] and second[2] == []
    assert all(seen[6] == 1 for seen in second[1].values())
    assert b"elsewhere.py" not in tree.file.read_bytes()


def edited(tree):
    tree.write(tree.site / "plain.py", "longer")


def replaced_by_one_of_the_same_age_and_size(tree):
    path, new = tree.site / "package" / "inner.py", tree.site / "package" / "inner.new"
    before = path.stat()
    new.write_text(path.read_text().replace("'r'", "'R'"))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(path)
    # As an installer does it, which compiles again.
    for old in (path.parent / "__pycache__").glob("inner.*"):
        old.unlink()


def hidden_by_a_module_earlier_on_the_path(tree):
    tree.write(tree.early / "plain.py", "P")


def hidden_by_a_package_beside_it(tree):
    tree.write(tree.site / "package" / "inner" / "__init__.py", "R")


def gone(tree):
    (tree.site / "package" / "other.py").unlink()


@pytest.mark.parametrize(
    "change, words",
    [
        (edited, "longerqrs"),
        (replaced_by_one_of_the_same_age_and_size, "pqRs"),
        (hidden_by_a_module_earlier_on_the_path, "Pqrs"),
        (hidden_by_a_package_beside_it, "pqRs"),
        (gone, "pqr-"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_has_changed_since_is_seen(tree, change, words):
    tree.start()
    change(tree)
    assert tree.start()[0] == words
    # Nor is it forgotten again.
    assert tree.start()[0] == words


def test_traceback_of_a_failed_import_is_as_usual(tree):
    path = tree.site / "package" / "other.py"
    path.write_text(path.read_text() + "import os\nif 'FAIL' in os.environ:\n    raise ImportError('no')\n")
    assert tree.start()[0] == "pqrs"
    usual, remembered = tree.start("invalidate", FAIL="1"), tree.start(FAIL="1")
    assert remembered[2] == [] and usual[2] == ALL
    assert usual[1] == remembered[1]
    assert "package/other.py" in remembered[1]["package.other"]


def test_other_interpreter_does_not_use_it(tree):
    tree.start()
    assert tree.start(options=["-O"])[2] == ALL


def test_invalidated_caches_end_it(tree):
    tree.start()
    assert tree.start("invalidate")[2] == ALL


def test_file_of_a_start_that_died_is_not_used_again(tree):
    tree.start()
    tree.start("die")
    assert not tree.file.exists()
    assert tree.start()[2] == ALL
    assert tree.start()[2] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[: len(data) // 2],
        lambda data: data[:16] + bytes(len(data) - 16),
        lambda data: b"\xff" * 16 + data[16:],
        lambda data: data[:8] + b"\xff" * 8 + data[16:],
        # The index is complete, the code is missing.
        lambda data: data[:16] + b"\0" * 300 + data[316:],
    ],
)
def test_damaged_file_is_no_obstacle(tree, damage):
    words = tree.start()[0]
    tree.file.write_bytes(damage(tree.file.read_bytes()))
    assert tree.start()[0] == words


def test_full_disk_leaves_no_file(tree, tmp_path):
    (tree.state / "bytecode").mkdir(parents=True)
    (tree.state / "bytecode" / "imports.new").symlink_to("/dev/full")
    assert tree.start()[0] == "pqrs"
    assert list((tree.state / "bytecode").iterdir()) == []


USES_IMPORTS = "import sys\nif any(type(finder).__name__ == 'Imports' for finder in sys.meta_path):\n    %s\n"


@pytest.mark.parametrize("how", ["raise RuntimeError('of the imports')", "import os; os._exit(0)"])
def test_start_that_fails_with_the_imports_is_tried_once_more_without_them(python, make, how):
    worker = make.worker(python, free_port())
    tac, file = worker.directory / "buildbot.tac", worker.state / "bytecode" / "imports"
    tac.write_text(USES_IMPORTS % how + tac.read_text())
    for launched in (0, 1):
        worker.start(**worker.launcher()).ready()
        assert worker.log().count("launched with worker") == launched
        wait_until(file.exists, "`%s`" % file)
        assert worker.stop() == 0
    # An import that fails in any case does so with its own reason, after one more attempt.
    tac.write_text("raise RuntimeError('in any case')\n")
    assert worker.start(**worker.launcher()).wait() == 78
    assert "RuntimeError: in any case" in worker.status()
    assert worker.log().count("launched with worker") == 2


def test_master_and_worker_start_again_from_what_they_remember(python, make):
    master = make.master(python, command="echo done").start().ready()
    worker = make.worker(python, master).start()
    worker.attached()
    files = [instance.state / "bytecode" / "imports" for instance in (master, worker)]
    for file in files:
        wait_until(file.exists, "`%s`" % file)
    written = [file.stat().st_ino for file in files]
    assert worker.stop() == 0 and master.stop() == 0
    master.start().ready()
    worker.start().attached()
    assert [file.stat().st_ino for file in files] == written
    master.force()
    assert master.finished(1) == 0
    assert worker.stop() == 0 and master.stop() == 0
