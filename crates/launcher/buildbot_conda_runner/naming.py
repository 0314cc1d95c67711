"""What a master is called in its database, where the configuration says so (key `name`).

Buildbot calls it after the host and the directory, and knows by that which running builds are its own. Under another name
it would leave those of before claimed for ever, so a row that it has is renamed.
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
    """Rename the row of a Master's BuildMaster, unless there is one already; a Deferred.

    `is_served(connection)` says whether another serves by the old name.
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
            # As if it still ran: what it was building is given up, and built again, when it says that it has stopped.
            values = {"name": new, "name_hash": hashed, "active": 1}
            connection.execute(masters.update().where(masters.c.id == names[found]).values(**values))
            mine = (objects.c.name == found) & (objects.c.class_name == OBJECT)
            connection.execute(objects.update().where(mine).values(name=new))
            return found

    def renamed(found):
        if found:
            role.journal.write(NOTICE, "the master `%s` is now called `%s` in its database" % (found, new))

    return role.master.db.pool.do(rename).addCallback(renamed)
