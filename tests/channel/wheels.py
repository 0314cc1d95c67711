"""One Conda package from each wheel: `noarch: python` when it is pure, else for linux-64 and this Python."""

import configparser
import email
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import libraries
from cpython import SERIES
from package import PLACEHOLDER, CondaPackage
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SHEBANG = f"#!{PLACEHOLDER}/bin/python"


@dataclass
class Wheel:
    """A wheel's own description, read before anything is unpacked."""

    file: Path
    name: str
    version: str
    requires: list[Requirement]
    licence: str
    pure: bool


def read(file: Path) -> Wheel:
    with zipfile.ZipFile(file) as archive:
        info = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(info))
        tags = email.message_from_bytes(archive.read(info.replace("METADATA", "WHEEL")))
    return Wheel(
        file,
        canonicalize_name(metadata["Name"]),
        metadata["Version"],
        [Requirement(text) for text in metadata.get_all("Requires-Dist", [])],
        metadata.get("License-Expression", "see the package's own files"),
        tags["Root-Is-Purelib"].lower() == "true",
    )


def package(wheel: Wheel, extras: dict[str, set[str]], work: Path) -> CondaPackage:
    """Unpack a wheel in `work`. `extras` contains the extras of a distribution (by name) that others request."""
    tree = work / f"{wheel.name}-{wheel.version}"
    modules = tree / ("site-packages" if wheel.pure else f"lib/python{SERIES}/site-packages")
    programs = tree / ("python-scripts" if wheel.pure else "bin")
    modules.mkdir(parents=True)
    with zipfile.ZipFile(wheel.file) as archive:
        archive.extractall(modules)
    for data in modules.glob("*.data"):
        _spread(data, modules, programs, tree)
    (info,) = modules.glob("*.dist-info")
    (info / "INSTALLER").write_text("conda\n")
    (info / "RECORD").unlink()

    entry_points = _entry_points(info / "entry_points.txt")
    if not wheel.pure:
        for entry_point in entry_points:
            _write_program(programs, entry_point)
        # The C++ run time, mostly; the Python package carries it.
        libraries.point(libraries.elf_files(tree), tree)
    python = ["python"] if wheel.pure else [f"python {SERIES}.*", f"python_abi {SERIES}.*"]
    build = "py_0" if wheel.pure else f"py{SERIES.replace('.', '')}_0"
    return CondaPackage(
        wheel.name,
        wheel.version,
        build,
        python + depends(wheel, extras.get(wheel.name, set())),
        tree,
        noarch=wheel.pure,
        licence=wheel.licence,
        entry_points=entry_points if wheel.pure else [],
    )


def depends(wheel: Wheel, extras: set[str]) -> list[str]:
    """The wheel's requirements on this Python, in Conda's words."""
    wanted = []
    for requirement in wheel.requires:
        environments = [{"extra": extra} for extra in ("", *sorted(extras))]
        if requirement.marker and not any(map(requirement.marker.evaluate, environments)):
            continue
        wanted.append(" ".join([canonicalize_name(requirement.name), _specifier(requirement)]).strip())
    return sorted(set(wanted))


def _specifier(requirement: Requirement) -> str:
    clauses = []
    for clause in requirement.specifier:
        # Conda writes a prefix match without an operator.
        prefix_match = clause.operator == "==" and clause.version.endswith(".*")
        clauses.append(clause.version if prefix_match else str(clause))
    return ",".join(sorted(clauses))


def _spread(data: Path, modules: Path, programs: Path, tree: Path) -> None:
    """Move the files in a wheel's `*.data` to where an installer would put them."""
    places = {"purelib": modules, "platlib": modules, "scripts": programs, "data": tree, "headers": tree / "include"}
    for kind in sorted(data.iterdir()):
        shutil.copytree(kind, places[kind.name], dirs_exist_ok=True)
        if kind.name == "scripts":
            for script in kind.iterdir():
                _own_interpreter(programs / script.name)
    shutil.rmtree(data)


def _own_interpreter(script: Path) -> None:
    text = script.read_bytes()
    if text.startswith(b"#!python"):
        _, _, rest = text.partition(b"\n")
        script.write_bytes(SHEBANG.encode() + b"\n" + rest)
    script.chmod(0o755)


def _entry_points(file: Path) -> list[str]:
    """`command = module:function` for each console program, extras in brackets removed."""
    if not file.exists():
        return []
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str
    parser.read_string(file.read_text())
    section = parser["console_scripts"] if parser.has_section("console_scripts") else {}
    return [f"{name} = {target.split('[')[0].strip()}" for name, target in section.items()]


def _write_program(programs: Path, entry_point: str) -> None:
    name, target = entry_point.split(" = ")
    module, function = target.split(":")
    programs.mkdir(exist_ok=True)
    program = programs / name
    program.write_text(f"{SHEBANG}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    program.chmod(0o755)
