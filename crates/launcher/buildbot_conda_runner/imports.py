"""Caches the imports of a start for the next one: the location of each module, and its code.

Searching for a thousand modules and reading their bytecode one file at a time takes nearly a fifth of a master's start.
After a start, the code of all of them is written to one file in the instance's state directory, and the next start
reads it from there, as long as neither a module nor the directory in which it was found has changed. Everything else is
left to Python's own import system, which finds the same modules.
"""

import _imp
import importlib.util
import marshal
import os
import pkgutil
import sys
import threading
import types
from importlib import machinery

FORMAT = 1
# Bytes: the start of the index, and its length.
HEADER = 16
# If more modules than this were not in the file, it is written again.
TOLERATED = 20
# Flags of bytecode that holds whatever becomes of the source.
UNCHECKED = b"\1\0\0\0"
# The maximum part of the free space that the file may use.
ROOM = 10


def interpreter():
    """What bytecode and the places of modules depend on, apart from the modules themselves."""
    prefixes = [sys.prefix, sys.base_prefix, getattr(sys, "pycache_prefix", None)]
    return [FORMAT, importlib.util.MAGIC_NUMBER, sys.version, sys.flags.optimize, *prefixes]


def stamp(path):
    """What changes with a file or directory."""
    info = os.stat(path)
    return info.st_ino, info.st_mtime_ns, info.st_size


def remembering(name, path, take):
    """Python's own loader of a module, with the code from the file, used once.

    It is not a class of ours, because libraries recognise Python's loaders by their class or its module, and treat
    others differently (importlib_resources, before Python 3.10).
    """
    loader = machinery.SourceFileLoader(name, path)

    # Not `exec_module`, whose frame would appear in the traceback of every failed import.
    def get_code(fullname):
        loader.__dict__.pop("get_code", None)
        return take() or loader.get_code(fullname)

    loader.get_code = get_code
    return loader


