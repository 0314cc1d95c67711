"""Which errors of a database are temporary, for SQLAlchemy and its drivers."""

# The classes of SQLSTATE, and single values, of temporary errors: no connection, too few resources, a shutdown by the
# administrator, problems of the system, a standby that accepts no writes.
PASSING = ("08", "53", "57P", "58", "25006")
# The same of SQLite in its words, and of MySQL and MariaDB in their numbers.
SQLITE = ("database or disk is full", "disk I/O error", "readonly database", "unable to open database file")
MYSQL = (1021, 1040, 1053, 1114, 1290, 2002, 2003, 2006, 2013)


def is_outage(error):
    """Whether an error of SQLAlchemy means that the database is temporarily unusable."""
    if not any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in type(error).__mro__):
        return False
    if type(error).__name__ == "TimeoutError" or getattr(error, "connection_invalidated", False):
        return True
    original = getattr(error, "orig", None)
    driver = type(original).__module__.partition(".")[0]
    if driver == "sqlite3":
        return any(words in str(original) for words in SQLITE)
    state = getattr(original, "pgcode", None) or getattr(original, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(PASSING)
    if driver in ("psycopg", "psycopg2"):  # no connection came about, so there is no state
        return type(error).__name__ in ("OperationalError", "InterfaceError")
    return (getattr(original, "args", None) or (None,))[0] in MYSQL
