"""The name of a master in its database, if it is configured (key `name`).

Buildbot names a master after its host and directory, and identifies its own running builds by this name. Under another
name, earlier builds would stay claimed forever, so an existing row is renamed.
"""

import hashlib

from .names import NOTICE

# As `buildbot.master.BuildMaster.getObjectId` calls what a master keeps for itself.
OBJECT = "buildbot.master.BuildMaster"


def give(master, name):
    """Call a BuildMaster so, before it starts; returns what it was called."""
    old, master.name = master.name, name
    services = getattr(getattr(master, "parent", None), "namedServices", {})
    for known in [known for known, service in services.items() if service is master]:
        services[name] = services.pop(known)  # its parent looks for it by its name when it stops
    return old


def place(url):
    """The database of a URL of SQLAlchemy's in words, without user and password."""
    host = url.query.get("host") or url.host or ""
    if not isinstance(host, str):  # several
        host = ",".join(host)
    if not host or host.startswith("/"):
        host = "this host"
    elif url.port:
        host += ":%d" % url.port
    return "`%s` (%s) on %s" % (url.database, url.get_backend_name(), host)


def take_along(role, old, is_served):
    """Rename the row of a Master's BuildMaster, unless one with the new name exists; a Deferred.

    `is_served(connection)` returns whether another master serves under the old name.
    """
    new, model = role.master.name, role.master.db.model

    def rename(connection):
        masters, objects = model.masters, model.objects
        with connection.begin():
            rows = connection.execute(masters.select().order_by(masters.c.last_active.desc())).fetchall()
            names = {row.name: row.id for row in rows}
            found = old
            if old not in names and rows and connection.dialect.name == "sqlite":
                found = rows[0].name  # nobody else has the file: this host or directory was called so
            if new in names or found not in names or is_served(connection):
                return None
            hashed = hashlib.sha1(new.encode()).hexdigest()
            # As if it were still running: its builds are given up and retried when it reports that it has stopped.
            values = {"name": new, "name_hash": hashed, "active": 1}
            connection.execute(masters.update().where(masters.c.id == names[found]).values(**values))
            mine = (objects.c.name == found) & (objects.c.class_name == OBJECT)
            connection.execute(objects.update().where(mine).values(name=new))
            return found

    def renamed(found):
        if found:
            role.journal.write(NOTICE, "the master `%s` is now called `%s` in its database" % (found, new))

    return role.master.db.pool.do(rename).addCallback(renamed)
