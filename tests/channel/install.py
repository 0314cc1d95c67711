"""Installs an environment from a channel into a tree that will be the root of a machine.

Usage: `python install.py CHANNEL REQUIREMENTS TREE PREFIX`. CHANNEL is a URL or a directory, REQUIREMENTS a file of
`name==version` lines, PREFIX the absolute path of the environment when TREE is a root. A Conda-compatible installer
(rattler) installs it, and writes PREFIX instead of TREE/PREFIX into the files.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name
from rattler import Channel, MatchSpec, VirtualPackage, install, solve


def specs(requirements: Path) -> list[MatchSpec]:
    lines = (line.strip() for line in requirements.read_text().splitlines())
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return [MatchSpec(f"{canonicalize_name(name)}=={version}") for name, version in pins]


async def create(channel: str, requirements: Path, tree: Path, prefix: Path) -> None:
    records = await solve(
        sources=[Channel(channel)],
        specs=specs(requirements),
        platforms=["linux-64", "noarch"],
        virtual_packages=VirtualPackage.detect(),
    )
    target = tree / prefix.relative_to("/")
    with tempfile.TemporaryDirectory(dir=tree.parent) as cache:
        await install(
            records,
            target_prefix=target,
            alternative_target_prefix=prefix,
            cache_dir=Path(cache),
            show_progress=False,
        )
    compile_modules(target, tree)


def compile_modules(target: Path, tree: Path) -> None:
    """Write bytecode, as conda does: the service user cannot. Tracebacks name files as seen from inside the machine."""
    command = [target / "bin/python", "-m", "compileall", "-q", "-j0", "-s", tree, "-p", "/", target / "lib"]
    # Some packages contain templates and tests that are not valid Python; conda continues as well.
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)


def main() -> None:
    channel, requirements, tree, prefix = sys.argv[1:]
    # Regardless of who installs it, everyone may run it.
    os.umask(0o022)
    if Path(channel).is_dir():
        channel = Path(channel).resolve().as_uri()
    asyncio.run(create(channel, Path(requirements), Path(tree).resolve(), Path(prefix)))


if __name__ == "__main__":
    main()
