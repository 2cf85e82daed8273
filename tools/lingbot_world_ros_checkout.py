# SPDX-License-Identifier: Apache-2.0
"""
Let the virtual environment import this checkout together with its generated messages.

``lingbot_world_ros`` is two folders: the sources, and what rosidl generated beside this file.
Python stops at the first folder it meets, so this finder, loaded by a ``.pth`` file, names both.
``SOURCE`` is filled in by ``tools/install.py``, which copies this file into the virtual
environment; the environment variable ``LINGBOT_WORLD_ROS_SOURCE`` names other sources instead,
for what compares two checkouts. Robot workspaces and plain pip installs hold everything in one
folder and need none of it.
"""
import importlib.util
import os
from pathlib import Path
import sys

PACKAGE = 'lingbot_world_ros'
SOURCE = Path('@SOURCE@')
if os.environ.get('LINGBOT_WORLD_ROS_SOURCE'):
    SOURCE = Path(os.environ['LINGBOT_WORLD_ROS_SOURCE'])
GENERATED = Path(__file__).parent / PACKAGE


class CheckoutFinder:
    """Answer for the top package only; its modules are found through the two folders it names."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Return where ``lingbot_world_ros`` is, sources first; None for any other name."""
        if name != PACKAGE or not SOURCE.is_dir():
            return None
        return importlib.util.spec_from_file_location(
            name, SOURCE / '__init__.py', submodule_search_locations=[str(SOURCE), str(GENERATED)])


sys.meta_path.insert(0, CheckoutFinder)
os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)  # the wheels' ament index, as if sourced
