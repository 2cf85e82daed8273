# SPDX-License-Identifier: Apache-2.0
"""
Worlds that were learned from recordings: one folder each, ``world.yaml`` says what is in it.

Such a folder is a world's name for whoever loads one: by its path, by a file:// URI, or, of those
that ship, by its name.
"""
import hashlib
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.paths import is_uri, uri_path
import yaml

FORMAT = 1
FILE = 'world.yaml'
ROBOT = 'robot.yaml'
MEAN_PICTURE = 'mean.png'  # of what it was trained on
KINDS = ('mapped', 'recurrent')
SHIPPED = Path(__file__).parent / 'learned_worlds'
MAX_BYTES = 1 << 20
REMEDY = 'Learn it again, or restore the folder.'


def learned_names() -> Tuple[str, ...]:
    """Return the names of the learned worlds that ship."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f'*/{FILE}')))


def learned_folder(world: str) -> Optional[Path]:
    """
    Look whether a world is a learned one.

    :param world: what the parameter ``world`` says: a name, a path or a file:// URI
    :return: its folder, None where it is something else
    """
    if not world:
        return None
    try:
        if is_uri(world):
            path = uri_path(world)
        elif world in learned_names():
            path = SHIPPED / world
        else:
            path = Path(world).expanduser()
        if path.name == FILE:
            path = path.parent
        return path.resolve() if (path / FILE).is_file() else None
    except (OSError, ValueError, LookupError, RuntimeError):  # of a home that is not there, too
        return None


def read_learned(folder: Path, verify: bool = False) -> Dict[str, Any]:
    """
    Read what a folder holds, and look whether its files are there.

    :param folder: of a learned world
    :param verify: also compare checksums
    :return: the content of ``world.yaml``
    :raises SpecError: it is none, damaged, or of another version
    """
    path = Path(folder) / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError('it is too large')
        about = yaml.safe_load(path.read_text())
        version, kind, sums = about['format'], about['kind'], dict(about['sha256'])
    except FileNotFoundError:
        raise SpecError(f'{shown(folder)} is no learned world: {FILE} is missing. Give the folder '
                        'that "lingbot-world learn" wrote.') from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        told = ' '.join(str(error).split())
        raise SpecError(f'{shown(path)} cannot be read ({told}). {REMEDY}') from None
    if version != FORMAT or kind not in KINDS:
        raise SpecError(f'{shown(path)} has format {shown(version)}, kind {shown(kind)}; expected '
                        f'format {FORMAT} and one of {", ".join(KINDS)}. {REMEDY}')
    for name, expected in sums.items():
        file = Path(folder) / str(name)
        if file.parent != Path(folder) or not file.is_file():
            raise SpecError(f'{shown(file)} is missing. {REMEDY}')
        if verify and digest(file) != expected:
            raise SpecError(f'{shown(file)} is damaged: its checksum does not match. {REMEDY}')
    return about


def model_name(about: Mapping[str, Any], starts: Sequence[Any] = ()) -> str:
    """
    Say what a world calls itself, so that nobody takes a run of it for another one.

    :param about: content of ``world.yaml``
    :param starts: states that it begins in, if not in its own
    :return: the name of its model
    """
    return f'{about["name"]}, begun by a recording' if starts else str(about['name'])


def picture_size(about: Mapping[str, Any]) -> Tuple[int, int]:
    """
    Say how large the pictures of a world are.

    :param about: content of ``world.yaml``
    :return: width, height
    :raises SpecError: it does not say
    """
    try:
        told = about.get('camera') or about  # a recurrent world knows no camera
        return int(told['width_px']), int(told['height_px'])
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f'{FILE} does not say how large pictures are ({error!r}). '
                        f'{REMEDY}') from error


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
