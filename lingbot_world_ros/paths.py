# SPDX-License-Identifier: Apache-2.0
"""Where the files that ship with the package are, in a checkout, a pip or a colcon install."""
from pathlib import Path

from lingbot_world_ros.errors import SpecError

PACKAGE = 'lingbot_world_ros'


def _roots():
    """Yield the folders that may hold ``config/`` and ``launch/``, the closest first."""
    package = Path(__file__).resolve().parent
    yield package.parent  # source checkout
    yield package  # data installed inside the Python package
    try:
        from ament_index_python.packages import get_package_share_directory
        yield Path(get_package_share_directory(PACKAGE))
    except (ImportError, LookupError):
        pass
    for parent in package.parents:  # <prefix>/lib/python3.x/site-packages -> <prefix>/share
        yield parent / 'share' / PACKAGE


def share_path(*parts: str) -> Path:
    """
    Find a shipped file or folder.

    :param parts: path below the share folder, for example ``('config', 'default.yaml')``
    :return: absolute path that exists
    :raises SpecError: if no install of the package holds it; names the folders searched
    """
    searched = []
    for root in _roots():
        path = root.joinpath(*parts)
        if path.exists():
            return path
        searched.append(str(root))
    raise SpecError(f'{"/".join(parts)} is missing from the installed package '
                    f'(searched {", ".join(dict.fromkeys(searched))}); install it again.')
