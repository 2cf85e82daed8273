# SPDX-License-Identifier: Apache-2.0
"""Make the engine of a learned world, of whichever kind it is."""
from pathlib import Path
from typing import Any, Optional, Sequence

from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.worlds.learned import learned_folder, read_learned


def learned_world(world: str, batch_size: int = 1, threads: int = 1,
                  verify: bool = False, camera: Optional[MountedCamera] = None,
                  starts: Sequence[Any] = ()) -> WorldModel:
    """
    Load a learned world.

    :param world: its folder, or the name of one that ships
    :param batch_size: worlds side by side
    :param threads: CPU threads of the runtime
    :param verify: compare checksums first
    :param camera: to look at a place through, in place of the one that recorded
    :param starts: states that seeds begin in, one after the other, in place of its own
    :return: the engine, not yet reset
    :raises SpecError: no such world, or one that cannot be used
    """
    folder = learned_folder(world) or Path(world)
    kind = read_learned(folder, verify)['kind']
    if kind == 'mapped':
        from lingbot_world_ros.engines.learned.mapped import MappedWorld
        return MappedWorld(folder, batch_size, threads, camera=camera, starts=starts)
    from lingbot_world_ros.engines.learned.recurrent import RecurrentWorld
    return RecurrentWorld(folder, batch_size, threads, starts=starts)
