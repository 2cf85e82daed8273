# SPDX-License-Identifier: Apache-2.0
"""What a test needs beyond what the package depends on; where that is missing, it is skipped."""
from importlib.util import find_spec

from lingbot_world_ros.engines.registry import engine_entry
import pytest

DRAWS_WITH = {'reference': 'cv2'}  # of the package's own dependencies the one that may be missing


def need_engine(name):
    """
    Skip a test, or a file, where an engine cannot be made.

    Packages are looked for and not imported: MuJoCo goes by what its engine sets before.
    """
    missing = engine_entry(name).missing()
    if name in DRAWS_WITH and find_spec(DRAWS_WITH[name]) is None:
        missing.append(DRAWS_WITH[name])
    if missing:
        pytest.skip(f'engine {name} needs {", ".join(missing)}', allow_module_level=True)
