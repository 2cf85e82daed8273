# SPDX-License-Identifier: Apache-2.0
"""
A learned place as a ``WorldModel``: explicit state, motion from commands, the map drawn.

Poses are integrated in float64. What stands in the place stays where it was. Axes as in
``engines/interface.py``.
"""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.actions.layout import (joint_velocities_of, robot_action_layout, twists_of)
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, State, WorldModel, WorldSpec)
from lingbot_world_ros.engines.rows import (check_actions, check_state, chosen_rows, row_starts,
                                            rows_for, side_by_side, with_rows)
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2, se3
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.models.mapped.runtime import (floor_plan_of, load_place, PlaceRenderer,
                                                     read_motion, with_body)
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.learned import model_name, read_learned, ROBOT
import numpy as np

CAN = Capabilities(render=True)
TOUCH_M = 0.005  # nearer than its radius and so much, the base touches
SLIDES = 4  # times that a base is moved out of what it ran into, per frame


@dataclass(frozen=True)
class _Row:
    """One world of the batch; never changed, a step makes another one."""

    pose: np.ndarray  # (3,)
    twist: np.ndarray  # (3,) as driven
    joints: np.ndarray  # (j,)
    joint_speed: np.ndarray  # (j,)
    held: Tuple[np.ndarray, ...]  # commands that have not arrived yet, the next one first
    variance: np.ndarray  # (2 + j,) of position per axis [m^2], yaw [rad^2], joints
    contact: float = 0.0


