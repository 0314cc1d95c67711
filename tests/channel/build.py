"""Builds a Conda channel from PyPI wheels and the CPython that runs this program.

Usage: `python build.py CHANNEL WHEELS`, with the packages of `tools.txt` importable and `patchelf` on PATH. CHANNEL is
created; WHEELS holds wheels for this Python and platform, several versions of a distribution if need be.
"""

import asyncio
import shutil
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cpython
import package
import wheels
from rattler.index import index_fs


def extras_asked_for(all_wheels: list[wheels.Wheel]) -> dict[str, set[str]]:
    """Extras by distribution. Conda has no extras: what they bring becomes a plain dependency of the distribution."""
    extras = defaultdict(set)
    for wheel in all_wheels:
        for requirement in wheel.requires:
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                extras[wheels.canonicalize_name(requirement.name)] |= requirement.extras
    return extras


def build(channel: Path, wheel_directory: Path) -> int:
    """Write every package and the index; the number of packages."""
    found = [wheels.read(file) for file in sorted(wheel_directory.glob("*.whl"))]
    extras = extras_asked_for(found)
    with tempfile.TemporaryDirectory(dir=channel.parent) as scratch, ThreadPoolExecutor() as pool:
        work = Path(scratch)
        packages = list(pool.map(lambda wheel: wheels.package(wheel, extras, work), found))
        binary_trees = [packed.tree for packed in packages if not packed.noarch]
        packages += [cpython.python(work, binary_trees), cpython.python_abi(work)]
        list(pool.map(lambda packed: package.write(packed, channel), packages))
    asyncio.run(index_fs(channel, force=True))
    return len(packages)


def main() -> None:
    if reason := cpython.refusal():
        raise SystemExit(f"error: pack this Python: {reason}")
    channel, wheel_directory = map(Path, sys.argv[1:])
    if not shutil.which("patchelf"):
        raise SystemExit("error: find `patchelf` on PATH")
    channel.mkdir(parents=True)
    print(f"{build(channel, wheel_directory)} packages in {channel}", file=sys.stderr)


if __name__ == "__main__":
    main()
