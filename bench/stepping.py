# SPDX-License-Identifier: Apache-2.0
"""
What a step costs beside the engine: StepSimulation over DDS with an engine that takes no time.

The composed node runs in one process, a second one subscribes to what robots usually subscribe
to, and this one makes the steps. Prints one JSON object.
"""
import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import threading
import time

from bench.latency import percentile
from bench.machine import cores, CpuMeter
from bench.null_world import NullWorld
from geometry_msgs.msg import Twist
from lingbot_world_ros.messages.commands import twist_to_msg
from lingbot_world_ros.msg import WorldStatus
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.pair import make_pair
from lingbot_world_ros.nodes.ros_process import start_ros
from lingbot_world_ros.nodes.spinner import Spinner, stop_on_signals
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from simulation_interfaces.srv import GetSimulationState, StepSimulation
from tf2_msgs.msg import TFMessage

USUAL = ((Image, 'camera/image_raw'), (CameraInfo, 'camera/camera_info'),
         (JointState, 'joint_states'), (Odometry, 'odom'), (TFMessage, '/tf'), (Clock, '/clock'))
PATIENCE_S = 30.0
WARM_UP, SETTLE = 50, 5  # steps that are not counted
OK = 1


def run_world(profile):
    """
    Be the process with the world, until it is told to end.

    :param profile: file for a profile of both busy threads; '' for none
    """
    profiles = []
    if profile:
        threading.setprofile(lambda *_: _profile_this_thread(profiles))
    overrides = {'mode': 'stepped', 'cmd_vel_type': 'twist'}
    nodes = make_pair(NullWorld, parameter_overrides=[
        Parameter(name, value=value) for name, value in overrides.items()])
    with Spinner() as spinner:
        stop_on_signals(spinner)
        for node in nodes:
            spinner.add(node)
        threading.setprofile(None)
        spinner.wait()
    if profile:
        stats = pstats.Stats(profiles[0])
        for other in profiles[1:]:
            stats.add(other)
        stats.dump_stats(profile)


def _profile_this_thread(profiles):
    """Replace the hook that called by a profiler; called once by each new thread."""
    sys.setprofile(None)
    profiles.append(cProfile.Profile())
    profiles[-1].enable()


def run_listener():
    """Be the process that listens to the usual topics; print how much came when told to end."""
    counts = {topic: 0 for _, topic in USUAL}
    node = rclpy.create_node('listener')

    def count(topic):
        def take(_):
            counts[topic] += 1
        return take
    for msg_type, topic in USUAL:
        # Raw: a listener in Python must not keep busy the core that the client needs.
        node.create_subscription(msg_type, topic, count(topic), QoSProfile(depth=100), raw=True)
    told = []
    threading.Thread(target=lambda: told.append(sys.stdin.read()), daemon=True).start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not told:
        executor.spin_once(timeout_sec=0.1)
    print(json.dumps(counts))


