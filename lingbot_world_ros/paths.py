# SPDX-License-Identifier: Apache-2.0
"""Where the files that ship with the package are, in a checkout, a pip or a colcon install."""
import os
from pathlib import Path
import sys
from urllib.parse import unquote, urlsplit

from lingbot_world_ros.errors import quoted, shown, SpecError

PACKAGE = 'lingbot_world_ros'
MAX_PATH = 4096  # characters; to resolve more takes time that grows with their square


def pip_install(*packages: str) -> str:
    """
    Say what installs packages where this program looks for them, to be typed as it is.

    :param packages: names as pip has them
    :return: for example ``.venv/bin/pip install mujoco`` in a virtual environment that the shell
        has not activated
    """
    pip = 'pip'
    if sys.prefix != sys.base_prefix and os.environ.get('VIRTUAL_ENV') != sys.prefix:
        pip = os.path.relpath(os.path.join(sys.prefix, 'bin', pip))
    return ' '.join((pip, 'install', *packages))


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
    raise SpecError(f'{shown("/".join(parts))} is missing from the installed package '
                    f'(searched {", ".join(dict.fromkeys(searched))}); install it again.')


def find_file(url: str, what: str) -> Path:
    """
    Find a file that the user names.

    :param url: ``package://<package>/<path>``, ``file:///<path>`` or a path
    :param what: what it is for, begins the error
    :return: absolute path of a regular file
    :raises SpecError: no such package or file, or the URL leaves its package
    """
    if len(url) > MAX_PATH:
        raise SpecError(f'{what}: {quoted(url)} has more than {MAX_PATH} characters.')
    try:
        path = _path_of(url, what).expanduser().resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a null byte, a loop of links, no home
        if isinstance(error, SpecError):
            raise
        problem = getattr(error, 'strerror', None) or type(error).__name__
        raise SpecError(f'{what}: {quoted(url)} is no usable path ({problem}).') from error
    if not found:
        raise SpecError(f'{what}: {shown(path)} is not a file; give '
                        'package://<package>/<path>, file:///<path> or a path.')
    return path


def read_text(url: str, what: str, limit_bytes: int) -> str:
    """
    Read a text file that the user names.

    :param url: as ``find_file`` takes it
    :param what: what it is for, begins the error
    :param limit_bytes: largest size that is read
    :return: its text
    :raises SpecError: not found, too large or not UTF-8
    """
    path = find_file(url, what)
    try:
        with path.open('rb') as file:
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise SpecError(f'{what}: {shown(path)} is larger than {limit_bytes} '
                            'bytes; that is no such file.')
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f'{what}: {shown(path)} cannot be read ('
                        f'{getattr(error, "strerror", None) or "not UTF-8"}).') from error


def _path_of(url, what) -> Path:
    scheme, separator, rest = url.partition('://')
    if not separator:
        return Path(url)
    if scheme == 'file' and urlsplit(url).netloc in ('', 'localhost'):
        return Path(unquote(urlsplit(url).path))
    if scheme != 'package':
        raise SpecError(f'{what}: {quoted(url)} is neither package://<package>/<path> nor '
                        'file:///<path>.')
    package, _, below = rest.partition('/')
    parts = Path(unquote(below)).parts
    if '..' in parts or '/' in parts:
        raise SpecError(f'{what}: {quoted(url)} leaves its package.')
    if package == PACKAGE:
        return share_path(*parts)
    try:
        from ament_index_python.packages import get_package_share_directory
        return Path(get_package_share_directory(package), *parts)
    except (ImportError, LookupError, ValueError) as error:
        raise SpecError(f'{what}: ROS package {quoted(package)} is not installed here; source its '
                        'workspace.') from error
