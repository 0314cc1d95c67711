"""Fixtures: the interpreters under test, and instances that clean up after themselves."""

import os
import pathlib

import pytest

import instances

ROOT = pathlib.Path(__file__).resolve().parents[3]


def interpreters():
    """The Pythons under test, from RUNNER_TEST_PYTHONS (separated by `:`) or from target/."""
    named = os.environ.get("RUNNER_TEST_PYTHONS")
    if named:
        return named.split(":")
    venvs = ROOT / "target" / "runner-venvs"
    return [str(venvs / version / "bin" / "python") for version in ("4.3.0", "3.11.9")]


def pytest_generate_tests(metafunc):
    if "python" in metafunc.fixturenames:
        pythons = interpreters()
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
