"""Validates the files named after Harbor's folder with Harbor's own validator."""

import sys
import types
from pathlib import Path

harbor, *files = sys.argv[1:]
# Only the models and the validator are wanted; the packages' own __init__ files import the rest.
for name in ["harbor", "harbor.models", "harbor.utils"]:
    package = types.ModuleType(name)
    package.__path__ = [str(Path(harbor, *name.split(".")))]
    sys.modules[name] = package

from harbor.utils.trajectory_validator import TrajectoryValidator  # noqa: E402

n_invalid = 0
for file in files:
    validator = TrajectoryValidator()
    if not validator.validate(file):
        n_invalid += 1
        print(f"{file}: not valid", *validator.errors, sep="\n  ")
print(f"{len(files)} files, {n_invalid} not valid")
sys.exit(1 if n_invalid or not files else 0)
