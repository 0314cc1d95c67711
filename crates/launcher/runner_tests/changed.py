"""Starts the runner with other constants: changed.py '{"NAME": VALUE}' ARGUMENT..."""

import importlib.util
import json
import pathlib
import sys

path = pathlib.Path(__file__).resolve().parents[1] / "runner.py"
spec = importlib.util.spec_from_file_location("runner", path)
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
for name, value in json.loads(sys.argv[1]).items():
    assert hasattr(runner, name)
    setattr(runner, name, value)
del sys.path[0]
sys.exit(runner.main(sys.argv[2:]))
