# SPDX-License-Identifier: Apache-2.0
"""
Where files are: those that ship with the package, and those that a user names by path or URI.

The package may be a checkout, a pip or a colcon install.
"""
import os
from pathlib import Path
import re
import stat
import sys
from typing import Iterator, Optional, Tuple, Union
from urllib.parse import unquote

from lingbot_world_ros.errors import quoted, shown, SpecError

PACKAGE = 'lingbot_world_ros'
SCHEMES = ('file', 'package')
URI = re.compile(r'(\w+)://([^/?#]*)((?:/[^?#]*)?)')
CACHE = '~/.cache/lingbot_world_ros'  # what is slow to make and can be made again
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


def _roots() -> Iterator[Path]:
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


def package_version() -> str:
    """Return the version that package.xml names."""
    from xml.etree import ElementTree
    return ElementTree.parse(share_path('package.xml')).getroot().findtext('version', '')


def package_share(package: str) -> Path:
    """
    Find the share folder of a ROS package; of this one also where no ROS is.

    :param package: its name
    :return: absolute path, links resolved
    :raises LookupError: it is not installed here, or this can be no name
    """
    if package == PACKAGE:
        return share_path('config').parent.resolve()
    if not re.fullmatch(r'[A-Za-z]\w*', package):
        raise LookupError(package)
    try:
        from ament_index_python.packages import get_package_share_directory
        return Path(get_package_share_directory(package)).resolve()
    except (ImportError, ValueError) as error:
        raise LookupError(package) from error


def is_uri(text: str) -> bool:
    """Tell a URI from a path or a name."""
    return '://' in text


def split_uri(uri: str) -> Optional[Tuple[str, str, str]]:
    """
    Take the URI of a file apart.

    :param uri: ``package://<package>/<path>`` or ``file:///<path>``
    :return: scheme, package (for ``file`` '' or a host) and path, percent signs left in; None if
        it is no such URI
    """
    match = URI.fullmatch(uri)
    return (match[1], match[2], match[3]) if match and match[1] in SCHEMES else None


def uri_path(uri: str) -> Path:
    """
    Say which path a URI stands for; whether it exists or leaves its package is not looked at.

    :param uri: as ``split_uri`` takes it
    :return: absolute path, links not resolved
    :raises LookupError: the package is not installed, or the file is on another machine
    :raises ValueError: it is no such URI, or not in UTF-8
    """
    scheme, authority, below = split_uri(uri) or ('', '', '')
    if not scheme:
        raise ValueError(uri)
    below = unquote(below, errors='strict')
    if scheme == 'package':
        return package_share(authority) / below.lstrip('/')
    if authority not in ('', 'localhost'):
        raise LookupError(authority)
    return Path(below)


def resolved(path: Union[str, Path], strict: bool = False) -> Path:
    """
    Make a path absolute and follow its links.

    :param path: ``~`` is the home folder
    :param strict: refuse one that does not exist
    :raises OSError: it cannot be one (too long, a null byte, a loop of links, no home)
    """
    if len(str(path)) > MAX_PATH:
        raise OSError(0, f'more than {MAX_PATH} characters')
    try:
        return Path(path).expanduser().resolve(strict)
    except (RuntimeError, ValueError) as error:
        raise OSError(0, type(error).__name__) from error


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
        path = resolved(_path_of(url, what) if is_uri(url) else url)
        found = path.is_file()
    except OSError as error:
        raise SpecError(f'{what}: {quoted(url)} is no usable path ({error.strerror}).') from error
    if not found:
        raise SpecError(f'{what}: {shown(path)} is not a file; give '
                        'package://<package>/<path>, file:///<path> or a path.')
    return path


def _path_of(url: str, what: str) -> Path:
    scheme, package, below = split_uri(url) or ('', '', '')
    if scheme == 'package':
        names = Path(unquote(below[1:])).parts
        if '..' in names or '/' in names:
            raise SpecError(f'{what}: {quoted(url)} leaves its package.')
    try:
        return uri_path(url)
    except UnicodeDecodeError as error:
        raise SpecError(f'{what}: {quoted(url)} is not UTF-8.') from error
    except (LookupError, ValueError) as error:
        if scheme == 'package':
            raise SpecError(f'{what}: ROS package {quoted(package)} is not installed here; source '
                            'its workspace.') from error
        raise SpecError(f'{what}: {quoted(url)} is neither package://<package>/<path> nor '
                        'file:///<path>.') from error


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
        return read_regular(path, limit_bytes).decode()
    except TooLarge as error:
        raise SpecError(f'{what}: {shown(path)} is larger than {limit_bytes} '
                        'bytes; that is no such file.') from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f'{what}: {shown(path)} cannot be read ('
                        f'{getattr(error, "strerror", None) or "not UTF-8"}).') from error


def write_whole(path: Path, text: str) -> None:
    """
    Write a file in one go: there is the old one or the new one, never a part.

    :param path: of the file, in a folder that is there
    :param text: its text
    :raises OSError: it cannot be written; the old one is still there
    """
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        partial.write_text(text, encoding='utf-8')
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class TooLarge(OSError):
    """A file has more bytes than will be read of one."""


def read_regular(path: Path, limit_bytes: int, num_bytes: Optional[int] = None) -> bytes:
    """
    Read a regular file of limited size; never wait for a pipe, never follow a new link.

    :param path: links resolved
    :param limit_bytes: largest size of a file that is read
    :param num_bytes: how much of it to read, None for all
    :raises TooLarge: as it says
    :raises OSError: not there, not readable, not a regular file
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(0, 'not a regular file')
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, 'rb') as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, 'not a regular file')
        if about.st_size > limit_bytes:
            raise TooLarge(0, f'larger than {limit_bytes} bytes')
        return file.read(num_bytes or limit_bytes)
