# SPDX-License-Identifier: Apache-2.0
"""
What single parts cost: a scan, an image into its message, a frame on all its topics.

And what topics and an action cost that nobody listens to: a step with and without them, in turns.
CPU time of this process. Prints one JSON object.
"""
import argparse
from contextlib import ExitStack
from dataclasses import replace
import json
import os
import time
from unittest.mock import patch

from bench.latency import percentile
from bench.machine import cores
from bench.null_world import NullWorld
from lingbot_world_ros.engines.interface import Capabilities
from lingbot_world_ros.geometry.depth_scan import DepthScan
from lingbot_world_ros.messages.image import image_to_msg
from lingbot_world_ros.nodes import trajectory_action, world_model
from lingbot_world_ros.nodes.pair import make_pair
from lingbot_world_ros.nodes.parameters import declare
from lingbot_world_ros.nodes.ros_process import start_ros
from lingbot_world_ros.nodes.world_publishers import WorldPublishers
from lingbot_world_ros.nodes.world_topics import world_topics
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.settings.parameters import WORLD_MODEL
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

# What is left out of the step that others are compared with.
SENSES = ('contact', 'bumper', 'imu', 'points', 'predicted_pose', 'map', 'wrist_image',
          'wrist_camera_info')
ASKED_FOR = ('publish_bumper', 'publish_map', 'publish_map_odom_tf', 'publish_wrist_camera')
# What robots usually subscribe to, but for tf, which map -> odom is a part of.
USUAL = ('image', 'camera_info', 'joint_states', 'odom', 'clock')
PATIENCE_S = 30.0
LIMITS = dict(min_height_m=0.1, max_height_m=1.0, min_range_m=0.34, max_range_m=10.0)


def timed(call, calls: int) -> dict:
    """
    Call something again and again.

    :param call: function without arguments; one more call warms up
    :param calls: how often
    :return: percentiles of the CPU time of a call, ms
    """
    call()
    times_ms = []
    for _ in range(calls):
        started_s = time.process_time()
        call()
        times_ms.append((time.process_time() - started_s) * 1e3)
    return {'p50_ms': percentile(times_ms, 50), 'p95_ms': percentile(times_ms, 95)}


def scan(calls: int) -> dict:
    """Time a scan of a depth image of the robot's camera, its arm taken out."""
    robot = load_robot()
    camera = robot.camera
    maker = DepthScan(camera, **LIMITS)
    # Nearer from row to row, as a floor is, with a wall behind it.
    rows = np.linspace(8.0, 1.0, camera.height_px, dtype=np.float32)[:, None]
    depth_m = np.minimum(np.repeat(rows, camera.width_px, 1), np.float32(3.0))
    arm = robot.arm.links(robot.joint_array('home'))
    return timed(lambda: maker.ranges(depth_m, arm), calls)


def image(calls: int, width_px: int, height_px: int) -> dict:
    """Time writing an image into a message that is used again."""
    rgb = np.zeros((height_px, width_px, 3), np.uint8)
    msg = image_to_msg(rgb, 0, 'eye')
    return timed(lambda: image_to_msg(rgb, 0, 'eye', out=msg), calls)


def frame(calls: int) -> dict:
    """Time publishing a frame while somebody listens to every topic."""
    start_ros([])
    try:
        node, probe = rclpy.create_node('world_model'), rclpy.create_node('probe')
        world = NullWorld()
        publishers = WorldPublishers(node, world.spec, declare(node, WORLD_MODEL))
        made = frame_of(world)
        topics = list(node.publishers)
        for topic in topics:
            probe.create_subscription(topic.msg_type, topic.topic_name, lambda _: None, 10)
        wait_until_heard(probe, topics)
        return {**timed(lambda: publishers.on_frame(made), calls), 'topics': len(topics)}
    finally:
        rclpy.try_shutdown()


def wait_until_heard(probe, topics) -> None:
    """Wait until each of these publishers has a subscriber."""
    executor, deadline = SingleThreadedExecutor(), time.monotonic() + PATIENCE_S
    executor.add_node(probe)
    while not all(topic.get_subscription_count() for topic in topics):
        if time.monotonic() > deadline:
            raise SystemExit('bench.costs: waited in vain for the subscribers')
        executor.spin_once(timeout_sec=0.05)
    executor.remove_node(probe)


class SensingWorld(NullWorld):
    """The engine that takes no time, with all that further topics are made of."""

    def __init__(self):
        """Add depth, contact and a second camera, which nobody looks through."""
        super().__init__()
        self.spec = replace(self.spec, has_depth=True, predicted_states=('base', 'contact'),
                            can=Capabilities(take_poses=False, keep_scenes=True,
                                             watch_wrist=True))
        camera = self.spec.camera
        self._shown['depth_m'] = np.full((1, 1, camera.height_px, camera.width_px), 2.0, 'f4')

    def watch_wrist(self, is_watched):
        """Show nothing more."""


