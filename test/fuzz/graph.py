# SPDX-License-Identifier: Apache-2.0
"""Both nodes, spinning, as the attacked process runs them; and what the harness asks of them."""
from collections import deque
from copy import deepcopy

from fake_world import FakeWorld
from fuzz.values import checksum, message
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode
from lingbot_world_ros.nodes.pair import make_pair
from lingbot_world_ros.nodes.spinner import Spinner
from lingbot_world_ros.nodes.world_model import WorldModelNode
from lingbot_world_ros.worlds.definition import WorldDefinition
import numpy as np
import rclpy

COMMANDS = {'geometry_msgs/Twist': 'on_cmd_vel', 'geometry_msgs/TwistStamped': 'on_cmd_vel',
            'sensor_msgs/JointState': 'on_joint_command',
            'trajectory_msgs/JointTrajectory': 'on_trajectory',
            'std_msgs/Float64MultiArray': 'on_arm_commands'}
NUM_FRAMES = 4  # of motion looked at after a command
TINY = 1e-6  # of float32


class WatchedWorld(FakeWorld):
    """A fake engine whose joints end somewhere; it remembers what was wrong with its actions."""

    def __init__(self):
        super().__init__()
        self.actions = deque(maxlen=20)
        self.wrong, self.has_moved, self.num_steps = '', False, 0

    def step(self, actions, render=True):
        layout = self.spec.action
        if not (np.isfinite(actions).all() and (actions >= layout.low - TINY).all()
                and (actions <= layout.high + TINY).all()):
            self.wrong = f'the engine was told {actions.tolist()}'
        self.has_moved = self.has_moved or bool(actions.any())
        self.num_steps += 1
        observation = super().step(actions, render)
        self._q = np.clip(self._q, *map(self.spec.robot.joint_array, ('low', 'high')))
        return observation


class AttackedGraph:
    """The nodes in threads as a user runs them; the methods are for the side door."""

    def __init__(self, setup):
        """Start ROS and both nodes, linked; 'separate' ones talk over topics; 'world' is alone."""
        rclpy.init(args=['--ros-args', *setup['ros_args']])
        self._worlds, self._state = [], setup['state']
        if setup['graph'] == 'world':
            self._nodes = [WorldModelNode(world=self._make_world)]
        elif setup['graph'] == 'separate':
            self._nodes = [WorldModelNode(world=self._make_world), ActionEncoderNode()]
        else:
            self._nodes = make_pair(world=self._make_world)
        self.world_node, self.encoder = self._nodes[0], self._nodes[-1]
        self._taken = {}
        for node in self._nodes:
            for subscription in node.subscriptions:
                subscription.callback = self._noting(subscription)
        self._spinner = Spinner()
        self._spinner.__enter__()
        for node in self._nodes:
            self._spinner.add(node)

    def _make_world(self):
        self._worlds[:] = [WatchedWorld()]
        return self._worlds[0]

    def _noting(self, subscription):
        """Return a callback that remembers the newest message."""
        topic, callback = subscription.topic_name, subscription.callback

        def on_message(msg):
            try:
                callback(msg)
            finally:
                self._taken[topic] = checksum(msg)

        return on_message

    def taken(self, topic):
        """Return the checksum of the newest message that a callback was handed; 0 if none."""
        return self._taken.get(f'/{topic}', 0)

    def close(self):
        """End as a user's Ctrl-C does."""
        self._spinner.__exit__()
        rclpy.try_shutdown()

    def look(self, _):
        """Return how everything stands; what the engine was told counts since the last look."""
        self._spinner.wait(0.0)  # raises what ended the executor
        session = self.world_node.session
        if session is None:
            return {'state': 'no session'}
        world, status = self._worlds[0], session.status
        out = {'state': status.state, 'step': status.step, 'frame': status.frame,
               'stamp_ns': status.stamp_ns, 'seed': status.seed, 'world': status.world,
               'digest': status.digest, 'wrong': world.wrong, 'has_moved': world.has_moved,
               'steps_made': world.num_steps,
               'accepted': 0, 'rejected': 0, 'rejected_embeddings': status.rejected_embeddings,
               'message': status.message or status.counts.message}
        if getattr(self.encoder, '_buffer', None) is not None:
            counts = self.encoder._buffer.counts
            out.update(accepted=counts.accepted, rejected=counts.rejected)
        if hasattr(world, '_pose'):
            out['pose'] = world._pose.tolist()
            out['joints'] = world._q.tolist()
        world.wrong, world.has_moved, world.num_steps = '', False, 0
        return out

    def hears(self, publisher):
        """Say whether a publisher (name of its node, topic) has been discovered."""
        node, topic = publisher
        return any(info.node_name == node for info in
                   self.world_node.get_publishers_info_by_topic(f'/{topic}'))

    def restore(self, _):
        """Bring the world back to its start; commands are forgotten."""
        session = self.world_node.session
        if session.definition is None or session.definition.name != 'a':
            session.load(WorldDefinition('a', 'a', uri='a')).result(5.0)
        else:
            session.reset(seed=0).result(5.0)
        if session.status.state != self._state:
            (session.pause if self._state == 'paused' else session.play)().result(5.0)
        return self.look(None)

    def command(self, case):
        """Hand a command to the encoder as its topic does; refused ones must change nothing."""
        kind, plain = case
        encoder, session = self.encoder, self.world_node.session
        msg = message(kind, plain)
        with encoder._lock:
            encoder._joint_position = self._worlds[0]._q.copy()  # as the next step will find them
            before, counts = self._motion(), encoder._buffer.counts
        getattr(encoder, COMMANDS[kind])(msg)
        with encoder._lock:
            after, new = self._motion(), encoder._buffer.counts
        if new.accepted + new.rejected - counts.accepted - counts.rejected not in (0, 1):
            raise AssertionError(f'counted {counts} then {new}')
        if new.accepted == counts.accepted and before != after:  # refused, or all of it NaN
            raise AssertionError(f'not taken over, but the motion changed from {before} to '
                                 f'{after}')
        self._check_motion(session)
        if new.rejected > counts.rejected:
            raise SpecError(new.message)
        return new.message

    def _motion(self):
        """What the coming frames ask for; asking changes nothing but the count of embeddings."""
        encoder, buffer = self.encoder, self.encoder._buffer
        encoder._num_frames = NUM_FRAMES
        try:
            embedding = encoder._encode(deepcopy(buffer, {id(buffer.spec): buffer.spec}))
        finally:
            encoder._num_frames = 1
        self._embedding = embedding
        return (embedding.embedding.tobytes(), embedding.joint_position.tobytes(),
                embedding.joint_velocity.tobytes(), embedding.camera_motion.tobytes())

    def _check_motion(self, session):
        spec, embedding = session.world.spec, self._embedding
        wanted, goal = embedding.embedding, embedding.joint_position
        low, high = (spec.robot.joint_array(name) for name in ('low', 'high'))
        if not np.isfinite(wanted).all() or not np.isfinite(embedding.camera_motion).all():
            raise AssertionError(f'asked for {wanted.tolist()}')
        if (wanted < spec.action.low - TINY).any() or (wanted > spec.action.high + TINY).any():
            raise AssertionError(f'beyond the limits: {wanted.tolist()}')
        asked = ~np.isnan(goal)
        if ((goal < low - TINY) & asked).any() or ((goal > high + TINY) & asked).any():
            raise AssertionError(f'positions beyond the limits: {goal.tolist()}')