class MappedWorld(WorldModel):
    """
    A batch of one place that was learned from a recording.

    State: base pose and twist, joints, contact, all predicted; uncertainty of the pose.
    Observation: rgb, depth, contact, covariance of the pose, expected image error.
    """

    def __init__(self, folder: Path, batch_size: int = 1, threads: int = 1,
                 verify: bool = False, camera: Optional[MountedCamera] = None,
                 starts: Sequence[_Row] = ()) -> None:
        """
        Load a world.

        :param folder: with ``world.yaml`` and the files it names
        :param batch_size: worlds side by side
        :param threads: CPU threads of the runtime
        :param verify: compare checksums first
        :param camera: to look through, in place of the one that recorded
        :param starts: rows of snapshots that seeds begin in, one after the other, in place of
            where the robot once was
        :raises SpecError: bad batch size; a folder that cannot be used
        """
        if batch_size < 1:
            raise SpecError(f'batch_size={batch_size} must be at least 1.')
        about = read_learned(folder, verify)
        self.about, self.batch_size, self._starts = about, batch_size, starts
        self.camera = camera or camera_of(about)
        robot = load_robot(str(Path(folder) / ROBOT)).with_camera(self.camera)
        self._place, tensors = load_place(folder)
        self._draw = PlaceRenderer(folder, tensors, self.camera, threads)
        self.motion = read_motion(about['motion'])
        self._joint_follow = np.array(about['joint_follow'], np.float64)
        self._calibration = about['uncertainty']
        self.spec = WorldSpec(
            engine='learned', model=model_name(about, starts), scenes=(about['name'],),
            robot=robot, action=robot_action_layout(robot), frame_rate_hz=float(about['rate_hz']),
            has_depth=True, predicted_states=('base', 'joints', 'contact'), can=CAN,
            uncertainty_limit=self._calibration['calibrated_to'],
            floor_plan=floor_plan_of(self._place))
        self._low, self._high = robot.joint_array('low'), robot.joint_array('high')
        self._rows: List[_Row] = []  # none before the first reset

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start rows where the robot once was; see ``WorldModel.reset``."""
        starts = row_starts(scenes, seeds, rows, self.batch_size, self.spec)
        fresh = {s.row: self._first(s.seed) for s in starts}
        self._rows = with_rows(self._rows, fresh, self.batch_size)
        return side_by_side([self._seen(row, render) for row in fresh.values()])

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one frame; see ``WorldModel.step``."""
        check_actions(actions, self.batch_size, self.spec)
        names = self.spec.action.names
        twists = twists_of(actions[:, 0], names)
        joints = joint_velocities_of(actions[:, 0], names, self.spec.robot.joint_names)
        moved = [self._moved(row, twist, speed)
                 for row, twist, speed in zip(self._rows, twists, joints)]
        seen = side_by_side([self._seen(row, render) for row in moved])
        self._rows = moved
        return seen

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return nothing: what can be moved is not known; see ``WorldModel.object_names``."""
        return ()

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """
        Replace imagined state by observed state: pose, twist, joints of the last frame.

        :param observation: what was measured; images are not used
        :param render: False skips rgb and depth
        :return: the world as it is now, t = 1
        """
        seen = State.of(observation)
        check_state(seen, self.batch_size, 0, self.spec)
        self._rows = [replace(
            self._at_rest(seen.base_pose[i], seen.joint_position[i]), held=row.held,
            twist=np.array(observation.base_twist[i, -1], np.float64),
            joint_speed=np.array(observation.joint_velocity[i, -1], np.float64))
            for i, row in enumerate(self._rows)]
        return side_by_side([self._seen(row, render) for row in self._rows])

    def render(self, state: State) -> Observation:
        """Draw a state that came from elsewhere; see ``WorldModel.render``."""
        check_state(state, self.batch_size, 0, self.spec)
        return side_by_side([self._seen(self._at_rest(state.base_pose[i],
                                                      state.joint_position[i]), True)
                             for i in range(self.batch_size)])

    def snapshot(self, rows: Rows = None) -> Tuple[_Row, ...]:
        """Return the state of rows."""
        return tuple(self._rows[i] for i in chosen_rows(rows, self.batch_size))

    def restore(self, snapshot: Tuple[_Row, ...], rows: Rows = None) -> None:
        """Put rows into the state of a snapshot."""
        taken = rows_for(snapshot, rows, self.batch_size)
        self._rows = with_rows(self._rows, taken, self.batch_size)

    def _first(self, seed: int) -> _Row:
        if self._starts:
            return self._starts[seed % len(self._starts)]
        index = int(np.random.default_rng([abs(seed), int(seed < 0)]).integers(
            len(self._place.starts))) if seed else 0
        return self._at_rest(self._place.starts[index], self._place.start_joints[index])

    def _at_rest(self, pose: np.ndarray, joints: np.ndarray) -> _Row:
        """State of a robot at rest, known exactly."""
        j = len(self.spec.joints)
        held = (np.zeros(3),) * self.motion.delay_frames
        return _Row(np.array(pose, np.float64), np.zeros(3), np.array(joints, np.float64),
                    np.zeros(j), held, np.zeros(2 + j))

    def _moved(self, row: _Row, command: np.ndarray, joint_command: np.ndarray) -> _Row:
        """Return a row one frame later."""
        dt_s = self.spec.step_dt_s
        held = (*row.held, np.asarray(command, np.float64))
        twist = self.motion.next_twist(row.twist[None], held[0][None])[0]
        step = se2.exponential(twist, dt_s)
        wanted = se2.compose(row.pose, step)
        pose, contact = self._kept_out(wanted)
        if contact:
            driven = se2.relative(row.pose, pose)
            twist = np.array([driven[0] / dt_s, driven[1] / dt_s, twist[2]])
        speed = row.joint_speed + self._joint_follow * (joint_command - row.joint_speed)
        joints = np.clip(row.joints + speed * dt_s, self._low, self._high)
        speed = np.where(np.isclose(joints, row.joints + speed * dt_s), speed, 0.0)
        variance = row.variance.copy()
        moves = bool(np.abs(twist).max() > 1e-4)
        # An error in yaw turns into one of position while the base travels.
        variance[0] += variance[1] * float(step[0] ** 2 + step[1] ** 2)
        variance[:2] += np.array(self.motion.growth) * moves * (100.0 if contact else 1.0)
        return _Row(pose, twist, joints, speed, held[1:], variance, float(contact))

    def _kept_out(self, pose: np.ndarray) -> Tuple[np.ndarray, bool]:
        """Move a base out of what it ran into, along the shortest way."""
        radius, pose = self.spec.robot.footprint.radius_m, pose.copy()
        touches = False
        for _ in range(SLIDES):
            clearance, away = self._place.clearance_at(pose[None, :2])
            if clearance[0] >= radius:
                break
            touches = True
            pose[:2] += away[0] * (radius - clearance[0])
        if not touches:
            touches = bool(clearance[0] < radius + TOUCH_M)
        return pose, touches

    def _seen(self, row: _Row, render: bool) -> Observation:
        """Draw a row and put it into the interface's terms; nothing of it is shared."""
        drawn: Dict[str, Any] = {}
        if render:
            T = se3.pose_from_se2(row.pose) @ self.camera.T_base_optical
            drawn = self._draw(T[None], row.joints[None], row.variance[None])
            error, calibrated = self._uncertainty(drawn)
            body = self._place.body
            if body is not None and body.shape[:2] == drawn['rgb'].shape[1:3]:
                drawn['rgb'] = with_body(drawn['rgb'], body)
        covariance = np.diag([row.variance[0], row.variance[0], row.variance[1]])
        columns: Dict[str, Any] = {
            'rgb': drawn.get('rgb'), 'base_pose': row.pose[None].copy(),
            'base_twist': row.twist[None].copy(), 'joint_position': row.joints[None].copy(),
            'joint_velocity': row.joint_speed[None].copy(),
            'contact': np.array([row.contact], np.float32),
            'object_pose': np.zeros((1, 0, 3)), 'base_pose_cov': covariance[None]}
        if render:
            columns.update(depth_m=drawn['depth'], uncertainty=error, calibrated=calibrated)
        framed: Dict[str, Any] = {k: None if v is None else v[:, None]
                                  for k, v in columns.items()}
        extra = {'sensitivity': drawn['sensitivity'], 'unseen': drawn['unseen']} if render else {}
        return Observation(**framed, extra=extra)

    def _uncertainty(self, drawn: Dict[str, np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
        """Expected RMS error of the image, 0..1, and whether it is in the calibrated range."""
        return image_error(self._calibration, drawn['sensitivity'], drawn['unseen'])


def image_error(calibration: Dict[str, Any], sensitivity: np.ndarray,
                unseen: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """
    Say how wrong a picture is expected to be.

    :param calibration: ``uncertainty`` of ``world.yaml``
    :param sensitivity: (b, 3) by variances of position, yaw, joints
    :param unseen: (b,) share of the picture that nobody has looked at
    :return: (b,) float32 expected RMS error, 0 to 1, and whether it is in the calibrated range
    """
    drift = sensitivity @ np.array(calibration['gain'], np.float32)
    ceiling = calibration['ceiling'] ** 2
    square = (calibration['floor'] ** 2 + drift * ceiling / (drift + ceiling)
              + unseen * ceiling)
    error = np.sqrt(np.minimum(square, ceiling)).astype(np.float32)
    return error, error <= calibration['calibrated_to']


def camera_of(about: Dict[str, Any]) -> MountedCamera:
    """
    Read the camera that recorded.

    :param about: content of ``world.yaml``
    :return: the camera
    :raises SpecError: it is not described
    """
    try:
        values: Dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                  for name, value in about['camera'].items()}
        return MountedCamera(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecError(f'camera of world.yaml cannot be read ({error!r}).') from error
