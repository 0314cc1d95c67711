"""Starts the runner with other constants: changed.py '{"NAME": VALUE}' ARGUMENT..."""

import importlib
import json
import pathlib
import pkgutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import runner as door

runner = door.package()
package = sys.modules[door.PACKAGE]
names = [module.name for module in pkgutil.iter_modules(package.__path__)]
modules = [importlib.import_module("%s.%s" % (door.PACKAGE, name)) for name in names]
for name, value in json.loads(sys.argv[1]).items():
    owners = [module for module in modules if hasattr(module, name)]
    assert owners
    for module in owners:
        setattr(module, name, value)
del sys.path[0]
sys.exit(runner.main(sys.argv[2:]))
