"""Run one Buildbot instance in the foreground and tell systemd the truth about it.

Owned here: running an unmodified `buildbot.tac` in this process, the lock and `twistd.pid` of
its directory, sd_notify(3), the journal, `status.json`, honest exit status (sysexits.h values 65,
69 and 78), and the few signal rules without which builds get lost. Left to others: the activated
environment (launcher), waiting for drains and reloads (CLI), restarts and time-outs (systemd).

Works with CPython 3.8 and later and Buildbot 2.10 to 4.x, from the standard library and Twisted.
Start-up time is mostly imports, so nothing is imported before it is needed.
"""
