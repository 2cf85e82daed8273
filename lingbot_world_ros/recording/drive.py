# SPDX-License-Identifier: Apache-2.0
"""
A recorded drive: what was commanded, and the recording as a world that another is compared with.

Axes: n frames, j joints, h w image. NumPy only.
"""
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Dict, NamedTuple, Optional, Tuple

from lingbot_world_ros.actions.layout import velocity_name
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, State, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import at_rest, check_actions, row_starts
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.recording.aligned import AlignedRecording
from lingbot_world_ros.recording.columns import commands_of
import numpy as np

ENGINE = 'recording'


class Commanded(NamedTuple):
    """What was in force from a frame on; joints by name: rad or m, or else rad/s or m/s."""

    twist: np.ndarray  # (3,) v_x, v_y [m/s], w_z [rad/s]
    positions: Dict[str, float]
    velocities: Dict[str, float]


@dataclass(frozen=True)
class RecordedDrive:
    """
    What a robot did in a recording, as far as a world can do the same.

    ``pieces`` are (first, end): a world that starts in the state of frame ``first`` can be
    compared with all frames before ``end``. Everything else has a row for each frame.
    """

    recording: AlignedRecording  # with commands
    spec: WorldSpec  # of the world
    pieces: Tuple[Tuple[int, int], ...]
    pose: np.ndarray  # (n, 3) x, y [m], yaw [rad] in the scene; 0 where nobody knows
    joints: np.ndarray  # (n, j) of the world's robot, rad or m

    def piece(self, seed: int) -> Tuple[int, int]:
        """Return the piece that a seed begins: 0 the first, and so on, then the first again."""
        return self.pieces[seed % len(self.pieces)]

    @property
    def messages_per_frame(self) -> int:
        """How many commands a frame takes: of the base, and of joints where they have any."""
        return 1 + bool(self._positions or self._velocities)

    def commanded(self, frame: int) -> Commanded:
        """Return the commands of a frame."""
        row = np.zeros(0) if self.recording.action is None else self.recording.action[frame]
        positions, velocities = ({joint: float(row[i]) for joint, i in columns.items()}
                                 for columns in (self._positions, self._velocities))
        return Commanded(self._twists[frame], positions, velocities)

    @cached_property
    def _twists(self) -> np.ndarray:
        return commands_of(self.recording)

    @cached_property
    def _velocities(self) -> Dict[str, int]:
        names = self.recording.action_names
        return {joint: names.index(velocity_name(joint)) for joint in self.spec.robot.joint_names
                if velocity_name(joint) in names}

    @cached_property
    def _positions(self) -> Dict[str, int]:
        names = self.recording.action_names
        return {joint: names.index(joint) for joint in self.spec.robot.joint_names
                if joint in names and not self._velocities}


class RecordedWorld(WorldModel):
    """
    A recording as a world: each step shows its next frame, whatever the actions are.

    A seed begins a piece. To put its robot elsewhere changes nothing: it was where it was.
    """

    def __init__(self, drive: RecordedDrive) -> None:
        """
        Take over a drive.

        :param drive: recorded
        """
        self._drive, self._frame, self._end = drive, 0, 0
        can = Capabilities(render=True, take_poses=drive.spec.can.take_poses,
                           know_truth=drive.spec.knows_base)
        self.spec = replace(drive.spec, engine=ENGINE, model=drive.recording.name,
                            has_depth=False, uncertainty_limit=None, can=can)

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Begin a piece; see ``WorldModel.reset``."""
        (begun,) = row_starts(scenes, seeds, rows, self.batch_size, self.spec)
        self._frame, self._end = self._drive.piece(begun.seed)
        return self._seen(render)

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Go on to the next frame; see ``WorldModel.step``."""
        check_actions(actions, self.batch_size, self.spec)
        if self._frame + 1 >= self._end:
            raise SpecError(f'the recording {self._drive.recording.name} has ended; a reset '
                            'begins it again.')
        self._frame += 1
        return self._seen(render)

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """Stay as it is; see ``WorldModel.observe``."""
        return self._seen(render)

    def render(self, state: State) -> Observation:
        """Show the frame it is at; see ``WorldModel.render``."""
        return self._seen(True)

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return nothing: what can be moved is not known; see ``WorldModel.object_names``."""
        return ()

    def snapshot(self, rows: Rows = None) -> Tuple[int, int]:
        """Return the frame, and where its piece ends."""
        return self._frame, self._end

    def restore(self, snapshot: Tuple[int, int], rows: Rows = None) -> None:
        """Go to the frame of a snapshot."""
        self._frame, self._end = snapshot

    def _seen(self, render: bool) -> Observation:
        drive, frame = self._drive, self._frame
        before, rate_hz = max(frame - 1, 0), self.spec.frame_rate_hz
        seen = at_rest(State(drive.pose[frame][None], drive.joints[frame][None],
                             np.zeros((1, 0, 3))))
        columns: Dict[str, Any] = {
            'base_twist': rate_hz * se2.relative(drive.pose[before], drive.pose[frame]),
            'joint_velocity': rate_hz * (drive.joints[frame] - drive.joints[before])}
        if render:
            columns['rgb'] = np.array(drive.recording.rgb[frame])
        return replace(seen, **{name: value[None, None] for name, value in columns.items()})
