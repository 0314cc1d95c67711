"""Look at a PostgreSQL database by its URL, or drop Buildbot's tables from it.

Run by `python -c` as the service user, with one JSON object on standard input: `url` and `clear`. One JSON object goes
to stdout.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]  # the current directory: modules of others are not ours

import json

# Seconds that a server may take to answer.
PATIENCE = 10


def look(engine):
    import sqlalchemy

    with engine.connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        may_create = "select has_schema_privilege(current_schema(), 'create'), current_user, current_database()"
        allowed, account, database = connection.execute(sqlalchemy.text(may_create)).fetchone()
        return {
            "tables": len(inspector.get_table_names()),
            "buildbot": bool(tables_of_buildbot(inspector)),  # noqa: F821, from tables.py
            "may_create": bool(allowed),
            "account": account,
            "database": database,
        }


def clear(engine):
    with engine.connect() as connection:
        others = holders(connection.connection.cursor(), SCHEMA)  # noqa: F821, from holders.py
    if others:
        return {"problem": "its tables are used by %s" % others}
    drop_tables_of_buildbot(engine)  # noqa: F821, from tables.py
    return {}


def main():
    request = json.load(sys.stdin)
    try:
        import sqlalchemy

        engine = sqlalchemy.create_engine(request["url"], connect_args={"connect_timeout": PATIENCE})
        answer = clear(engine) if request["clear"] else look(engine)
    except Exception as error:
        # SQLAlchemy's own text has a web address behind it.
        text = str(getattr(error, "orig", None) or error)
        answer = {"problem": " ".join(text.split()) or type(error).__name__}
    print(json.dumps(answer))


main()
