# SPDX-License-Identifier: Apache-2.0
"""
The pictures that ship with the package, for engines that imagine a world from one.

Drawn by ``lingbot_world_ros.engines.reference.start_images``; no NumPy and no image is read here.
"""
from functools import lru_cache
from types import MappingProxyType
from typing import Mapping, Tuple

from lingbot_world_ros.paths import share_path
from lingbot_world_ros.plain_yaml import load_plain_yaml

FOLDER = ('config', 'worlds', 'images')


@lru_cache(maxsize=1)
def start_images() -> Mapping[str, Tuple[str, str]]:
    """
    List the start images.

    :return: name of the scene -> absolute path of a JPEG, and what it shows in a sentence or two
    :raises SpecError: if the installed package lacks them
    """
    prompts = load_plain_yaml(share_path(*FOLDER, 'prompts.yaml').read_text())
    return MappingProxyType({name: (str(share_path(*FOLDER, f'{name}.jpg')), prompt)
                             for name, prompt in prompts.items()})
