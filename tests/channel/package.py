"""One Conda package: its metadata files and the `.conda` archive around them.

Owns the format (`info/index.json`, `info/paths.json`, `info/link.json`, the prefix placeholder). What goes into a
package is decided by `cpython.py` and `wheels.py`. The format is described by Conda's own packages specification.
"""

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from conda_package_streaming.create import anonymize, conda_builder

# An installer replaces this by the prefix of the environment. Conda's own placeholders are 255 characters long as well,
# so that a prefix is never longer than what it replaces.
PLACEHOLDER = "/opt/placeholder_" + "p" * (255 - len("/opt/placeholder_"))

# One time stamp for every file of every package, in seconds: the same input gives the same archive.
BUILT = 1_700_000_000

# Sufficient for packages that exist only during a test: 19, the default, takes ten times as long.
COMPRESSION_LEVEL = 3


@dataclass
class CondaPackage:
    """What identifies a package, and the directory that holds its files."""

    name: str
    version: str
    build: str
    depends: list[str]
    tree: Path
    noarch: bool
    licence: str = "unknown"
    # `command = module:function` lines, only for `noarch: python`, whose installer writes the programs.
    entry_points: list[str] = field(default_factory=list)

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else "linux-64"

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"


def write(package: CondaPackage, channel: Path) -> None:
    """Add `info/` to the package's tree and write its archive into the channel."""
    paths = [_path_entry(package.tree, path) for path in _files(package.tree)]
    info = package.tree / "info"
    info.mkdir()
    python_package = package.noarch and package.name != "python_abi"
    index = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": 0,
        "depends": package.depends,
        "constrains": [],
        "license": package.licence,
        "subdir": package.subdir,
        "timestamp": BUILT * 1000,
        "arch": None if package.noarch else "x86_64",
        "platform": None if package.noarch else "linux",
    }
    if package.noarch:
        index["noarch"] = "python" if python_package else "generic"
    _json(info / "index.json", index)
    _json(info / "paths.json", {"paths": paths, "paths_version": 1})
    _json(info / "about.json", {"license": package.licence})
    (info / "files").write_text("".join(f"{entry['_path']}\n" for entry in paths))
    prefixed = [entry for entry in paths if "prefix_placeholder" in entry]
    if prefixed:
        lines = (f'"{PLACEHOLDER}" "text" "{entry["_path"]}"\n' for entry in prefixed)
        (info / "has_prefix").write_text("".join(lines))
    if python_package:
        python = {"type": "python", "entry_points": package.entry_points}
        _json(info / "link.json", {"noarch": python, "package_metadata_version": 1})
    _archive(package, channel / package.subdir)


def _files(tree: Path) -> list[Path]:
    return sorted(path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir())


def _path_entry(tree: Path, path: Path) -> dict:
    data = path.read_bytes()
    entry = {
        "_path": path.relative_to(tree).as_posix(),
        "path_type": "softlink" if path.is_symlink() else "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if not path.is_symlink() and PLACEHOLDER.encode() in data:
        entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return entry


def _json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def _archive(package: CondaPackage, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with conda_builder(package.stem, directory, compression_level=COMPRESSION_LEVEL) as archive:
        for path in _files(package.tree):
            name = path.relative_to(package.tree).as_posix()
            member = anonymize(archive.gettarinfo(str(path), name))
            member.mtime = BUILT
            # Two hard-linked files of the source tree are two files of the package.
            if member.islnk():
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", os.path.getsize(path)
            if member.isreg():
                with path.open("rb") as stream:
                    archive.addfile(member, stream)
            else:
                archive.addfile(member)
