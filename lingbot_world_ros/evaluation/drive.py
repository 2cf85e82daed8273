# SPDX-License-Identifier: Apache-2.0
"""A recording that a learned world repeats: where it was in the place, and what starts there."""
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Sequence, Tuple, Union

from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.engines.registry import LEARNED, make_world
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.evaluation.mapped_world import MappedImagining
from lingbot_world_ros.evaluation.recurrent_world import RecurrentWorld
from lingbot_world_ros.models.recurrent.runtime import RecurrentModel
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.recording.drive import RecordedDrive
from lingbot_world_ros.worlds.learned import read_learned
import numpy as np

Say = Callable[[str, int, int], None]


class OpenedDrive(NamedTuple):
    """A drive, and what makes the world that begins where its pieces do, by seed."""

    drive: RecordedDrive
    make_world: Callable[[], WorldModel]


def open_drive(folder: Path, recording: AlignedRecording,
               say: Say = lambda what, done, total: None) -> OpenedDrive:
    """
    Let a learned world begin where a recording does.

    A place begins where the recording was found in it, in the motion it was in there; a world
    without poses after it was shown the true pictures before.

    :param folder: of the world
    :param recording: aligned at the world's rate
    :param say: called with what is done, and how much of it
    :return: the drive, and the world
    :raises SpecError: the world cannot be used, or the recording does not fit it
    """
    pieces: Sequence[Tuple[int, int]] = recording.segments
    world: Union[MappedImagining, RecurrentWorld]
    options: Dict[str, Any] = {}
    pose, joints = np.zeros((recording.num_frames, 3)), np.zeros((recording.num_frames, 0))
    if read_learned(folder)['kind'] == 'mapped':
        world = MappedImagining(folder, recording, say)
        pieces, pose, joints = world.pieces, world.pose, world.joints
        options['camera'] = world.spec.camera
    else:
        world = RecurrentWorld(RecurrentModel(folder))
    pieces = [(a, b) for a, b in pieces if b - a > world.num_context]
    if not pieces:
        raise SpecError(f'{recording.name} has no piece of more than {world.num_context} frames '
                        'without a gap.')
    options['starts'] = world.starts(recording, np.array([a for a, _ in pieces]))
    make = partial(make_world, LEARNED.name, world=str(folder), **options)
    last_seen = tuple((a + world.num_context - 1, b) for a, b in pieces)
    return OpenedDrive(RecordedDrive(recording, make().spec, last_seen, pose, joints), make)
