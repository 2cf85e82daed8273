# SPDX-License-Identifier: Apache-2.0
"""
Start ``lingbot-world sim`` as a process of its own and measure it over DDS from this one.

This process is the robot's side: it publishes ``cmd_vel`` and ``joint_command`` and receives
images. Both clocks of a latency are therefore the same clock. Prints one JSON object.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from bench.latency import command_latencies, frame_rate, Log
from bench.machine import cores, CpuMeter, memory_mib
from geometry_msgs.msg import Twist
from lingbot_world_ros.actions.layout import ANGULAR, velocity_name
from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.msg import ActionEmbedding, WorldSpec, WorldStatus
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.ros_process import start_ros
from lingbot_world_ros.robots.load import load_robot
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState

PATIENCE_S = 60.0
WARM_UP_S = 1.0
GAP_S = (0.1, 0.3)  # between commands: longer than a frame, shorter than the command timeout
EVERYTHING = QoSProfile(depth=200)  # the log must not lose what the middleware delivered
BASE, JOINT = ANGULAR, velocity_name(load_robot().joint_names[0])


class Robot:
    """Send commands with values of their own, note everything that arrives."""

    def __init__(self):
        self.node = rclpy.create_node('bench')
        self.log, self.spec = Log(), None
        self._last, self._num_commands = {BASE: 0.0, JOINT: 0.0}, 0
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._cmd_vel = self.node.create_publisher(Twist, 'cmd_vel', qos.NEWEST)
        self._joint_command = self.node.create_publisher(JointState, 'joint_command', qos.STATE)
        for msg_type, topic, callback, profile in (
                (Image, 'camera/image_raw', self.on_image, EVERYTHING),
                (ActionEmbedding, 'action_embedding', self.on_embedding, EVERYTHING),
                (WorldStatus, 'world_status', self.on_status, EVERYTHING),
                (Odometry, 'odom', self.on_odom, EVERYTHING),
                (JointState, 'joint_states', self.on_joint_states, EVERYTHING),
                (WorldSpec, 'world_spec', self.on_spec, qos.LATCHED)):
            self.node.create_subscription(msg_type, topic, callback, profile)

    def on_image(self, msg):
        """Note when an image arrived."""
        received_ns = time.monotonic_ns()
        self.log.frames[stamp_to_ns(msg.header.stamp)] = received_ns

    def on_embedding(self, msg):
        """Note which commands an embedding carries."""
        self.log.embeddings[msg.sequence] = np.array(msg.embedding)

    def on_status(self, msg):
        """Note which embedding drove the newest step."""
        self.log.steps.setdefault(stamp_to_ns(msg.header.stamp), msg.embedding_sequence)

    def on_odom(self, msg):
        """Note how the base turns."""
        self._moved(msg, BASE, msg.twist.twist.angular.z)

    def on_joint_states(self, msg):
        """Note how fast the joint moves."""
        self._moved(msg, JOINT, msg.velocity[msg.name.index(JOINT.partition('.')[0])])

    def on_spec(self, msg):
        """Keep the world's description."""
        self.spec = msg

    def _moved(self, msg, name, speed):
        if self.spec is not None:
            moved = self.log.motion.setdefault(stamp_to_ns(msg.header.stamp), {})
            moved[self.spec.action_names.index(name)] = speed

    def wait_for(self, happened, alive, what):
        """Spin until ``happened()``; give up when ``alive()`` is false or patience ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if not alive() or time.monotonic() > deadline:
                raise SystemExit(f'bench: waited in vain for {what}')
            self.executor.spin_once(timeout_sec=0.1)

    def spin_until(self, until_s):
        """Receive until a moment of the steady clock."""
        while (left_s := until_s - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left_s)

    def is_connected(self):
        """Whether everything this process wants to measure flows."""
        return (self.spec is not None and self.log.frames and self.log.steps
                and self.log.embeddings and self._cmd_vel.get_subscription_count()
                and self._joint_command.get_subscription_count())

    def command(self):
        """Turn the base or the arm the other way, with a value never used before."""
        name = (BASE, JOINT)[self._num_commands % 2]
        speed = 0.3 + 1e-3 * self._num_commands
        value = -speed if self._last[name] > 0 else speed
        if name == BASE:
            msg, publisher = twist_to_msg(0.0, value), self._cmd_vel
        else:
            msg = joint_command_to_msg([name.partition('.')[0]], velocity=[value])
            publisher = self._joint_command
        column = self.spec.action_names.index(name)
        self.log.commands.append((time.monotonic_ns(), column, value, self._last[name]))
        publisher.publish(msg)
        self._last[name] = value
        self._num_commands += 1

    def drive(self, seconds, seed):
        """Send base and arm commands in turn at moments unrelated to the frames."""
        rng = np.random.default_rng(seed)
        end_s = time.monotonic() + seconds
        while time.monotonic() + GAP_S[1] < end_s:
            self.command()
            self.spin_until(time.monotonic() + rng.uniform(*GAP_S))
        self.spin_until(end_s)


def start_sim(speed, core, output):
    """
    Start the simulator.

    :param speed: sim seconds per wall second, 0 for as fast as possible
    :param core: the only core it may use, None for all
    :param output: file for what it prints
    :return: the process
    """
    own = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # inherited by the child; this thread goes back below
    try:
        return subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--speed', str(speed),
             '--param', 'cmd_vel_type:=twist'], stdout=output, stderr=subprocess.STDOUT)
    finally:
        os.sched_setaffinity(0, own)


def measure(speed, seconds, sim_core, seed) -> dict:
    """
    Run the simulator once.

    :param speed: sim seconds per wall second, 0 for as fast as possible
    :param seconds: length of the measurement
    :param sim_core: core to pin it to, None for no pinning
    :param seed: of the moments at which commands are sent
    :return: one run's numbers
    """
    start_ros([])
    robot = Robot()
    with tempfile.TemporaryFile('w+') as output:
        started_ns = time.monotonic_ns()
        sim = start_sim(speed, sim_core, output)
        try:
            robot.wait_for(robot.is_connected, lambda: sim.poll() is None, 'the simulator')
            first_image_s = (min(robot.log.frames.values()) - started_ns) * 1e-9
            robot.drive(WARM_UP_S, seed)
            robot.log = Log()
            meter = CpuMeter(sim=sim.pid, robot=os.getpid())
            robot.drive(seconds, seed + 1)
            cpu_cores = meter.cores()
            memory = memory_mib(sim.pid)
        except BaseException:
            output.seek(0)
            sys.stderr.write(output.read()[-2000:])
            raise
        finally:
            sim.send_signal(signal.SIGINT)
            sim.wait(timeout=20)
            rclpy.try_shutdown()
    latencies_ms, missed, towards = command_latencies(robot.log)
    period_ns = round(1e9 / robot.spec.frame_rate)
    return {'first_image_s': first_image_s, **frame_rate(robot.log, period_ns),
            'latencies_ms': latencies_ms, 'commands_without_frame': missed,
            'moved_as_commanded': towards, 'cpu_cores': cpu_cores, 'memory_mib': memory,
            'width_px': robot.spec.width, 'height_px': robot.spec.height,
            'frame_rate_hz': robot.spec.frame_rate}


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--speed', type=float, default=1.0, help='0 for as fast as possible')
    parser.add_argument('--seconds', type=float, default=6.0)
    parser.add_argument('--pin', action='store_true',
                        help='simulator on the first core, this process on the last')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    usable = cores()
    if args.pin:
        os.sched_setaffinity(0, {usable[-1]})
    print(json.dumps(measure(args.speed, args.seconds, usable[0] if args.pin else None,
                             args.seed)))


if __name__ == '__main__':
    main()
