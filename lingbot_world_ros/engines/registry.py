# SPDX-License-Identifier: Apache-2.0
"""Which engines there are, and how one is made by name."""
from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.paths import pip_install

ENGINES = {'room': 'openvino', 'reference': 'mujoco', 'lingbot_world': 'torch'}  # and packages


def make_world(engine: str, batch_size: int = 1, **options) -> WorldModel:
    """
    Build an engine by name.

    :param engine: ``'room'`` (the embedded world), ``'reference'`` (MuJoCo) or
        ``'lingbot_world'``
    :param batch_size: worlds side by side
    :param options: what the engine's constructor takes beyond that
    :return: the engine, not yet reset
    :raises SpecError: unknown engine, or its Python packages are not installed
    """
    try:
        if engine == 'room':
            from lingbot_world_ros.engines.room.engine import RoomWorld
            return RoomWorld(batch_size=batch_size, **options)
        if engine == 'reference':
            from lingbot_world_ros.engines.reference.engine import ReferenceWorld
            return ReferenceWorld(batch_size=batch_size, **options)
        if engine == 'lingbot_world':
            from lingbot_world_ros.engines.lingbot_world.engine import LingBotWorld
            return LingBotWorld(batch_size=batch_size, **options)
    except ImportError as error:
        package = ENGINES[engine]
        raise SpecError(f'Engine {engine!r} needs the Python package {error.name!r}: '
                        f'{pip_install(error.name or package)}.') from error
    raise unknown_name('engine', engine, ENGINES)
