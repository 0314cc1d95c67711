"""Compiles modules for generations: the same source gives the same bytes in every process, wherever its file lies.

Standard input has three fields for each module, each ended by a NUL: its source, the file to write, and the name that
tracebacks have for it until an import knows better. Standard output has the tag of this interpreter's bytecode, and
then the number of each module that was compiled; those that are no valid Python, such as templates, are passed over.

The argument is a number for the field "flags" of bytecode. It is run on an interpreter whose own modules have no bytecode yet, and imports nothing that is not built in.
"""

import _frozen_importlib_external as external
import _imp
import marshal
import posix
import sys

# A constant time stamp: a file that was written to later is known by it. 1980, as archives know no earlier one.
TIME = 315532800
TOKEN = int.from_bytes(external.MAGIC_NUMBER, "little")
# PEP 552: whether an import asks if the source has changed.
FLAGS = int(sys.argv[1]).to_bytes(4, "little")


def put(source, target, name):
    """Write the bytecode of `source` to `target`."""
    with open(source, "rb") as file:
        text = file.read()
    code = compile(text, name, "exec", dont_inherit=True)
    with open(target, "wb") as file:
        file.write(external.MAGIC_NUMBER + FLAGS + _imp.source_hash(TOKEN, text) + marshal.dumps(code))
    posix.utime(target, (TIME, TIME))


def tell(text):
    """At once, so that this process ends with the one that listens."""
    posix.write(1, b"%s\n" % text.encode())


# Strings of one character live as long as the process. Once a module has one as a name, which is marked, those after
# it would have the mark as well: all of them have it from the beginning.
for number in range(256):
    sys.intern(chr(number))

fields = sys.stdin.buffer.read().split(b"\0")
tell(sys.implementation.cache_tag or "")
for number in range(len(fields) // 3):
    source, target, name = fields[3 * number : 3 * number + 3]
    try:
        put(source, target, name.decode())
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        continue
    tell(str(number))
