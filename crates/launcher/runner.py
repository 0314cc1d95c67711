"""Starts `buildbot_conda_runner`, which is next to this file and runs one Buildbot instance.

Usage: runner.py ROLE DIRECTORY [--reference REF] [--start-timeout SECONDS] [--log journal|both] [--upgrade auto|manual]
[--drain SECONDS] [--name NAME] [--root DIR]

This file decides where the bytecode of that package is kept. The package supports every version of Python, so it is
installed without bytecode; compiling it at each start would take 20 ms and 4 MB of memory. The bytecode is in the
instance's state directory, which belongs to the same user as everything else that the instance runs.
"""

import os
import sys
from importlib import machinery

HERE = os.path.dirname(os.path.realpath(__file__))
PACKAGE = "buildbot_conda_runner"


class Loader(machinery.SourceFileLoader):
    """Imports our modules, with their bytecode below `cache`; None: without bytecode."""

    cache = None

    def get_code(self, fullname):
        kept = sys.pycache_prefix, sys.dont_write_bytecode
        sys.pycache_prefix = self.cache
        sys.dont_write_bytecode |= self.cache is None
        try:
            return super().get_code(fullname)
        except (EOFError, TypeError, ValueError):  # bytecode that a crash has left in pieces
            path = self.get_filename(fullname)
            return self.source_to_code(self.get_data(path), path)
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = kept

    def path_stats(self, path):
        """By the time of installation: all files of a reproducible package are of the same age."""
        info = os.stat(path)
        return {"mtime": info.st_ctime_ns // 1000, "size": info.st_size}


def package():
    """Import `buildbot_conda_runner.runner`; leaves the search path without this directory."""
    # A drop-in may add directories to the unit's own.
    states = os.environ.get("STATE_DIRECTORY", "").split(":")
    state = next((path for path in states if "/buildbot-conda/instances/" in path), states[0])
    Loader.cache = os.path.join(state, "bytecode") if os.path.isabs(state) else None
    # The directory of this file contains other programs of ours, which must not be imported.
    sys.path[:] = [path for path in sys.path if os.path.realpath(path or ".") != HERE]
    for directory in (HERE, os.path.join(HERE, PACKAGE)):
        finder = machinery.FileFinder(directory, (Loader, machinery.SOURCE_SUFFIXES))
        sys.path_importer_cache[directory] = finder
    sys.path.insert(0, HERE)
    try:
        from buildbot_conda_runner import runner
    finally:
        sys.path.remove(HERE)
    return runner


if __name__ == "__main__":
    sys.exit(package().main(sys.argv[1:]))
