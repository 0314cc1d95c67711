"""Compiles modules for generations: the same source gives the same bytes in every process, wherever its file is.

Standard input contains for each module the lengths of its name and of its text, 16 digits each, then both; tracebacks
show this name until an import corrects it. Standard output contains a line with the tag of this interpreter's bytecode,
and then for each compiled module a line with its number and the length of its bytecode, and the bytecode. Files that
are not valid Python, such as templates, are skipped.

Arguments are the field "flags" of bytecode and the number of modules. The modules of the interpreter have no bytecode
yet, so this program imports only built-in modules.
"""

import _frozen_importlib_external as external
import _imp
import marshal
import posix
import sys

TOKEN = int.from_bytes(external.MAGIC_NUMBER, "little")
# PEP 552: whether an import asks if the source has changed.
FLAGS = int(sys.argv[1]).to_bytes(4, "little")


def put(text, name):
    """The bytecode of a module."""
    code = compile(text, name, "exec", dont_inherit=True)
    return external.MAGIC_NUMBER + FLAGS + _imp.source_hash(TOKEN, text) + marshal.dumps(code)


def tell(text):
    """At once, so that this process ends with the one that listens."""
    posix.write(1, text)


# Strings of one character live as long as the process. Once a module uses one as a name, it is marked, and later
# modules would contain the mark as well: therefore all of them are marked from the beginning.
for number in range(256):
    sys.intern(chr(number))

# Names of this program live as long as it does and are marked, too. Each additional name would change the bytecode of
# modules that use it: these are no longer in use.
source = ("TIME", "encode", "open", "rb", "split", "str", "target", "utime", "wb")

tell(b"%s\n" % (sys.implementation.cache_tag or "").encode())
fields = sys.stdin.buffer
for number in range(int(sys.argv[2])):
    source, file = int(fields.read(16)), int(fields.read(16))
    name, text = fields.read(source), fields.read(file)
    try:
        text = put(text, name.decode())
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        continue
    tell(b"%d %d\n" % (number, len(text)) + text)
