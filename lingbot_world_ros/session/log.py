# SPDX-License-Identifier: Apache-2.0
"""Where a session writes what a person should read. No ROS."""
from typing import Protocol


class Log(Protocol):
    """A ROS or a Python logger, or whatever else takes a line."""

    def info(self, message: str, /) -> object:
        """Tell how things go."""
        ...

    def warning(self, message: str, /) -> object:
        """Tell of what was dealt with."""
        ...

    def error(self, message: str, /) -> object:
        """Tell of what somebody has to look at."""
        ...
