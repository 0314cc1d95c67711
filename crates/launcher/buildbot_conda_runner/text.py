"""Text for those who read it: status lines and the journal."""


def to_bytes(text):
    """UTF-8 of any str, also of one that holds undecodable bytes of a path."""
    return text.encode("utf-8", "backslashreplace")


def one_line(text, limit=300):
    """`text` for a status line: a traceback shrinks to its last place and last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("Traceback (")), None)
    if start is not None:
        places = [line for line in lines[start:] if line.startswith('File "')]
        lines = lines[:start] + places[-1:] + lines[-1:]
    joined = " ".join(" ".join(lines).split())
    return joined if len(joined) <= limit else joined[: limit - 3].rstrip() + "..."
