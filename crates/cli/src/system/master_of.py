"""The BuildMaster of a directory, as a start creates it; prepended to the programs that need its directories.

`buildbot.tac` sets its base directory and its configuration, and neither has to be in the directory.
"""


def master_of(directory):
    """The BuildMaster that `buildbot.tac` creates, or None if there is no such file."""
    import os
    import sys

    os.chdir(directory)
    if not os.path.lexists("buildbot.tac"):
        return None
    from twisted.application import service

    arguments = sys.argv
    sys.path.insert(0, directory)
    sys.argv = ["twistd", "--no_save", "--nodaemon", "--logfile=twistd.log", "--python=buildbot.tac", "--pidfile="]
    try:
        application = service.loadApplication("buildbot.tac", "python")
    finally:
        sys.argv = arguments
    services = [service.IService(application)]
    for parent in services:
        if any(kind.__name__ == "BuildMaster" for kind in type(parent).__mro__):
            return parent
        services.extend(getattr(parent, "services", ()))
    raise ValueError("`%s` defines no Buildbot master" % os.path.join(directory, "buildbot.tac"))


def place_of(directory):
    """(base directory, file of the configuration), both absolute."""
    import os

    master = master_of(directory)
    if master is None:
        return directory, os.path.join(directory, "master.cfg")
    base = os.path.abspath(os.path.expanduser(master.basedir))
    return base, os.path.join(base, getattr(master, "configFileName", None) or "master.cfg")
