"""Runs one Buildbot instance in the foreground and reports its actual state to systemd.

This package runs an unmodified `buildbot.tac` in this process. It is responsible for the lock and the `twistd.pid` of
its directory, sd_notify(3), the journal, `status.json`, the exit status (sysexits.h values 65, 69 and 78), and the few
signal rules without which builds get lost. Others are responsible for the activated environment (the launcher), for
waiting for drains and reloads (the command line), and for restarts and time-outs (systemd).

Works with CPython 3.8 and later and Buildbot 2.10 to 4.x, from the standard library and Twisted. Start-up time is
mostly imports, so nothing is imported before it is needed.
"""
