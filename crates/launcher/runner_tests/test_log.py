"""Where the log is written and in which form, and that it is written only once."""

import contextlib
import os
import signal

from instances import wait_until


def messages(instance):
    return [entry["MESSAGE"] for entry in instance.entries()]


def test_journal_gets_every_line_once_with_its_fields(python, make):
    extra = "\nimport sys\nprint('printed')\nsys.stderr.write('complained\\n')\n"
    master = make.master(python, extra=extra)
    tac = master.directory / "buildbot.tac"
    tac.write_text(tac.read_text() + "\nprint('early')\n")
    master.start(journal=True).ready()
    assert master.stop() == 0
    found = messages(master)
    for line in ("BuildMaster is running", "printed", "complained", "BuildMaster is stopped"):
        assert found.count(line) == 1, line
    entries = {entry["MESSAGE"]: entry for entry in master.entries()}
    running = entries["BuildMaster is running"]
    assert running["SYSLOG_IDENTIFIER"] == "buildbot-master"
    assert running["BUILDBOT_INSTANCE"] == "master"
    assert running["PRIORITY"] == "6" and "BUILDBOT_NAMESPACE" not in running
    assert entries["printed"]["BUILDBOT_NAMESPACE"] == "stdout"
    assert entries["complained"]["PRIORITY"] == "4"
    # Output before the log starts goes to stdout, which is the journal as well.
    assert master.log().splitlines() == ["early"]
    assert (master.directory / "twistd.log").read_bytes() == b""


def test_log_both_also_writes_twistd_log_as_upstream_does(python, make):
    master = make.master(python).start("--log", "both", journal=True).ready()
    assert master.stop() == 0
    assert messages(master).count("BuildMaster is running") == 1
    lines = (master.directory / "twistd.log").read_text().splitlines()
    running = [line for line in lines if "BuildMaster is running" in line]
    assert len(running) == 1 and running[0].startswith("20") and "[-]" in running[0]


def test_log_both_writes_nothing_twice_when_the_tac_logs_to_stdout(python, make):
    master = make.master(python)
    tac = master.directory / "buildbot.tac"
    text = tac.read_text().replace("FileLogObserver(logfile)", "FileLogObserver(__import__('sys').stdout)")
    tac.write_text(text)
    master.start("--log", "both").ready()
    assert master.stop() == 0
    assert master.log().count("BuildMaster is running") == 1


def test_log_both_makes_twistd_log_for_a_tac_without_observer(python, make):
    master = make.master(python)
    tac = master.directory / "buildbot.tac"
    tac.write_text(tac.read_text().replace("application.setComponent(", "str(").replace("ILogObserver, ", ""))
    master.start("--log", "both").ready()
    assert master.stop() == 0
    assert (master.directory / "twistd.log").read_text().count("BuildMaster is running") == 1


def test_failing_log_file_is_mentioned_once(python, make):
    master = make.master(python)
    tac = master.directory / "buildbot.tac"
    text = tac.read_text().replace("FileLogObserver(logfile)", "FileLogObserver(open('/dev/full', 'w', 1))")
    tac.write_text(text)
    master.start("--log", "both").ready()
    assert master.stop() == 0
    assert master.log().count("cannot write the log of buildbot.tac") == 1
    assert master.log().count("BuildMaster is running") == 1


def test_traceback_is_one_entry_of_level_error(python, make):
    master = make.master(python, extra="\ndef broken():\n    nonsense\nbroken()\n").start(journal=True)
    assert master.wait() == 78
    entries = [entry for entry in master.entries() if "Traceback (most recent" in entry["MESSAGE"]]
    assert len(entries) == 1
    assert "NameError: name 'nonsense' is not defined" in entries[0]["MESSAGE"]
    assert entries[0]["PRIORITY"] == "3"
    assert entries[0]["CODE_FUNC"] == "broken" and entries[0]["CODE_FILE"].endswith("master.cfg")
    errors = [entry["MESSAGE"] for entry in master.entries() if entry["PRIORITY"] == "3"]
    assert "Configuration Errors:" in errors and "BuildMaster startup failed" in errors
    assert errors[-1] == master.status()


def test_large_message_arrives_whole(python, make):
    size = 3000000
    master = make.master(python, extra="\nprint('x' * %d)\n" % size).start(journal=True).ready()
    wait_until(lambda: "x" * size in messages(master), "the large message")
    assert master.journal.from_files == 1
    master.stop()


def test_large_message_arrives_where_python_cannot_make_sealed_memory(python, make, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\ndel os.memfd_create\n")
    master = make.master(python, extra="\nprint('x' * 3000000)\n")
    master.start(journal=True, env={"PYTHONPATH": str(tmp_path)}).ready()
    wait_until(lambda: "x" * 3000000 in messages(master), "the large message")
    master.stop()


def test_journal_that_vanishes_leaves_lines_with_levels_on_stdout(python, make):
    master = make.master(python).start(journal=True).ready()
    master.journal.close()
    os.unlink(master.journal.path)
    master.signal(signal.SIGHUP)
    master.wait_for("READY=1", 2)
    assert "<6>beginning configuration update" in master.log()
    assert master.stop() == 0


def test_absent_journal_socket_leaves_lines_with_levels_on_stdout(python, make):
    master = make.master(python, extra="\nbroken\n")
    master.output.touch()
    found = os.stat(master.output)
    stream = "%d:%d" % (found.st_dev, found.st_ino)
    master.start(env={"JOURNAL_STREAM": stream}, JOURNAL_SOCKET="/nowhere/socket")
    assert master.wait() == 78
    lines = master.log().splitlines()
    assert "<3>BuildMaster startup failed" in lines and "<3>Traceback (most recent call last):" in lines
    # The interpreter's own words at its very end come without.
    assert all(line.startswith("<") for line in lines if "ResourceWarning" not in line)


def test_stdout_without_journal_has_plain_lines(python, make):
    master = make.master(python).start().ready()
    assert master.stop() == 0
    lines = master.log().splitlines()
    assert "BuildMaster is running" in lines
    assert not any(line.startswith(("<", "20")) for line in lines)


def test_who_forces_and_stops_builds_is_in_the_journal(python, make):
    master = make.master(python, command="sleep 60").start().ready()
    worker = make.worker(python, master).start()
    worker.attached()
    master.force()
    wait_until(lambda: master.build(1), master.describe)
    number = master.build(1)["buildid"]
    master.rest("builds/%d" % number, method="stop", reason="enough\n<3>of it")
    master.wait_log("audit: `stop` on `builds/%d` by `anonymous`, reason `enough <3>of it`" % number)
    assert "audit: `force` on `forceschedulers/force` for the builder `b1` by `anonymous`, reason `test`" in master.log()
    with contextlib.suppress(OSError):
        master.rest("forceschedulers/force", method="force", builderid="99", reason="")
    master.wait_log("audit: `force` on `forceschedulers/force` for the builder `99` by `anonymous`: failed: ")
