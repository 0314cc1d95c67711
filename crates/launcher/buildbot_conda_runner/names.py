"""The names, statuses and spans of time on which the modules of the runner agree."""

JOURNAL_SOCKET = "/run/systemd/journal/socket"
LOCK = ".buildbot-conda.lock"
CLI = "/usr/bin/buildbot-conda"
LAUNCHER = "/usr/libexec/buildbot-conda/launcher"
RELOAD_MARK = "reload"  # in the run-time directory: a reload waits for the end of the process whose PID it holds
SERVED_MARK = "served"  # in the state directory: this instance has run before, and its directory is missed when it is gone
UPGRADE_MARK = "upgrade-in-progress"
UNFINISHED_UPDATE = ".changing"  # beside the generations of a managed environment
PID_FILE = "twistd.pid"
TAC = "buildbot.tac"
UNEXPECTED, USAGE, SCHEMA, AWAY, CONFIGURATION = 1, 2, 65, 69, 78

# Variables that systemd sets for a service (systemd.exec(5), "Environment variables set or propagated"). A build that
# inherited these could pose as the service or confuse its own tools.
SYSTEMD_VARIABLES = (
    "NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID "
    "RUNTIME_DIRECTORY STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY "
    "LISTEN_PID LISTEN_PIDFDID LISTEN_FDS LISTEN_FDNAMES MEMORY_PRESSURE_WATCH "
    "MEMORY_PRESSURE_WRITE FDSTORE MANAGERPID MANAGERPIDFDID MAINPID MAINPIDFDID TRIGGER_UNIT "
    "TRIGGER_PATH TRIGGER_TIMER_REALTIME_USEC TRIGGER_TIMER_MONOTONIC_USEC MONITOR_SERVICE_RESULT "
    "MONITOR_EXIT_CODE MONITOR_EXIT_STATUS MONITOR_INVOCATION_ID MONITOR_UNIT"
).split()

# Variables that `service prepare` passes on when it has upgraded the database and starts the instance again: the number
# of the lock's descriptor, and that preparing again would be useless.
HANDED_LOCK, PREPARED = "BUILDBOT_CONDA_LOCK", "BUILDBOT_CONDA_PREPARED"
# From the launcher: a descriptor of the environment that it received, and the name of the variable in it with the
# fingerprint of the drop-in.
HANDED_ENVIRONMENT, DROP_IN = "BUILDBOT_CONDA_ENVIRONMENT", "BUILDBOT_CONDA_DROP_IN"

# syslog(3) priorities.
CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7
PRIORITIES = {"critical": CRITICAL, "error": ERROR, "warn": WARNING, "info": INFO, "debug": DEBUG}

# Longest pause between two attempts of a worker to connect, in seconds. Twisted's own goes up
# to 60, which leaves workers idle for a minute after their master came back.
LONGEST_RETRY = 10.0

# How long Buildbot may take to stop once its builds are finished or given up, in seconds; well below TimeoutStopSec= of
# the units, which would turn the stop into a failure.
STOP_PATIENCE = 30
# The same for a stop that was not requested, which is followed by a new start.
UNASKED_PATIENCE = 10

# How long a connection to a master's door may take to log in, in seconds. Everyone can reach it, and each connection
# uses a descriptor.
LOGIN_PATIENCE = 60