class Stepper:
    """The client: makes steps and takes the time."""

    def __init__(self):
        self._node = rclpy.create_node('stepper')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._step = self._node.create_client(StepSimulation, '/step_simulation')
        self._state = self._node.create_client(GetSimulationState, '/get_simulation_state')
        self._cmd_vel = self._node.create_publisher(Twist, 'cmd_vel', qos.NEWEST)

    def wait_for(self, happened, what):
        """Spin until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f'bench.stepping: waited in vain for {what}')
            self._executor.spin_once(timeout_sec=1.0)

    def connect(self):
        """Wait for the world, and for the listener to hear it."""
        self.wait_for(lambda: self._step.service_is_ready() and self._state.service_is_ready()
                      and self._cmd_vel.get_subscription_count(), 'the world')
        self.wait_for(lambda: all(self._node.count_subscribers(topic) for _, topic in USUAL),
                      'the listener')

    def _ask(self, client, request):
        start_s = time.perf_counter()
        future = client.call_async(request)
        self.wait_for(future.done, 'an answer')
        took_s = time.perf_counter() - start_s
        result = future.result().result
        if result.result != OK:
            raise SystemExit(f'bench.stepping: {result.error_message}')
        return took_s * 1e3

    def steps(self, calls, num_steps=1):
        """Return how long each call of ``num_steps`` took, ms."""
        request = StepSimulation.Request(steps=num_steps)
        return [self._ask(self._step, request) for _ in range(calls)]

    def states(self, calls):
        """Return how long the shortest service takes, ms per call."""
        return [self._ask(self._state, GetSimulationState.Request()) for _ in range(calls)]

    def commands(self, calls):
        """
        Publish a command of its own before each step.

        :return: ms per step call, and in how many steps the world acted on the command
        """
        told = {}
        subscription = self._node.create_subscription(
            WorldStatus, 'world_status',
            lambda msg: told.setdefault(msg.step, np.array(msg.actions)), calls)
        self.steps(SETTLE)
        self.wait_for(lambda: told and len(told[max(told)]), 'world_status')
        first, wanted, times_ms = max(told), [], []
        for index in range(calls):
            wanted.append(np.float32(0.1 + 1e-4 * index))
            self._cmd_vel.publish(twist_to_msg(0.0, float(wanted[-1])))
            times_ms += self.steps(1)
        self.wait_for(lambda: first + calls in told, 'the last world_status')
        self._node.destroy_subscription(subscription)
        acted = sum(bool(told[first + 1 + index][1] == value)
                    for index, value in enumerate(wanted) if first + 1 + index in told)
        return times_ms, acted


def measure(calls: int, pin: bool, profile: str) -> dict:
    """
    Start the other processes, measure, end them.

    :param calls: of each kind
    :param pin: world on the first core, the others on the last
    :param profile: file for a profile of the world, '' for none; makes it slower
    :return: times in ms and what arrived
    """
    usable = cores()
    world = _start('world', *(['--profile', profile] if profile else []),
                   core=usable[0] if pin else None)
    listener = _start('listener', core=usable[-1] if pin else None)
    try:
        if pin:
            os.sched_setaffinity(0, {usable[-1]})
        start_ros([])
        stepper = Stepper()
        stepper.connect()
        stepper.steps(WARM_UP)
        meter = CpuMeter(world=world.pid, listener=listener.pid, client=os.getpid())
        single, ten = stepper.steps(calls), stepper.steps(max(1, calls // 10), 10)
        cpu_cores, states = meter.cores(), stepper.states(calls)
        commanded, acted = stepper.commands(calls)
        counts, _ = listener.communicate(timeout=PATIENCE_S)
    finally:
        for process in (listener, world):
            process.terminate()
            process.wait(timeout=PATIENCE_S)
        rclpy.try_shutdown()
    return {'calls': calls, 'step': _spread(single), 'steps_10': _spread(ten),
            'per_step_of_10': _spread([value / 10 for value in ten]), 'state': _spread(states),
            'step_after_command': _spread(commanded), 'commands': calls, 'acted_on': acted,
            'frames': WARM_UP + len(single) + 10 * len(ten) + len(commanded) + SETTLE,
            'received': json.loads(counts), 'cpu_cores': cpu_cores}


def _spread(times_ms):
    return {'p50_ms': percentile(times_ms, 50), 'p95_ms': percentile(times_ms, 95),
            'longest_ms': max(times_ms)}


def _start(name, *args, core=None):
    own = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # inherited by the child
    try:
        return subprocess.Popen([sys.executable, '-m', 'bench.stepping', '--be', name, *args],
                                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    finally:
        os.sched_setaffinity(0, own)


def main():
    """Measure once and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--calls', type=int, default=1000)
    parser.add_argument('--pin', action='store_true',
                        help='world on the first core, the others on the last')
    parser.add_argument('--profile', default='', metavar='FILE',
                        help="also write a profile of the world's threads (slower)")
    parser.add_argument('--be', choices=('world', 'listener'), help='be another process')
    args = parser.parse_args()
    if args.be is None:
        print(json.dumps(measure(args.calls, args.pin, args.profile)))
        return
    start_ros([])
    try:
        run_world(args.profile) if args.be == 'world' else run_listener()
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