class Imports:
    """A finder ahead of Python's own for the modules of the last start.

    The file has another name while a start makes use of it, and none gets its own name back from a
    start that fails: should one ever die of it, the next does without.
    """

    def __init__(self, state):
        """`state` is the absolute path of the instance's state directory; else nothing is remembered."""
        self.state = state if os.path.isabs(state) else None
        self.file = os.path.join(state, "bytecode", "imports")
        self.in_use = self.file + ".in-use"
        self.index, self.directories = {}, {}
        self.finders, self.unchanged = {}, {}
        self.stale = set()  # names of modules that have changed
        self.is_over = False
        self.open = None
        if self.state is None:
            return
        try:
            os.rename(self.file, self.in_use)
            self.open = os.open(self.in_use, os.O_RDONLY | os.O_CLOEXEC)
            header = os.pread(self.open, HEADER, 0)
            offset, length = (int.from_bytes(part, "little") for part in (header[:8], header[8:]))
            key, index, directories = marshal.loads(os.pread(self.open, length, offset))
            if key == interpreter():
                self.index, self.directories = index, directories
                sys.meta_path.insert(sys.meta_path.index(machinery.PathFinder), self)
        except (OSError, ValueError, EOFError, TypeError, OverflowError):
            pass  # the first start, or a file of somebody else's

    def find_spec(self, name, path=None, target=None):
        entry = self.index.get(name)
        if entry is None or self.is_over:
            return None
        directory, origin, cached, is_package, expected, place = entry
        for other in sys.path if path is None else path:
            if other == directory:
                break
            spec = self._found_before(other, name)
            if spec is not None and spec.loader is not None:
                return spec
        else:
            return None
        try:
            if not self._is_unchanged(directory) or stamp(origin) != expected:
                self.stale.add(name)
                return None
        except OSError:
            self.stale.add(name)
            return None
        if place is None:
            loader = machinery.ExtensionFileLoader(name, origin)
        else:
            loader = remembering(name, origin, lambda: self._code(*place))
        spec = machinery.ModuleSpec(name, loader, origin=origin, is_package=is_package)
        spec.has_location = True
        spec.cached = cached
        if is_package:
            spec.submodule_search_locations.append(os.path.dirname(origin))
        return spec

    def invalidate_caches(self):
        """Part of the protocol of finders: new modules were created."""
        self.is_over = True

    def _found_before(self, directory, name):
        """What comes first on the search path wins, also if it is new."""
        if directory not in self.finders:
            self.finders[directory] = pkgutil.get_importer(directory or os.getcwd())
        finder = self.finders[directory]
        return None if finder is None else finder.find_spec(name)

    def _is_unchanged(self, directory):
        """Whether no module was added to a directory or removed from it; checked once in a start."""
        if directory not in self.unchanged:
            self.unchanged[directory] = stamp(directory) == self.directories[directory]
        return self.unchanged[directory]

    def _code(self, offset, length):
        """The code of a module; None if the file does not hold it."""
        try:
            return marshal.loads(os.pread(self.open, length, offset))
        except (OSError, ValueError, EOFError, TypeError):
            return None

    def is_in_use(self):
        """Whether modules may come from the file. A start that fails meanwhile is tried once more without it."""
        return self.open is not None and bool(self.index)

    def worked(self):
        """The start has come to a good end: the next may have the file as well."""
        if self.open is not None:
            try:
                os.rename(self.in_use, self.file)
            except OSError:
                pass

    def end(self):
        """Stop being used, and write the file again if it is outdated."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        modules = imported()
        unknown = modules.keys() - (self.index.keys() - self.stale)
        if self.open is not None:
            os.close(self.open)
            self.open = None
        self.index = {}
        if self.state and len(unknown) > TOLERATED:
            threading.Thread(target=write, args=(self.file, modules), daemon=True).start()


def imported():
    """The modules of the environment that were imported from files: name -> spec."""
    kinds = (machinery.SourceFileLoader, machinery.ExtensionFileLoader)
    places = tuple(os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix))
    found = {}
    for name, module in list(sys.modules.items()):
        # Lazy modules have another type, and accessing them would load them.
        spec = module.__spec__ if type(module) is types.ModuleType else None
        if spec is not None and spec.name == name and type(spec.loader) in kinds:
            if spec.has_location and spec.origin.startswith(places):
                found[name] = spec
    return found


def bytecode_of(spec, stamped):
    """A module's code, marshalled, if its `.pyc` file holds for the source; else None."""
    with open(spec.cached, "rb") as file:
        data = file.read()
    _, mtime, size = stamped
    # PEP 552: flags, and then time and size, or with these flags a checksum that is not verified.
    numbers = (0, mtime // 10**9 & 0xFFFFFFFF, size & 0xFFFFFFFF)
    header = importlib.util.MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in numbers)
    if data[:16] == header:
        return data[16:]
    if data[:8] != importlib.util.MAGIC_NUMBER + UNCHECKED:
        return None
    # The module belongs to a managed environment. It was compiled elsewhere: the name that an import would fix is fixed
    # once.
    code = marshal.loads(data[16:])
    _imp._fix_co_filename(code, spec.origin)
    return marshal.dumps(code)


def write(file, modules):
    """Write `file` for the modules of `imported()`; where that fails there is none."""
    new = file + ".new"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(new, "wb") as out:
            usage = os.statvfs(new)
            put(out, modules, usage.f_bavail * usage.f_frsize // ROOM)
            out.flush()
            # A file that a power cut left half-written could crash the interpreter.
            os.fsync(out.fileno())
        os.rename(new, file)
    except OSError:
        try:
            os.unlink(new)
        except OSError:
            pass


def put(out, modules, room):
    """Codes, then the index, to which the first bytes point. OSError above `room` bytes."""
    index, directories = {}, {}
    out.write(bytes(HEADER))
    for name, spec in modules.items():
        is_package = spec.submodule_search_locations is not None
        directory = os.path.dirname(spec.origin)
        if is_package:
            directory = os.path.dirname(directory)
        try:
            if directory not in directories:
                directories[directory] = stamp(directory)
            stamped = stamp(spec.origin)
            place = None
            if not isinstance(spec.loader, machinery.ExtensionFileLoader):
                code = bytecode_of(spec, stamped)
                if code is None:
                    continue
                place = out.tell(), len(code)
                out.write(code)
        except FileNotFoundError:
            continue  # uninstalled meanwhile, or without bytecode
        if out.tell() > room:
            raise OSError("not enough space")
        index[name] = directory, spec.origin, spec.cached, is_package, stamped, place
    offset = out.tell()
    out.write(marshal.dumps((interpreter(), index, directories)))
    length = out.tell() - offset
    out.seek(0)
    out.write(offset.to_bytes(8, "little") + length.to_bytes(8, "little"))
