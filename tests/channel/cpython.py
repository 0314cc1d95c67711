"""The `python` package (and the empty `python_abi`) from an installed CPython.

The source must be a build with a shared `libpython`, as created with `--enable-shared`, and not that of a distribution,
which searches for modules in other places.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

import libraries
from package import PLACEHOLDER, CondaPackage

# The running interpreter is the one that is packed: it knows its own version and paths best.
PREFIX = Path(sys.base_prefix)
VERSION = ".".join(map(str, sys.version_info[:3]))
SERIES = ".".join(map(str, sys.version_info[:2]))

# Tests, development files and graphical modules: two thirds of the size, and useless for a service. Third-party
# packages are packaged separately.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "ensurepip",
    "pydoc_data", "config-*", "*.a", "site-packages", "_tkinter.*", "_test*", "xxlimited*", "nis.*",
)  # fmt: skip


def refusal() -> str | None:
    """Why the running interpreter cannot be packed, or nothing."""
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return f"`{PREFIX}` is not a build with a shared `libpython`"
    if PREFIX == Path("/usr"):
        return f"`{PREFIX}` is the distribution's own Python, which looks for modules in `dist-packages`"
    return None


def python(work: Path, wheel_trees: list[Path]) -> CondaPackage:
    """Lay out the interpreter in `work`, with the libraries that it and the packages in `wheel_trees` need."""
    tree = work / "python"
    library, programs = tree / "lib", tree / "bin"
    programs.mkdir(parents=True)
    library.mkdir()
    shutil.copy(PREFIX / "bin" / f"python{SERIES}", programs)
    for link in ("python3", "python"):
        (programs / link).symlink_to(f"python{SERIES}")
    for source in sorted((PREFIX / "lib").glob(f"libpython{SERIES}.so*")):
        shutil.copy(source, library, follow_symlinks=False)
    modules = library / f"python{SERIES}"
    shutil.copytree(PREFIX / "lib" / modules.name, modules, ignore=LEFT_OUT, symlinks=True)
    # A package cannot hold an empty directory, and Python wants this one.
    (modules / "site-packages").mkdir()
    (modules / "site-packages" / "README.txt").write_text("Packages of this environment.\n")

    for user in (tree, *wheel_trees):
        libraries.copy(libraries.needed(libraries.elf_files(user), user), library)
    elf_files = libraries.elf_files(tree)
    libraries.point(elf_files, tree)
    libraries.strip(elf_files)
    _replace_prefix(tree)
    return CondaPackage(
        "python", VERSION, "0_cpython", [f"python_abi {SERIES}.*"], tree, noarch=False, licence="Python-2.0"
    )


def python_abi(work: Path) -> CondaPackage:
    """The empty package with which binary packages name the interpreter that they were built for."""
    tree = work / "python_abi"
    tree.mkdir(parents=True)
    tag = "cp" + SERIES.replace(".", "")
    return CondaPackage("python_abi", SERIES, f"0_{tag}", [], tree, noarch=True, licence="BSD-3-Clause")


def _replace_prefix(tree: Path) -> None:
    """Put the placeholder where text files name the old prefix. CPython itself finds its prefix by its files."""
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if str(PREFIX).encode() in data and b"\0" not in data:
                path.write_bytes(data.replace(str(PREFIX).encode(), PLACEHOLDER.encode()))
