"""Which tables of a database are Buildbot's; put in front of the programs that need to know."""


def tables_of_buildbot(inspector):
    """Names of the tables in a database that are Buildbot's; others may live there as well.

    Those that the installed Buildbot knows, and whatever is tied to them by foreign keys: tables of
    a later Buildbot are its own as well.
    """
    from buildbot.db import model

    found = set(inspector.get_table_names())
    ours = found & (set(model.Model.metadata.tables) | {"alembic_version", "migrate_version"})
    grows = True
    while grows:
        tied = {
            name
            for name in found - ours
            if any(key["referred_table"] in ours for key in inspector.get_foreign_keys(name))
        }
        ours |= tied
        grows = bool(tied)
    return ours


def drop_tables_of_buildbot(engine):
    """All of them, those of a later schema as well."""
    import sqlalchemy

    ours = tables_of_buildbot(sqlalchemy.inspect(engine))
    found = sqlalchemy.MetaData()
    found.reflect(bind=engine, only=lambda name, _: name in ours)
    found.drop_all(bind=engine)


