# SPDX-License-Identifier: Apache-2.0
"""
The newest command of every source: checked when it arrives, read when a step is encoded.

No ROS and no clock: the caller hands in ``now_ns`` (steady wall time, for timeouts) and
``sim_ns`` (sim time, for trajectories). Not thread safe; one thread owns a buffer.
"""
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from lingbot_world_ros.actions.trajectory import plan_trajectory, Trajectory
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.worlds.world_model import ActionLayout
import numpy as np

MESSAGE_NS = 5_000_000_000  # how long the newest problem is told
HOLD, VELOCITY, POSITION, TRAJECTORY = range(4)  # what drives a joint
LINEAR, ANGULAR = 'base.linear.x', 'base.angular.z'
NOT_DRIVEN = ('linear.y', 'linear.z', 'angular.x', 'angular.y')  # of a twist, by this base


def velocity_name(joint: str) -> str:
    """Return the name of the action column that moves a joint."""
    return f'{joint}.velocity'


@dataclass(frozen=True)
class CommandSpec:
    """
    What can be commanded: action layout, joints with position limits, and the timeout.

    ``joint_low`` and ``joint_high`` are (J,) in rad or m; ``timeout_s`` is wall time after which
    a velocity command that is not repeated becomes zero.
    """

    action: ActionLayout
    joint_names: Tuple[str, ...]
    joint_low: Tuple[float, ...]
    joint_high: Tuple[float, ...]
    timeout_s: float

    def __post_init__(self):
        """Refuse layouts that cannot carry the commands."""
        wanted = (LINEAR, ANGULAR, *map(velocity_name, self.joint_names))
        missing = sorted(set(wanted) - set(self.action.names))
        if missing:
            raise SpecError(f'The action layout has no column {", ".join(missing)}; the world '
                            f'offers {", ".join(self.action.names)}.')
        if not self.timeout_s > 0.0:
            raise SpecError(f'cmd_timeout_s={self.timeout_s} must be more than 0 seconds.')

    def columns(self, names) -> list:
        """Return the action column of each name."""
        return [self.action.names.index(name) for name in names]

    @property
    def joint_speed(self) -> np.ndarray:
        """Largest speed of each joint, (J,) float64, rad/s or m/s."""
        return self.action.high[self.columns(map(velocity_name, self.joint_names))].astype(float)


@dataclass(frozen=True)
class Targets:
    """
    What one step is asked to do; t frames, J joints.

    ``twist`` (2,) float64: v_x [m/s], w_z [rad/s], in base_link, constant over the step.
    ``joint_position`` (t, J): rad or m, NaN where no position was asked for.
    ``joint_velocity`` (t, J): rad/s or m/s, zero where a position was asked for.
    """

    twist: np.ndarray
    joint_position: np.ndarray
    joint_velocity: np.ndarray


