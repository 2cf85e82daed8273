# SPDX-License-Identifier: Apache-2.0
"""
Processes at the other end of a world: one drives, one counts frames, others misbehave.

``python -m bench.peers NAME`` runs one; ``Peer`` starts it from elsewhere. A peer is told what to
do by lines on its standard input, answers by lines of JSON, and ends when its input does.
"""
import argparse
import json
import queue
import signal
import subprocess
import sys
import threading
import time

from bench.ledger import FrameLedger
from geometry_msgs.msg import Twist
from lingbot_world_ros.messages.commands import joint_command_to_msg, twist_to_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.msg import WorldSpec, WorldStatus
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.ros_process import start_ros
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

PATIENCE_S = 30.0
DEEP = QoSProfile(depth=5000)  # a queue that the frames of a long stall fit into
COMMAND_RATE_HZ = 100.0
JOIN_PERIOD_S = 2.0
FRAMES = ((Image, 'camera/image_raw'), (CameraInfo, 'camera/camera_info'),
          (JointState, 'joint_states'), (Odometry, 'odom'))


class Peer:
    """A peer in a process of its own, seen from outside."""

    def __init__(self, name: str, *args, env=None):
        """
        Start it.

        :param name: one of ``PEERS``
        :param args: its command line
        :param env: environment, None for that of this process
        """
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'bench.peers', name, *map(str, args)], text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put('')

    def say(self, line: str) -> None:
        """
        Tell it something.

        :raises TimeoutError: it has ended
        """
        try:
            self.process.stdin.write(f'{line}\n')
        except BrokenPipeError:
            raise TimeoutError(f'the peer {self.name} has ended') from None

    def has_spoken(self) -> bool:
        """Whether ``hear`` would answer at once."""
        return not self._lines.empty()

    def hear(self, timeout_s: float = PATIENCE_S) -> dict:
        """
        Return its next answer.

        :param timeout_s: for how long to wait
        :raises TimeoutError: it said nothing, or ended
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            line = ''
        if not line:
            raise TimeoutError(f'the peer {self.name} (process {self.process.pid}) said nothing '
                               f'for {timeout_s:g} s')
        return json.loads(line)

    def ask(self, line: str, timeout_s: float = PATIENCE_S) -> dict:
        """Tell it something and return its answer."""
        self.say(line)
        return self.hear(timeout_s)

    def freeze(self) -> None:
        """Let it stand still, as it is."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it in peace, or else at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.close()
            self.process.wait(10.0)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Inside:
    """What every peer has: a node, its executor, and the lines that it is told."""

    def __init__(self, name):
        start_ros([])
        self.node = rclpy.create_node(name)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._told = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in sys.stdin:
            self._told.put(line.strip())
        self._told.put(None)

    def say(self, **answer):
        print(json.dumps(answer), flush=True)

    def told(self):
        """Return the next line, '' if there is none; ends the process with the input."""
        try:
            line = self._told.get_nowait()
        except queue.Empty:
            return ''
        if line is None:
            raise SystemExit
        return line

    def wait_for(self, happened, what):
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f'{self.node.get_name()}: waited in vain for {what}')
            self.told()
            self.executor.spin_once(timeout_sec=0.05)


def watch(args):
    """
    Receive every frame and say what is missing.

    Told ``mark``: answers with rate and number of images since the mark before. Told ``report``:
    with all that was wrong.
    """
    me = Inside('watcher')
    ledger, arrivals = FrameLedger(), []

    def on_frame(topic):
        def take(msg):
            stamp_ns = stamp_to_ns(msg.header.stamp)
            if topic == FRAMES[0][1]:
                arrivals.append((time.monotonic_ns(), stamp_ns))
            ledger.frame(topic, stamp_ns)
        return take

    me.node.create_subscription(WorldSpec, 'world_spec',
                                lambda msg: ledger.period(round(1e9 / msg.frame_rate)),
                                qos.LATCHED)
    me.wait_for(lambda: ledger.period_ns, 'world_spec')
    for msg_type, topic in FRAMES:
        me.node.create_subscription(msg_type, topic, on_frame(topic), DEEP)
    me.node.create_subscription(WorldStatus, 'world_status', lambda msg: ledger.status(
        msg.frame, stamp_to_ns(msg.header.stamp)), DEEP)
    me.wait_for(lambda: ledger.is_complete([topic for _, topic in FRAMES]), 'all topics')
    me.say(ready=True)
    while True:
        line = me.told()
        if line == 'mark':
            me.say(images=len(arrivals), rate_hz=fitted_rate(arrivals, ledger.period_ns))
            arrivals.clear()
        elif line == 'report':
            me.say(**ledger.report())
        me.executor.spin_once(timeout_sec=0.02)


