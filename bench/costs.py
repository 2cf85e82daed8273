# SPDX-License-Identifier: Apache-2.0
"""
What single parts cost: a scan, an image into its message, a frame on all its topics.

CPU time of this process. Prints one JSON object.
"""
import argparse
import json
import os
import time

from bench.latency import percentile
from bench.machine import cores
from bench.null_world import NullWorld
from lingbot_world_ros.messages.image import image_to_msg
from lingbot_world_ros.messages.scan import DepthScan
from lingbot_world_ros.nodes.parameters import declare
from lingbot_world_ros.nodes.ros_process import start_ros
from lingbot_world_ros.nodes.world_publishers import WorldPublishers
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.settings.parameters import WORLD_MODEL
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

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
        executor, deadline = SingleThreadedExecutor(), time.monotonic() + PATIENCE_S
        executor.add_node(probe)
        while not all(topic.get_subscription_count() for topic in topics):
            if time.monotonic() > deadline:
                raise SystemExit('bench.costs: waited in vain for the subscribers')
            executor.spin_once(timeout_sec=0.05)
        return {**timed(lambda: publishers.on_frame(made), calls), 'topics': len(topics)}
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
                      'frame, all topics': frame(args.calls)}))


if __name__ == '__main__':
    main()
