# SPDX-License-Identifier: Apache-2.0
"""
How long an image takes from one process to another over DDS, by size. Prints one JSON object.

From before the message is filled to the callback in the other process, 30 images a second, with
the package's DDS profile. The stamp of each message is the steady wall clock.
"""
import argparse
import json
import os
import subprocess
import sys
import time

from bench.latency import percentile
from bench.machine import cores
from lingbot_world_ros.messages.image import image_to_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.nodes.qos import image_qos
from lingbot_world_ros.nodes.ros_process import start_ros
import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

SIZES = ((160, 120), (320, 240), (640, 480), (832, 480), (1280, 720))
PERIOD_S = 1 / 30
WARM_UP = 5
PATIENCE_S = 20.0


def publish(count):
    """Send ``count`` images of each size, and a few more before that are not counted."""
    node = rclpy.create_node('bench_camera')
    publisher = node.create_publisher(Image, 'bench_image', image_qos('reliable', 2))
    deadline = time.monotonic() + PATIENCE_S
    while not publisher.get_subscription_count() and time.monotonic() < deadline:
        time.sleep(0.01)
    rng = np.random.default_rng(0)
    for width, height in SIZES:
        pixels, msg = rng.integers(0, 256, (height, width, 3), np.uint8), None
        for _ in range(WARM_UP + count):
            msg = image_to_msg(pixels, time.monotonic_ns(), 'camera', out=msg)
            publisher.publish(msg)
            time.sleep(PERIOD_S)
    publisher.wait_for_all_acked(Duration(seconds=2))


def receive(count) -> list:
    """
    Start the other process and receive what it sends.

    :param count: images of each size
    :return: one entry per size: bytes, p50, p95 [ms], received, sent
    """
    times_ms = {size: [] for size in SIZES}

    def on_image(msg):
        took_ns = time.monotonic_ns() - stamp_to_ns(msg.header.stamp)
        times_ms[msg.width, msg.height].append(took_ns * 1e-6)

    node = rclpy.create_node('bench_viewer')
    node.create_subscription(Image, 'bench_image', on_image, QoSProfile(depth=50))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    camera = subprocess.Popen([sys.executable, '-m', 'bench.transport', '--publish',
                               '--count', str(count)])
    while camera.poll() is None:
        executor.spin_once(timeout_sec=0.05)
    return [{'width_px': width, 'height_px': height, 'bytes': width * height * 3,
             'p50_ms': percentile(times[WARM_UP:], 50), 'p95_ms': percentile(times[WARM_UP:], 95),
             'received': len(times), 'sent': WARM_UP + count}
            for (width, height), times in times_ms.items()]


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--count', type=int, default=45)
    parser.add_argument('--publish', action='store_true', help='be the sending process')
    args = parser.parse_args()
    os.sched_setaffinity(0, {cores()[0 if args.publish else -1]})
    start_ros([])
    if args.publish:
        publish(args.count)
    else:
        print(json.dumps(receive(args.count)))
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