def fitted_rate(arrivals, period_ns: int):
    """
    Frame rate of a window in which time was not set back; None where it was.

    :param arrivals: (received_ns, stamp_ns) of each image
    :param period_ns: sim time between frames
    :return: frames per wall second from a line through all of them, which the jitter of a single
        arrival does not move
    """
    received, stamps = np.array(arrivals, float).reshape(-1, 2).T
    if len(stamps) < 10 or (np.diff(stamps) <= 0).any():
        return None
    received = (received - received.mean()) * 1e-9
    frames = (stamps - stamps.mean()) / period_ns
    return float((received * frames).sum() / (received ** 2).sum())


def drive(args):
    """
    Send commands of all kinds at 100 Hz, and let subscribers come and go.

    Told ``rest`` and ``go``; told ``joined``: answers how many subscribers came, saw an image and
    the latched world_spec, and left.
    """
    me = Inside('driver')
    rng = np.random.default_rng(args.seed)
    spec = []
    me.node.create_subscription(WorldSpec, 'world_spec', spec.append, qos.LATCHED)
    me.wait_for(lambda: spec, 'world_spec')
    commands = _Commands(me.node, spec[0], rng)
    me.wait_for(commands.are_heard, 'those who hear commands')
    me.say(ready=True)
    drives, joiner, joined = True, _Joiner(me.node), 0
    next_s = join_s = time.monotonic()
    while True:
        line = me.told()
        if line in ('rest', 'go'):
            drives = line == 'go'
            me.say(drives=drives)
        elif line == 'joined':
            me.say(joined=joined)
        now_s = time.monotonic()
        if drives:
            commands.send()
        if joiner is None and now_s > join_s:
            joiner = _Joiner(me.node)
        elif joiner is not None and joiner.has_seen_all():
            joiner.leave()
            joiner, joined, join_s = None, joined + 1, now_s + JOIN_PERIOD_S
        # A late tick is not made up for: a burst is a fault of its own.
        next_s = max(next_s + 1.0 / COMMAND_RATE_HZ, now_s)
        while (left_s := next_s - time.monotonic()) > 0:
            me.executor.spin_once(timeout_sec=left_s)


class _Commands:
    """Seven velocities of the base, three commands of the arm, and so on."""

    def __init__(self, node, spec, rng):
        self._joints, self._rng, self._num = list(spec.joint_names), rng, 0
        self._low, self._high = np.array(spec.joint_position_min), np.array(
            spec.joint_position_max)
        self._twist = np.zeros(2)
        publishers = ((Twist, 'cmd_vel'), (JointState, 'joint_command'),
                      (Float64MultiArray, 'arm_controller/commands'),
                      (JointTrajectory, 'arm_controller/joint_trajectory'), (String, 'prompt'))
        self._publishers = {topic: node.create_publisher(msg_type, topic, qos.STATE)
                            for msg_type, topic in publishers}

    def are_heard(self):
        return all(p.get_subscription_count() for p in self._publishers.values())

    def send(self):
        self._num += 1
        kind = self._num % 10
        if self._num % 100 == 0:
            self._twist = self._rng.uniform((-0.2, -0.8), (0.4, 0.8))
        if self._num % 200 == 0:
            self._publishers['prompt'].publish(String(data='a sunny afternoon'))
        elif kind == 3:
            self._publishers['joint_command'].publish(joint_command_to_msg(
                self._joints[:2], position=self._positions()[:2]))
        elif kind == 6:
            self._publishers['joint_command'].publish(joint_command_to_msg(
                self._joints[2:4], velocity=self._rng.uniform(-0.4, 0.4, 2)))
        elif kind == 9 and self._num % 20 == 9:
            self._publishers['arm_controller/commands'].publish(Float64MultiArray(
                data=self._positions().tolist()))
        elif kind == 9:
            self._publishers['arm_controller/joint_trajectory'].publish(self._trajectory())
        else:
            self._publishers['cmd_vel'].publish(twist_to_msg(*self._twist))

    def _positions(self):
        return self._rng.uniform(self._low, self._high)

    def _trajectory(self):
        msg = JointTrajectory(joint_names=self._joints[:2])
        for after_ns in (200_000_000, 500_000_000):
            point = JointTrajectoryPoint(positions=self._positions()[:2].tolist())
            point.time_from_start.nanosec = after_ns
            msg.points.append(point)
        return msg


