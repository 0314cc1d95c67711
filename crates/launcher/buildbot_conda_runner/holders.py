"""Who has the advisory locks of a database of PostgreSQL; also put in front of programs of the command line."""

# The first number of every lock of ours, and the second of the schema's; a master's name has its own.
SPACE, SCHEMA = 0x62636F6E, 0

WHO_HOLDS = """
select distinct a.application_name, coalesce(host(a.client_addr), 'this host')
from pg_locks l join pg_stat_activity a on a.pid = l.pid join pg_database d on d.oid = l.database
where l.locktype = 'advisory' and l.granted and l.pid <> pg_backend_pid() and d.datname = current_database()
and l.classid::bigint = %s and l.objid::bigint = %s
"""


def holders(cursor, lock):
    """Who has a lock, in words, or nothing."""
    cursor.execute(WHO_HOLDS, (SPACE, lock))
    return ", ".join("`%s` (%s)" % row for row in cursor.fetchall())
