# SPDX-License-Identifier: Apache-2.0
"""
What a policy gets to see: the space of observations, and how one is made of what an engine shows.

It is what the topics carry, never the scene's truth: the picture, depth and ranges of the camera,
odometry that begins at zero, joint states, and the goal as it was told at the start.
"""
from dataclasses import dataclass
from typing import Dict, Tuple

from gymnasium import spaces
from lingbot_world_ros.engines.interface import Observation, WorldSpec
from lingbot_world_ros.envs.tasks import Goals, Seen, Task
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.geometry.depth_scan import DepthScan
import numpy as np

FAR_M = 10.0  # depth and ranges end here
SCAN_HEIGHTS_M = 0.1, 1.0  # as the topic's, in config/default.yaml
FASTER = 2.0  # than commanded a predicted or a struck robot may move
SLACK = 0.05  # of its range a joint may be past its limits


@dataclass(frozen=True)
class Channels:
    """Which pictures there are in an observation; ``odometry``, ``joints`` and ``goal`` always."""

    image: bool = True
    depth: bool = False
    scan: bool = False


class Senses:
    """Make observations of the state and the pictures of an engine."""

    def __init__(self, spec: WorldSpec, task: Task, channels: Channels) -> None:
        """
        Work out the space.

        :param spec: of the world
        :param task: that tells a goal
        :param channels: which pictures there shall be
        :raises SpecError: depth or ranges of an engine that has none
        """
        if (channels.depth or channels.scan) and not spec.has_depth:
            raise SpecError(f'depth and scan: the engine {spec.engine!r} has no depth; leave them '
                            'off.')
        self._task, self._channels = task, channels
        robot, camera = spec.robot, spec.camera
        self._arm = robot.arm
        size = camera.height_px, camera.width_px
        boxes: Dict[str, spaces.Box] = {}
        if channels.image:
            boxes['image'] = _picture(size)
        if channels.depth:
            boxes['depth'] = spaces.Box(0.0, FAR_M, (*size, 1), np.float32)
        if channels.scan:
            low_m, high_m = SCAN_HEIGHTS_M
            self._scan = DepthScan(camera, min_height_m=low_m, max_height_m=high_m,
                                   min_range_m=robot.footprint.radius_m, max_range_m=FAR_M)
            boxes['scan'] = spaces.Box(0.0, FAR_M, (self._scan.num_angles,), np.float32)
        fast_mps, fast_radps = (FASTER * speed for speed in (robot.drive.speed_max_mps,
                                                             robot.drive.angular_max_radps))
        fastest = np.array([task.reach_m] * 2 + [1.0] * 2 + [fast_mps] * 2 + [fast_radps])
        boxes['odometry'] = _box(-fastest, fastest)
        low, high, quick = (robot.joint_array(name) for name in ('low', 'high', 'max_speed'))
        slack = SLACK * (high - low)
        boxes['joints'] = _box(np.concatenate([low - slack, -FASTER * quick]),
                               np.concatenate([high + slack, FASTER * quick]))
        boxes['goal'] = _picture(size) if task.tells_picture else _box(*task.goal_range)
        self._boxes = boxes
        self.space = spaces.Dict(dict(boxes))  # of one row

    def observe(self, shown: Observation, start: np.ndarray,
                goals: Goals) -> Dict[str, np.ndarray]:
        """
        Make the observations of rows.

        :param shown: what an engine shows of n rows; its last frame counts
        :param start: (n, 3) base poses at the start of each row's episode
        :param goals: of these rows
        :return: by channel, first axis n, within the space; nothing of it is shared
        """
        seen = Seen.of(shown)
        x_y_yaw = se2.relative(start, seen.base_pose)
        yaw = x_y_yaw[:, 2:]
        out = {'odometry': np.concatenate([x_y_yaw[:, :2], np.cos(yaw), np.sin(yaw),
                                           seen.base_twist], 1),
               'joints': np.concatenate([seen.joint_position, seen.joint_velocity], 1),
               'goal': self._task.told(goals, x_y_yaw)}
        if self._channels.image:
            assert shown.rgb is not None, 'it was asked to draw'
            out['image'] = shown.rgb[:, -1].copy()
        if self._channels.depth or self._channels.scan:
            assert shown.depth_m is not None, 'it was asked to draw'
            depth_m = shown.depth_m[:, -1]
            if self._channels.depth:
                out['depth'] = depth_m[..., None]
            if self._channels.scan:
                out['scan'] = np.stack([
                    self._ranges(*row) for row in zip(depth_m, seen.joint_position)])
        return {name: out[name] if box.dtype == np.uint8 else
                np.clip(out[name].astype(np.float32), box.low, box.high)
                for name, box in self._boxes.items()}

    def _ranges(self, depth_m: np.ndarray, joint_position: np.ndarray) -> np.ndarray:
        own_m = None if self._arm is None else self._arm.links(joint_position)
        return self._scan.ranges(depth_m, own_m)


def _picture(size: Tuple[int, int]) -> spaces.Box:
    return spaces.Box(0, 255, (*size, 3), np.uint8)


def _box(low: np.ndarray, high: np.ndarray) -> spaces.Box:
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
