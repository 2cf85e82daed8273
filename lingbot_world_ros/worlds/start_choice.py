# SPDX-License-Identifier: Apache-2.0
"""How a world starts from something else than it says itself: a prompt or an image."""
from dataclasses import replace

from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.paths import find_file
from lingbot_world_ros.worlds.definition import (EngineTraits, expected_text, MAX_PROMPT,
                                                 WorldDefinition)
from lingbot_world_ros.worlds.start_images import begins_as_image


def check_prompt(spec: EngineTraits, text: str) -> None:
    """
    Look whether a text can be the prompt of a world.

    :param spec: of the engine
    :param text: the prompt; '' is none
    :raises SpecError: the engine takes none, it is too long or holds control characters
    """
    if not spec.takes_text:
        raise SpecError(f'prompt: refused, engine {spec.engine!r} takes no text; choose one of '
                        f'its scenes with the parameter scene: {", ".join(spec.scenes)}.')
    expected = expected_text(text, MAX_PROMPT)
    if expected:
        raise SpecError(f'prompt: refused, {quoted(text)} is not {expected}.')


def started_from(definition: WorldDefinition, spec: EngineTraits, *, start_image: str = '',
                 prompt: str = '') -> WorldDefinition:
    """
    Let a world start from something else than it says itself.

    :param definition: the world
    :param spec: of the engine
    :param start_image: path or URL of a PNG or JPEG, from whoever starts the engine and may read
        any file; '' leaves the images of the world
    :param prompt: '' leaves that of the world
    :return: the world
    :raises SpecError: the engine has no use for it, or it cannot be used
    """
    if prompt:
        check_prompt(spec, prompt)
        definition = replace(definition, prompt=prompt)
    if start_image:
        if not spec.takes_images:
            raise SpecError(f'start_image: engine {spec.engine!r} starts from its scenes '
                            f'({", ".join(spec.scenes)}), not from images; leave it empty.')
        definition = replace(definition, images=(find_start_image(start_image),), camera=None)
    return definition


def find_start_image(url: str) -> str:
    """
    Find the image to start from.

    :param url: path or URL of a PNG or JPEG
    :return: absolute path
    :raises SpecError: there is none
    """
    path = find_file(url, 'start_image')
    try:
        is_image = begins_as_image(path)
    except OSError as error:
        raise SpecError(f'start_image: {quoted(url)} cannot be read ({error.strerror}).'
                        ) from error
    if not is_image:
        raise SpecError(f'start_image: {quoted(url)} is no PNG or JPEG by name and content; '
                        'convert it.')
    return str(path)
