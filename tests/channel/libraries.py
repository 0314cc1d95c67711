"""Shared libraries that are added to an environment, so that it needs nothing but glibc from its machine.

`ldd` on the building machine finds the file for each library name. Copies are in `lib/` of the Python package, as in
Conda's own packages, and every program that needs one gets an RPATH that leads there.
"""

import re
import shutil
import subprocess
from pathlib import Path

# Parts of glibc: they belong to the running system's dynamic loader and must not come from anywhere else.
GLIBC = re.compile(r"^(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|util|resolv|anl|nsl|BrokenLocale|thread_db))\.so")


def elf_files(tree: Path) -> list[Path]:
    """Every ELF file below `tree`, in a fixed order, links left out."""
    candidates = (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in candidates if _is_elf(path))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def needed(programs: list[Path], tree: Path) -> dict[str, Path]:
    """Name -> file on this machine for each library that `programs` need, directly or not.

    glibc and libraries in `tree` itself are omitted: some wheels contain their own libraries.
    """
    libraries = {}
    for program in programs:
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for name, file in re.findall(r"^\s*(\S+) => (/\S+|not found)", listing, re.MULTILINE):
            if GLIBC.match(name):
                continue
            if file == "not found":
                raise SystemExit(f"error: find `{name}`, which `{program}` needs, on this machine")
            if not Path(file).is_relative_to(tree):
                libraries[name] = Path(file)
    return libraries


def copy(libraries: dict[str, Path], lib: Path) -> None:
    """Copy libraries under the names by which they are requested, unless they exist already."""
    for name, source in libraries.items():
        if not (lib / name).exists():
            shutil.copy(source.resolve(), lib / name)
            (lib / name).chmod(0o755)


def point(programs: list[Path], tree: Path) -> None:
    """Let each program look for libraries in `lib/` of the environment whose layout `tree` has."""
    for program in programs:
        old = _rpath(program)
        if old or needed([program], tree) or program.parent == tree / "lib":
            depth = len(program.parent.relative_to(tree).parts)
            own = [entry for entry in old if entry.startswith("$ORIGIN")]
            rpath = ":".join([*own, "$ORIGIN/" + "../" * depth + "lib"])
            # DT_RPATH rather than DT_RUNPATH: it also holds for what the libraries themselves need, and an inherited
            # LD_LIBRARY_PATH does not come before it.
            subprocess.run(["patchelf", "--force-rpath", "--set-rpath", rpath, program], check=True)


def _rpath(program: Path) -> list[str]:
    printed = subprocess.run(["patchelf", "--print-rpath", program], capture_output=True, text=True, check=True)
    return [entry for entry in printed.stdout.strip().split(":") if entry]


def strip(programs: list[Path]) -> None:
    """Drop debugging symbols; without binutils the packages are merely bigger."""
    if shutil.which("strip"):
        for program in programs:
            subprocess.run(["strip", "--strip-unneeded", program], check=True)
