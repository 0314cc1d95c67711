"""Drop every table of Buildbot's from a database server, before a dump is put back: tables that came
with a later schema would otherwise stay, and stop the next upgrade.

Run by `python -c` as the service user, with the SQLAlchemy URL in BUILDBOT_CONDA_DATABASE.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

import os

import sqlalchemy

drop_tables_of_buildbot(sqlalchemy.create_engine(os.environ.pop("BUILDBOT_CONDA_DATABASE")))  # noqa: F821, from tables.py