class SteppedPair:
    """Both nodes of a world in stepped mode, and a listener to the usual topics."""

    def __init__(self, name: str, is_bare: bool):
        """
        Start the world.

        :param name: its namespace
        :param is_bare: without what is to cost nothing
        """
        told = {'mode': 'stepped', 'cmd_vel_type': 'twist', 'topics.clock': 'clock',
                **dict.fromkeys(() if is_bare else ASKED_FOR, True)}
        with ExitStack() as stack:
            if is_bare:
                stack.enter_context(patch.object(trajectory_action, 'installed', lambda: None))
                stack.enter_context(patch.object(world_model, 'WorldPublishers', _bare))
            self.nodes = make_pair(SensingWorld, namespace=name, parameter_overrides=[
                Parameter(key, value=value) for key, value in told.items()])
        self._executor, self.probe = SingleThreadedExecutor(), rclpy.create_node(f'{name}_probe')
        for node in self.nodes:
            self._executor.add_node(node)
        by_key = self.nodes[0].sensors._publishers
        for key in USUAL:
            self.probe.create_subscription(by_key[key].msg_type, by_key[key].topic_name,
                                           lambda _: None, QoSProfile(depth=1), raw=True)
        wait_until_heard(self.probe, [by_key[key] for key in USUAL])
        self.topics = len(self.nodes[0].sensors.topics)

    def step(self) -> float:
        """Make a step and look once for calls and commands, of which there are none; CPU ms."""
        started_s = time.process_time()
        self.nodes[0].session.advance(1).result(PATIENCE_S)
        self._executor.spin_once(timeout_sec=0.0)
        return (time.process_time() - started_s) * 1e3

    def end(self) -> None:
        """Destroy the nodes."""
        for node in (*self.nodes, self.probe):
            node.destroy_node()


def _bare(node, spec, params, only=()):
    """Make the publishers of a world but for ``SENSES``."""
    keys = [key for key, *_ in world_topics(spec, params, True) if key not in SENSES]
    return WorldPublishers(node, spec, params, keys)


def unheard(calls: int) -> dict:
    """
    Time a step without the further topics and the arm's action, and with them, unheard.

    The worlds take turns, and take turns in being the first. One without comes twice, which tells
    how much is chance.

    :param calls: steps of each
    :return: CPU time of each, ms, and its percentiles by those of the first
    """
    start_ros([])
    try:
        pairs = {'step, senses left out': SteppedPair('bare', True),
                 'the same again': SteppedPair('again', True),
                 'step, senses unheard': SteppedPair('full', False)}
        names, took_ms = list(pairs), {name: [] for name in pairs}
        for turn in range(calls + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                took_ms[name].append(pairs[name].step())
        spread = {name: {'p50_ms': percentile(times_ms[1:], 50),
                         'p95_ms': percentile(times_ms[1:], 95), 'topics': pairs[name].topics}
                  for name, times_ms in took_ms.items()}
        bare = spread[names[0]]
        for name in names[1:]:
            spread[name].update({f'{key}_ratio': spread[name][f'{key}_ms'] / bare[f'{key}_ms']
                                 for key in ('p50', 'p95')})
        for pair in pairs.values():
            pair.end()
        return spread
    finally:
        rclpy.try_shutdown()


def frame_of(world) -> Frame:
    """Make a frame of what a world shows after a reset, with depth."""
    seen, camera = world.reset(world.spec.scenes[0], 0), world.spec.camera
    return Frame(index=1, stamp_ns=1, rgb=seen.rgb[0, 0],
                 depth_m=np.full((camera.height_px, camera.width_px), 2.0, np.float32),
                 start_pose=seen.base_pose[0, 0], base_pose=seen.base_pose[0, 0],
                 base_twist=np.zeros(3), base_pose_cov=None,
                 joint_position=seen.joint_position[0, 0],
                 joint_velocity=seen.joint_velocity[0, 0], contact=0.0, uncertainty=0.0,
                 calibrated=True)


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--calls', type=int, default=200)
    args = parser.parse_args()
    os.sched_setaffinity(0, {cores()[0]})
    camera = load_robot().camera
    small, large = (camera.width_px, camera.height_px), (832, 480)
    print(json.dumps({'scan': scan(args.calls),
                      **{f'image {w}x{h}': image(args.calls, w, h) for w, h in (small, large)},
                      'frame, all topics': frame(args.calls), **unheard(args.calls)}))


if __name__ == '__main__':
    main()
