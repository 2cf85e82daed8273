# SPDX-License-Identifier: Apache-2.0
"""
Pictures that an engine imagines a world from: those that ship, and which files can be one.

The shipped ones are drawn by ``lingbot_world_ros.engines.reference.start_images``. No NumPy; no
image is decoded here.
"""
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Mapping, Tuple

from lingbot_world_ros.paths import read_regular, share_path
from lingbot_world_ros.plain_yaml import read_yaml

MAX_IMAGE_BYTES = 64 << 20
IMAGE_STARTS = {'.png': b'\x89PNG\r\n\x1a\n', '.jpg': b'\xff\xd8\xff', '.jpeg': b'\xff\xd8\xff'}
FOLDER = ('config', 'worlds', 'images')


@lru_cache(maxsize=1)
def start_images() -> Mapping[str, Tuple[str, str]]:
    """
    List the start images.

    :return: name of the scene -> absolute path of a JPEG, and what it shows in a sentence or two
    :raises SpecError: if the installed package lacks them
    """
    prompts = read_yaml(share_path(*FOLDER, 'prompts.yaml').read_text())
    assert isinstance(prompts, dict), 'it ships'
    return MappingProxyType({name: (str(share_path(*FOLDER, f'{name}.jpg')), str(prompt))
                             for name, prompt in prompts.items()})


def begins_as_image(path: Path) -> bool:
    """
    Look at how a file begins; what else is in it the engine will see.

    :param path: links resolved
    :return: whether it is a PNG or JPEG by name and content
    :raises OSError: it cannot be read, or is too large
    """
    wanted = IMAGE_STARTS.get(path.suffix.lower())
    return wanted is not None and read_regular(path, MAX_IMAGE_BYTES, len(wanted)) == wanted
