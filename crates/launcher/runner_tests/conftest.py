"""Fixtures: the interpreters under test, and instances that clean up after themselves."""

import os
import pathlib

import pytest

import instances

ROOT = pathlib.Path(__file__).resolve().parents[3]
# What these tests are called among the seconds that are kept.
PART = "runner test"


def interpreters():
    """The Pythons under test, from RUNNER_TEST_PYTHONS (separated by `:`) or from target/."""
    named = os.environ.get("RUNNER_TEST_PYTHONS")
    if named:
        return named.split(":")
    venvs = ROOT / "target" / "runner-venvs"
    return [str(venvs / version / "bin" / "python") for version in ("4.3.0", "3.11.9")]


def takes_its_turn(name):
    """Whether a test runs with the older Buildbots too: every second one, unless all are asked for."""
    return "RUNNER_TEST_EVERY" in os.environ or sum(name.encode()) % 2 == 0


def pytest_generate_tests(metafunc):
    if "python" in metafunc.fixturenames:
        pythons = interpreters()
        if not takes_its_turn(metafunc.function.__name__):
            del pythons[1:]
        names = [pathlib.Path(python).parents[1].name for python in pythons]
        metafunc.parametrize("python", pythons, ids=names)


@pytest.fixture
def both_pythons():
    """(older, newer) interpreter by Buildbot's version."""
    pythons = sorted(interpreters(), key=instances.buildbot_version)
    assert len(pythons) > 1, "this test needs two versions of Buildbot"
    return pythons[0], pythons[-1]


@pytest.fixture
def make(tmp_path, tmp_path_factory):
    """Creates instances: make(python, "master", ...); ends their processes after the test."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    maker = instances.Maker(tmp_path, shared)
    yield maker
    maker.end()


def seconds_of_last_run():
    """What each test took, by its id, as far as `cargo xtask test` knows."""
    seconds = {}
    for name in ("tests/seconds.tsv", "target/timings/last.tsv"):
        try:
            lines = (ROOT / name).read_text().splitlines()
        except OSError:
            continue
        rows = [line.split("\t") for line in lines]
        seconds.update({row[1]: float(row[2]) for row in rows if row[0] == PART})
    return seconds


def pytest_collection_modifyitems(items):
    """The longest first, so that none of them is waited for alone at the end."""
    seconds = seconds_of_last_run()
    items.sort(key=lambda item: -seconds.get(item.nodeid, 0))


def pytest_runtest_logreport(report):
    """Write the duration of each test where `cargo xtask test` reads it; only the leading process does this."""
    notes = os.environ.get("RUNNER_TEST_TIMINGS")
    if notes and report.when == "call" and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(notes, "a") as file:
            file.write("%s\t%s\t%.2f\n" % (PART, report.nodeid, report.duration))
