# SPDX-License-Identifier: Apache-2.0
"""A ROS domain of its own for whatever runs a ROS graph to test it."""
import fcntl
from pathlib import Path
import tempfile


class Domain:
    """Claim a ROS domain that no other test run on the machine uses; a context manager."""

    def __enter__(self):
        for number in range(20, 100):
            path = Path(tempfile.gettempdir()) / f'lingbot_world_ros_test_domain_{number}'
            self._file = path.open('w')
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number
            except OSError:
                self._file.close()
        raise RuntimeError('no free ROS domain')

    def __exit__(self, *_):
        self._file.close()