class CommandBuffer:
    """
    Hold the newest command per source and count what was done to commands.

    A refused command changes nothing. Velocities (base and joints) fall to zero after
    ``timeout_s``; a position or a trajectory is finished and then held, like a servo does. The
    newest message wins joint by joint; joints it does not name go on as they were.
    """

    def __init__(self, spec: CommandSpec):
        self.spec = spec
        self.accepted = self.rejected = self.clipped = self.timed_out = 0
        self.message = ''
        self._message_since_ns: Optional[int] = None
        num_joints = len(spec.joint_names)
        self._timeout_ns = round(spec.timeout_s * 1e9)
        self._low, self._high = np.array(spec.joint_low), np.array(spec.joint_high)
        self._speed = spec.joint_speed
        base = spec.columns((LINEAR, ANGULAR))
        self._twist_low, self._twist_high = spec.action.low[base], spec.action.high[base]
        self._twist, self._twist_ns = np.zeros(2), 0
        self._mode = np.zeros(num_joints, dtype=int)
        self._velocity, self._velocity_ns = np.zeros(num_joints), np.zeros(num_joints, np.int64)
        self._position = np.full(num_joints, np.nan)
        self._trajectory: Optional[Trajectory] = None

    def clear(self) -> None:
        """Forget every command (after a reset); the counters go on."""
        self._twist[:] = 0.0
        self._mode[:] = HOLD
        self._trajectory = None

    def twist(self, linear: Sequence[float], angular: Sequence[float], now_ns: int, *,
              topic: str = 'cmd_vel') -> None:
        """
        Take over a base velocity.

        :param linear: x, y, z [m/s] in base_link; the base follows x
        :param angular: x, y, z [rad/s]; the base follows z
        :param now_ns: steady wall time of arrival
        :param topic: where it came from, for the message
        :raises SpecError: NaN or infinite; nothing changed
        """
        values = np.array([*linear, *angular], dtype=np.float64)
        self._refuse_unless(np.isfinite(values).all(), topic,
                            f'linear {list(linear)}, angular {list(angular)} is not finite; '
                            'send finite m/s and rad/s')
        wanted = values[[0, 5]]
        self._twist = np.clip(wanted, self._twist_low, self._twist_high)
        self._twist_ns = now_ns
        changes = [f'{name} {value:g} ignored'
                   for name, value in zip(NOT_DRIVEN, values[1:5]) if value]
        if (self._twist != wanted).any():
            changes.append(f'linear.x {wanted[0]:g} m/s, angular.z {wanted[1]:g} rad/s limited to '
                           f'{self._twist[0]:g} m/s, {self._twist[1]:g} rad/s')
        self._accept(changes, topic,
                     f'{"; ".join(changes)}; the base takes linear.x '
                     f'{self._twist_low[0]:g} to {self._twist_high[0]:g} and angular.z '
                     f'{self._twist_low[1]:g} to {self._twist_high[1]:g}, all else must be 0')

    def joints(self, names: Sequence[str], position: Sequence[float],
               velocity: Sequence[float], now_ns: int, *,
               topic: str = 'joint_command') -> None:
        """
        Take over positions or velocities of named joints (Isaac Sim's convention).

        With both given the position is the goal and the velocity limits the way there.

        :param names: any subset of the joints, in any order
        :param position: rad or m, one per name, or empty
        :param velocity: rad/s or m/s, one per name, or empty
        :param now_ns: steady wall time of arrival
        :param topic: where it came from, for the message
        :raises SpecError: unknown or repeated name, wrong length, not finite; nothing changed
        """
        columns = self._joint_columns(names, topic)
        position, velocity = (np.asarray(v, dtype=np.float64) for v in (position, velocity))
        self._refuse_unless(position.size or velocity.size, topic,
                            'neither position nor velocity is filled in (effort is not offered); '
                            'fill one, with one value per name')
        for what, values in (('position', position), ('velocity', velocity)):
            self._refuse_unless(values.size in (0, len(columns)), topic,
                                f'{what} has {values.size} values for {len(columns)} names; '
                                'send one per name or none')
            self._refuse_unless(np.isfinite(values).all(), topic,
                                f'{what} {values.tolist()} is not finite')
        if position.size:
            self._set_positions(columns, position, topic)
        else:
            self._set_velocities(columns, velocity, now_ns, topic)

    def joint_array(self, values: Sequence[float], interface: str, now_ns: int, *,
                    topic: str = 'arm_controller/commands') -> None:
        """
        Take over one value per joint in WorldSpec order (forward_command_controller).

        :param values: rad or m for ``'position'``, rad/s or m/s for ``'velocity'``
        :param interface: ``'position'`` or ``'velocity'``
        :param now_ns: steady wall time of arrival
        :param topic: where it came from, for the message
        :raises SpecError: wrong length or not finite; nothing changed
        """
        names = self.spec.joint_names
        self._refuse_unless(len(values) == len(names), topic,
                            f'{len(values)} values for {len(names)} joints; send one for each of '
                            f'{", ".join(names)}, in this order')
        empty = ()
        if interface == 'position':
            self.joints(names, values, empty, now_ns, topic=topic)
        else:
            self.joints(names, empty, values, now_ns, topic=topic)

    def trajectory(self, names: Sequence[str], times_s: Sequence[float], positions, *,
                   start_ns: int, sim_ns: int, current: Sequence[float],
                   topic: str = 'arm_controller/joint_trajectory') -> None:
        """
        Take over a joint trajectory; the one before it is dropped for the joints it names.

        :param names: any subset of the joints
        :param times_s: time_from_start of each point, seconds of sim time
        :param positions: one list per point, one value per name, rad or m
        :param start_ns: sim time the times count from; 0 means now
        :param sim_ns: sim time now
        :param current: (J,) joint positions now, WorldSpec order
        :param topic: where it came from, for the message
        :raises SpecError: unknown joint, wrong length, not finite, bad times; nothing changed
        """
        columns = self._joint_columns(names, topic)
        for number, row in enumerate(positions):
            self._refuse_unless(len(row) == len(columns), topic,
                                f'point {number} has {len(row)} positions for {len(columns)} '
                                'joint names; send one per name')
        wanted = np.array([list(row) for row in positions], np.float64).reshape(-1, len(columns))
        self._refuse_unless(np.isfinite(wanted).all(), topic, 'a position is not finite')
        inside = np.clip(wanted, self._low[columns], self._high[columns])
        try:
            plan = plan_trajectory(columns, times_s, inside, start_ns or sim_ns, sim_ns,
                                   np.asarray(current, dtype=np.float64)[columns])
        except SpecError as error:
            self._refuse(topic, str(error).rstrip('.'))
        self._stop_trajectory()
        self._trajectory = plan
        self._mode[columns] = TRAJECTORY
        self._accept((inside != wanted).any(), topic,
                     'a position beyond the joint limits was limited')

    @property
    def follows_trajectory(self) -> bool:
        """True while a trajectory drives at least one joint."""
        return self._trajectory is not None and bool((self._mode == TRAJECTORY).any())

    def targets(self, now_ns: int, sim_ns: int, num_frames: int, period_ns: int) -> Targets:
        """
        Read what the coming step is asked to do; silent velocity sources become zero here.

        :param now_ns: steady wall time
        :param sim_ns: sim time of the newest frame
        :param num_frames: frames of the step
        :param period_ns: sim time per frame
        :return: targets for the frames at ``sim_ns + period_ns * (1 .. num_frames)``
        """
        self._forget_message(now_ns)
        self._expire(now_ns)
        position = np.full((num_frames, len(self._mode)), np.nan)
        velocity = np.zeros_like(position)
        velocity[:, self._mode == VELOCITY] = self._velocity[self._mode == VELOCITY]
        position[:, self._mode == POSITION] = self._position[self._mode == POSITION]
        if self.follows_trajectory:
            self._sample_trajectory(position, sim_ns, period_ns)
        return Targets(self._twist.copy(), position, velocity)

    def _sample_trajectory(self, position, sim_ns, period_ns):
        columns = np.array(self._trajectory.columns)
        active = self._mode[columns] == TRAJECTORY
        for frame, row in enumerate(position):
            sample = self._trajectory.sample(sim_ns + (frame + 1) * period_ns)
            row[columns[active]] = sample[active]

    def _expire(self, now_ns):
        if self._twist.any() and now_ns - self._twist_ns > self._timeout_ns:
            self._twist = np.zeros(2)
            self._count_timeout('cmd_vel')
        silent = (self._mode == VELOCITY) & (now_ns - self._velocity_ns > self._timeout_ns)
        if silent.any():
            moving = self._velocity[silent].any()
            self._mode[silent] = HOLD
            if moving:
                self._count_timeout('joint velocity')

    def _count_timeout(self, source):
        self.timed_out += 1
        self._tell(f'{source}: silent for {self.spec.timeout_s:g} s (cmd_timeout_s), set to zero.')

    def _tell(self, message):
        self.message, self._message_since_ns = message, None

    def _forget_message(self, now_ns):
        """Drop a problem that was told for a while; the clock starts when it is first read."""
        if self._message_since_ns is None:
            self._message_since_ns = now_ns
        elif now_ns - self._message_since_ns > MESSAGE_NS:
            self.message = ''

    def _set_positions(self, columns, position, topic):
        inside = np.clip(position, self._low[columns], self._high[columns])
        self._mode[columns] = POSITION
        self._position[columns] = inside
        self._accept((inside != position).any(), topic,
                     self._limit_text(columns, position, self._low, self._high, 'position'))

    def _set_velocities(self, columns, velocity, now_ns, topic):
        inside = np.clip(velocity, -self._speed[columns], self._speed[columns])
        self._mode[columns] = VELOCITY
        self._velocity[columns] = inside
        self._velocity_ns[columns] = now_ns
        self._accept((inside != velocity).any(), topic,
                     self._limit_text(columns, velocity, -self._speed, self._speed, 'velocity'))

    def _limit_text(self, columns, values, low, high, what):
        for column, value in zip(columns, values):
            if not low[column] <= value <= high[column]:
                return (f'{what} {value:g} of {self.spec.joint_names[column]} limited to '
                        f'{low[column]:g} to {high[column]:g}')
        return ''

    def _stop_trajectory(self):
        """Let joints of the old trajectory hold where it has brought them."""
        self._mode[self._mode == TRAJECTORY] = HOLD

    def _joint_columns(self, names, topic):
        known = self.spec.joint_names
        self._refuse_unless(len(names) > 0, topic,
                            f'no joint is named; name some of {", ".join(known)}')
        unknown = [name for name in names if name not in known]
        self._refuse_unless(not unknown, topic, f'unknown joint {", ".join(map(repr, unknown))}; '
                            f'known: {", ".join(known)}')
        self._refuse_unless(len(set(names)) == len(names), topic,
                            'a joint is named twice; name each once')
        return [known.index(name) for name in names]

    def _refuse_unless(self, good, topic, text):
        if not good:
            self._refuse(topic, text)

    def _refuse(self, topic, text):
        self.rejected += 1
        self._tell(f'{topic}: refused, {text}.')
        raise SpecError(self.message)

    def _accept(self, clipped, topic, text):
        self.accepted += 1
        self.clipped += bool(clipped)
        if clipped:
            self._tell(f'{topic}: {text}.')
