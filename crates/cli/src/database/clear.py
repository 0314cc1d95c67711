"""Drop every table of Buildbot's from a database server, before a dump is put back: tables that came
with a later schema would otherwise stay, and stop the next upgrade.

Run by `python -c` as the service user, with the SQLAlchemy URL in BUILDBOT_CONDA_DATABASE. Tables that
are not Buildbot's are left alone, whatever else uses the database.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

import os

import sqlalchemy
from buildbot.db import model

url = os.environ.pop("BUILDBOT_CONDA_DATABASE")
engine = sqlalchemy.create_engine(url)
ours = set(model.Model.metadata.tables) | {"alembic_version", "migrate_version"}
found = sqlalchemy.MetaData()
found.reflect(bind=engine, only=lambda name, _: name in ours)
found.drop_all(bind=engine)