class _Joiner:
    """Subscribers that come late, see something, and leave."""

    def __init__(self, node):
        self._node, self._seen = node, set()
        self._subscriptions = [
            node.create_subscription(Image, 'camera/image_raw', lambda _: self._seen.add(1), 2),
            node.create_subscription(WorldSpec, 'world_spec', lambda _: self._seen.add(2),
                                     qos.LATCHED)]

    def has_seen_all(self):
        return len(self._seen) == len(self._subscriptions)

    def leave(self):
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


def flood(args):
    """Send velocities at 10 kHz until the time is over or told so, then one value at 100 Hz."""
    me = Inside('flood')
    publisher = me.node.create_publisher(Twist, 'cmd_vel', qos.NEWEST)
    me.wait_for(publisher.get_subscription_count, 'a subscriber of cmd_vel')
    me.say(ready=True)
    me.wait_for(lambda: me.told() == 'go', 'the signal')
    msg, num, start_s = Twist(), 0, time.monotonic()
    while (elapsed_s := time.monotonic() - start_s) < args.seconds and not me.told():
        while num < elapsed_s * args.rate:
            msg.angular.z = -0.2 - 1e-6 * num
            publisher.publish(msg)
            num += 1
    me.say(sent=num, rate_hz=num / elapsed_s)
    while not me.told():
        publisher.publish(twist_to_msg(0.0, args.last))
        time.sleep(0.01)


def step(args):
    """Ask for steps when told ``go``, and wait for the answer as long as it takes."""
    from simulation_interfaces.srv import StepSimulation
    me = Inside('stepper')
    client = me.node.create_client(StepSimulation, '/step_simulation')
    me.wait_for(client.service_is_ready, 'step_simulation')
    me.say(ready=True)
    me.wait_for(lambda: me.told() == 'go', 'the signal')
    answer = client.call_async(StepSimulation.Request(steps=args.steps))
    me.say(asked=True)
    me.wait_for(answer.done, 'the answer')
    me.say(result=answer.result().result.result)


def listen(args):
    """Subscribe reliably to images and status; made to be frozen."""
    me = Inside('listener')
    seen = []
    me.node.create_subscription(Image, 'camera/image_raw', lambda _: seen.append(1), 10)
    me.node.create_subscription(WorldStatus, 'world_status', lambda _: None, 10)
    me.wait_for(lambda: seen, 'an image')
    me.say(ready=True)
    while True:
        me.told()
        me.executor.spin_once(timeout_sec=0.05)


PEERS = {peer.__name__: peer for peer in (watch, drive, flood, step, listen)}


def main():
    """Be one of the peers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('peer', choices=PEERS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--rate', type=float, default=10_000.0, help='Hz')
    parser.add_argument('--seconds', type=float, default=2.0)
    parser.add_argument('--last', type=float, default=0.25, help='rad/s, after the flood')
    parser.add_argument('--steps', type=int, default=1)
    args = parser.parse_args()
    try:
        PEERS[args.peer](args)
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
