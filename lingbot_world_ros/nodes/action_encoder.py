# SPDX-License-Identifier: Apache-2.0
"""
Node ``action_encoder``: commands of every kind in, what the world is asked to do out.

Alone in a process it talks over topics. In one process with ``world_model`` it is linked to the
session instead, which pulls an embedding at the last moment before each step.
"""
from dataclasses import replace
from math import isfinite
import os
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Type, Union

from geometry_msgs.msg import Twist, TwistStamped
from lingbot_world_ros.actions.camera_path import CameraPath
from lingbot_world_ros.actions.command_spec import Targets
from lingbot_world_ros.actions.commands import CommandBuffer, MESSAGE_LENGTH
from lingbot_world_ros.actions.embedding import ActionEmbedding, CarriedCamera, encode
from lingbot_world_ros.actions.limits import Limits
from lingbot_world_ros.actions.playback import CameraPlayback, open_path, require_free_camera
from lingbot_world_ros.actions.trajectory_goal import Constraints, TrajectoryGoal
from lingbot_world_ros.engines.registry import CAMERA_SCALE
from lingbot_world_ros.errors import shown, SpecError
from lingbot_world_ros.messages.action_embedding import embedding_to_msg
from lingbot_world_ros.messages.commands import (joint_command_from_msg, trajectory_from_msg,
                                                 twist_from_msg)
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.messages.trajectory_goal import goal_from_msg
from lingbot_world_ros.messages.world import carried_camera_from_msg, command_spec_from_msg
from lingbot_world_ros.msg import ActionEmbedding as ActionEmbeddingMsg, WorldSpec as WorldSpecMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.endpoints import node_of
from lingbot_world_ros.nodes.parameter_service import SafeParameterService
from lingbot_world_ros.nodes.parameters import declare, flat
from lingbot_world_ros.nodes.ros_process import spin_node
from lingbot_world_ros.nodes.trajectory_action import TrajectoryAction
from lingbot_world_ros.nodes.world_watch import WorldWatch
from lingbot_world_ros.robots.drive import Drive
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.urdf import read_description, RobotModel
from lingbot_world_ros.settings.parameters import ACTION_ENCODER
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

LOOK_PERIOD_S = 2.0  # between two looks at who publishes commands
LOG_PERIOD_S = 2.0
FIRST_STAMPED_DISTRO = 'kilted'  # from here on Nav2 and the wheel controllers use TwistStamped


def twist_type(cmd_vel_type: str, distro: str) -> Union[Type[Twist], Type[TwistStamped]]:
    """
    Choose the message type of ``cmd_vel``.

    :param cmd_vel_type: ``'auto'``, ``'twist'`` or ``'twist_stamped'``
    :param distro: name of the ROS distribution, ``''`` outside of one
    :return: Twist or TwistStamped
    """
    stamped = cmd_vel_type == 'twist_stamped'
    if cmd_vel_type == 'auto':
        stamped = distro >= FIRST_STAMPED_DISTRO  # distributions are named in alphabetical order
    return TwistStamped if stamped else Twist


class ActionEncoderNode(Node):
    """
    Keep the newest command of each topic; encode when the world asks, or over topics.

    Commands arrive in the executor's thread, ``begin`` and ``pull`` may be called from any other:
    one lock guards the commands and what is known of the world.
    """

    trajectories: TrajectoryAction  # once it is made

    def __init__(self, **node_args: Any) -> None:
        """
        Subscribe; commands are taken once a world has begun.

        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: a parameter cannot be used
        """
        super().__init__('action_encoder', start_parameter_services=False, **node_args)
        SafeParameterService(self)
        self._params = params = declare(self, ACTION_ENCODER, self.on_parameter)
        self._limits = Limits(**vars(params.limits))
        self._robot: Optional[RobotModel] = None
        if params.robot_description:
            self._robot = RobotModel.from_description(read_description(params.robot_description))
        self._drive = load_robot(params.robot).drive if params.robot else None
        self._path: Optional[CameraPath] = None
        if params.camera_path:
            self._path = open_path(params.camera_path, params.camera_path_metres_per_unit,
                                   flat(params)[CAMERA_SCALE])
        self._lock = threading.Lock()  # guards what is below, up to the blank line
        self._buffer: Optional[CommandBuffer] = None
        self._camera: Optional[CarriedCamera] = None  # there when the buffer is
        self._playback: Optional[CameraPlayback] = None
        self._began: Tuple[Optional[tuple], str] = None, ''  # the world as it began, and its mode
        self._path_is_over = False
        self._frame_id, self._num_frames, self._period_ns, self._period_s = '', 1, 1, 1.0
        self._sequence = self._sim_ns = self._valid_until_ns = 0
        self._joint_position = np.zeros(0)
        self._by_step, self._stood_ns = False, 0  # wall time that aged nothing
        self._aged_at = time.monotonic_ns(), 0  # wall and sim time when ages were last told

        self._quiet_until_s: Dict[str, float] = {}  # by topic: a flood shall not flood the log
        self._newest_frame_ns: Callable[[], int] = lambda: self._sim_ns
        self._on_command: Optional[Callable[[int], None]] = None
        self._standstill: Callable[[], str] = lambda: ''
        self._publisher = qos.publisher(self, ActionEmbeddingMsg, 'action_embedding', qos.NEWEST)
        self._subscribe(params.topics)
        self.trajectories = TrajectoryAction(self, params.topics.joint_trajectory, self.take_goal,
                                             self.hold)
        self._watch = WorldWatch(self, lambda: self.trajectories.goal is not None,
                                 self.stop)
        self._unlinked: List[qos.Listener] = [
            qos.Listener(self, WorldSpecMsg, 'world_spec', self.on_world_spec, qos.LATCHED),
            qos.Listener(self, JointState, params.topics.joint_states, self.on_joint_states,
                         qos.NEWEST)]
        # Steady: embeddings must flow before there is any sim time.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer: Optional[Timer] = self.create_timer(
            1.0 / params.encode_rate_hz, self.encode, clock=steady)
        self._told_types: Set[Tuple[str, str]] = set()  # publishers whose commands cannot arrive
        self.create_timer(LOOK_PERIOD_S, self.on_look, clock=steady)

    def _subscribe(self, topics: SimpleNamespace) -> None:
        twist = twist_type(self._params.cmd_vel_type, os.environ.get('ROS_DISTRO', ''))
        self.command_listeners = [
            qos.Listener(self, msg_type, topic, callback, qos.STATE)
            for msg_type, topic, callback in (
                (twist, topics.cmd_vel, self.on_cmd_vel),
                (JointState, topics.joint_command, self.on_joint_command),
                (JointTrajectory, topics.joint_trajectory, self.on_trajectory),
                (Float64MultiArray, topics.joint_commands, self.on_arm_commands))]
        self.cmd_vel = self.command_listeners[0]

    def destroy_node(self) -> None:
        """Tell the client of a goal before its server goes away."""
        if hasattr(self, 'trajectories'):
            self.trajectories.destroy()
        super().destroy_node()

    def link(self, sim_ns: Callable[[], int], on_command: Callable[[int], None],
             standstill: Callable[[], str] = lambda: '') -> None:
        """
        Serve a session in this process instead of the topics ``world_spec`` and ``joint_states``.

        :param sim_ns: called for the sim time of the newest frame
        :param on_command: called with the number of accepted commands after each of them
        :param standstill: called for the reason why no goal can be followed now, '' for none
        """
        self._newest_frame_ns, self._on_command = sim_ns, on_command
        self._standstill = standstill
        for listener in self._unlinked:
            listener.destroy()
        self._unlinked = []
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def begin(self, msg: WorldSpecMsg, drive: Optional[Drive] = None) -> None:
        """
        Take over a new world, or forget the commands when the same one starts over.

        So it does when only the mode changed; a camera path then goes on where it was.

        :param msg: description of the world
        :param drive: of its robot; None is that of the parameter ``robot``
        :raises SpecError: the world cannot be commanded, or does not fit the robot description,
            ``camera_link`` or ``camera_path``; the world before it stays
        """
        spec = command_spec_from_msg(msg, self._params.cmd_timeout_s, self._limits)
        if self._robot is not None:
            spec = spec.within(self._robot.joint_limits)
        drive = drive or self._drive
        if drive:
            spec = spec.driven_by(drive)
        camera = carried_camera_from_msg(msg, self._robot, self._params.camera_link)
        playback, stamp_ns = None, stamp_to_ns(msg.header.stamp)
        if self._path is not None:
            require_free_camera('camera_path', msg.engine, msg.free_camera)
            playback = CameraPlayback.begin(self._path, msg.frame_rate, stamp_ns)
        began = stamp_ns, msg.engine, msg.scene, msg.world_resource, msg.seed
        with self._lock:
            goes_on = began == self._began[0] and msg.mode != self._began[1]
            self._began = began, msg.mode
            if self._buffer is None:
                self._buffer = CommandBuffer(spec)
            elif self._buffer.spec != spec:
                self._buffer = CommandBuffer(spec, self._buffer.counts)
            self._buffer.clear()
            self._camera, self._frame_id = camera, msg.header.frame_id
            self._num_frames, self._period_s = msg.frames_per_step, 1.0 / msg.frame_rate
            if self._unlinked and self._num_frames > 1 and not spec.ages_in_sim_time:
                self._num_frames *= 2  # the step that follows may begin late, or be made ahead
            self._period_ns = round(1e9 / msg.frame_rate)
            self._valid_until_ns = 0
            if not goes_on:
                self._joint_position = np.zeros(len(spec.joint_names))
                self._playback, self._path_is_over = playback, False
                self._sim_ns = stamp_ns
        self.trajectories.end('The world was reset, or its mode has changed.')

    def pull(self, sim_ns: int, joint_position: np.ndarray,
             by_step: bool = False) -> Optional[ActionEmbedding]:
        """
        Encode the newest commands for the step that starts now.

        :param sim_ns: sim time of the newest frame
        :param joint_position: (J,) where the joints are, rad or m
        :param by_step: the step was asked for; wall time since the last one ages no command
        :return: the embedding; None before a world has begun
        """
        with self._lock:
            if self._buffer is None:
                return None
            self._sim_ns, self._joint_position, self._by_step = sim_ns, joint_position, by_step
            embedding = self._encode(self._buffer)
        if self._publisher.get_subscription_count():
            self._publisher.publish(embedding_to_msg(embedding, self._frame_id))
        return embedding

    def observe(self, stamp_ns: int, position: np.ndarray, velocity: np.ndarray) -> None:
        """
        Tell of a frame of the session in this process.

        :param stamp_ns: its sim time
        :param position: (J,) of the joints, rad or m
        :param velocity: (J,) rad/s or m/s
        """
        if self.trajectories.goal is not None:
            self.trajectories.observe(stamp_ns, position, velocity)

    def stop(self, reason: str) -> None:
        """
        Follow no goal any more.

        :param reason: for whoever sent it
        """
        self.trajectories.end(f'The goal has ended: {reason}.')

    def catch_up(self) -> None:
        """
        Take over commands that wait in their queues; in the executor's thread only.

        The executor may come to a step request before a command that was sent ahead of it.
        """
        for listener in self.command_listeners:
            listener.take_waiting(qos.STATE.depth)  # a flood must not hold up the step

    def encode(self) -> None:
        """Publish what the coming step is asked to do; where no session pulls it."""
        with self._lock:
            if self._buffer is None:
                return
            embedding = self._encode(self._buffer)
        self._publisher.publish(embedding_to_msg(embedding, self._frame_id))

    def on_parameter(self, name: str, value: Any) -> None:
        """Let a parameter that was set while running take effect."""
        with self._lock:
            if name == 'cmd_timeout_s' and self._buffer is not None:
                self._buffer.set_timeout(value)

    def on_world_spec(self, msg: WorldSpecMsg) -> None:
        """Begin with the world that another process runs."""
        try:
            self.begin(msg)
        except SpecError as error:
            self._warn('world_spec', shown(error, MESSAGE_LENGTH))

    def on_look(self) -> None:
        """Tell, once each, who publishes cmd_vel in a type that never arrives here."""
        topic, own = self.cmd_vel.topic_name, self.cmd_vel.msg_type.__name__
        for info in self.get_publishers_info_by_topic(topic):
            kind = info.topic_type.rpartition('/')[2]
            node = node_of(info)
            if kind != own and node is not None and (node, kind) not in self._told_types:
                self._told_types.add((node, kind))
                self.get_logger().warning(
                    f'{topic}: {node} publishes {kind}, but {own} is expected, so nothing '
                    'arrives. Change its type, or set cmd_vel_type.')

    def on_joint_states(self, msg: JointState) -> None:
        """Note where the joints are; what changes from frame to frame is encoded anew."""
        with self._lock:
            if self._buffer is None or len(msg.position) != len(msg.name):
                return
            self._sim_ns = stamp_to_ns(msg.header.stamp)
            known = self._buffer.spec.joint_names
            for name, position in zip(msg.name, msg.position):
                if name in known and isfinite(position):  # NaN is what nobody has measured
                    self._joint_position[known.index(name)] = position
            is_due = self._valid_until_ns or self._buffer.spec.ages_in_sim_time
        if self.trajectories.goal is not None:
            speeds = dict(zip(msg.name, msg.velocity))
            self.observe(stamp_to_ns(msg.header.stamp), self._joint_position,
                         np.array([speeds.get(name, 0.0) for name in known]))
        if is_due:
            self.encode()

    def on_cmd_vel(self, msg: Union[Twist, TwistStamped]) -> None:
        """Base velocity, Twist or TwistStamped."""
        linear, angular, stamp_ns = twist_from_msg(msg)
        topic = self._params.topics.cmd_vel
        if self._path is not None:
            self._take(topic, lambda buffer, *_: buffer.refuse(
                topic, 'the camera follows camera_path; leave that empty to drive'))
            return
        self._take(topic, lambda buffer, now_ns, sim_ns: buffer.twist(
            linear, angular, now_ns, stamp_ns=stamp_ns, sim_ns=sim_ns, topic=topic))

    def on_joint_command(self, msg: JointState) -> None:
        """Positions or velocities of named joints."""
        topic = self._params.topics.joint_command
        self._take(topic, lambda buffer, now_ns, sim_ns: buffer.joints(
            *joint_command_from_msg(msg), now_ns, topic=topic))

    def on_arm_commands(self, msg: Float64MultiArray) -> None:
        """One value per joint in world_spec order."""
        topic = self._params.topics.joint_commands
        self._take(topic, lambda buffer, now_ns, sim_ns: buffer.joint_array(
            msg.data, self._params.arm_commands_interface, now_ns, topic=topic))

    def on_trajectory(self, msg: JointTrajectory) -> None:
        """Positions over sim time."""
        topic = self._params.topics.joint_trajectory
        self._take(topic, lambda buffer, now_ns, sim_ns: self._follow(
            buffer, msg, topic, sim_ns, self._params.policy_frequency))

    def take_goal(self, request: Any, begin: Callable[[TrajectoryGoal], None]) -> bool:
        """
        Take over a goal of the action as a command.

        :param request: control_msgs/FollowJointTrajectory_Goal
        :param begin: called with the goal before a step can follow it
        :return: whether it was taken; if not, the log says why
        """
        topic, constraints = self.trajectories.name, self._params.constraints

        def command(buffer: CommandBuffer, now_ns: int, sim_ns: int) -> None:
            msg, before = request.trajectory, buffer.accepted
            standstill = self._standstill()
            if standstill:
                buffer.refuse(topic, standstill)
            try:
                goal = goal_from_msg(request, Constraints(
                    constraints.trajectory, constraints.goal, constraints.goal_time))
            except SpecError as error:
                buffer.refuse(topic, str(error))
            buffer.require_within(msg.joint_names, [p.positions for p in msg.points], topic)
            self._follow(buffer, msg, topic, sim_ns, 0.0)
            assert buffer.accepted == before + 1, 'a goal of NaN alone was refused before'
            begin(goal.accepted(buffer.accepted, buffer.spec.joint_names))
        is_taken = self._take(topic, command)
        if is_taken and self._on_command is None:
            self._watch.begin()
        return is_taken

    def hold(self, number: int) -> None:
        """
        Let joints hold where they are that follow one command.

        :param number: of the command
        """
        with self._lock:
            if self._buffer is None:
                return
            self._buffer.hold(number)
        if self._on_command is None:
            self.encode()

    def _follow(self, buffer: CommandBuffer, msg: JointTrajectory, topic: str, sim_ns: int,
                policy_frequency_hz: float) -> None:
        names, times_s, positions, velocities, accelerations, start_ns = trajectory_from_msg(msg)
        buffer.trajectory(
            names, times_s, positions, velocities, accelerations, start_ns=start_ns,
            sim_ns=sim_ns, topic=topic, policy_frequency_hz=policy_frequency_hz,
            may_end_in_motion=self._params.allow_nonzero_velocity_at_trajectory_end)

    def _take(self, topic: str, command: Callable[[CommandBuffer, int, int], None]) -> bool:
        """Hand a command over to the buffer; say what was wrong with it, and whether it counts."""
        sim_ns = self._newest_frame_ns()  # before the lock: a session may hold its own meanwhile
        with self._lock:
            buffer, accepted, usurper = self._buffer, None, ''
            if buffer is None:
                problem = f'{topic}: dropped, no world runs yet; start world_model.'
            else:
                told, before, problem = buffer.message, buffer.accepted, ''
                try:
                    command(buffer, self._now_ns(buffer, sim_ns), sim_ns)
                    if buffer.accepted != before:  # else it was all NaN, no command for anybody
                        accepted = buffer.accepted
                        usurper = self.trajectories.usurper(buffer)
                    if buffer.message is not told:
                        problem = buffer.message
                except SpecError as error:
                    problem = str(error)
        if problem:
            self._warn(topic, problem)
        if accepted is None:
            return False
        if usurper:
            self.trajectories.end(f'A command on {usurper} has taken over.', holds=False)
        if self._on_command is None:
            self.encode()
        else:
            self._on_command(accepted)
        return True

    def _encode(self, buffer: CommandBuffer) -> ActionEmbedding:
        """Encode the coming step; call it with the lock held."""
        assert self._camera is not None
        self._sequence += 1
        sim_ns = self._sim_ns
        targets = buffer.targets(self._now_ns(buffer, sim_ns), sim_ns, self._num_frames,
                                 self._period_ns, self._joint_position)
        self.trajectories.planned(buffer, sim_ns)
        motion = None
        if self._playback is not None:
            motion, targets = self._played(self._playback, buffer, targets)
        self._valid_until_ns = targets.valid_until_ns
        return encode(targets, buffer.spec, self._camera, self._joint_position,
                      sequence=self._sequence, stamp_ns=sim_ns, period_s=self._period_s,
                      counts=buffer.counts, motion=motion)

    def _played(self, playback: CameraPlayback, buffer: CommandBuffer,
                targets: Targets) -> Tuple[np.ndarray, Targets]:
        """Return the camera's motion along the path, and targets that hold for this step only."""
        sim_ns = self._sim_ns
        if not playback.has_ended(sim_ns):
            valid_ns = sim_ns + self._num_frames * self._period_ns
            targets = replace(targets, valid_until_ns=valid_ns)
        elif not self._path_is_over:
            self._path_is_over = True
            buffer.tell(f'camera_path: all {len(playback.path)} frames were played; the camera '
                        'rests until the next reset.')
        return playback.motion(sim_ns, self._num_frames), targets

    def _now_ns(self, buffer: CommandBuffer, sim_ns: int) -> int:
        """
        Return the time in which commands age; call it with the lock held.

        Sim time where a run must repeat, else wall time, but for what passes between steps that
        a client asks for one by one.
        """
        if buffer.spec.ages_in_sim_time:
            return sim_ns
        now_ns = time.monotonic_ns()
        last_ns, last_sim_ns = self._aged_at
        if self._by_step:
            self._stood_ns += max(0, now_ns - last_ns - max(0, sim_ns - last_sim_ns))
        self._aged_at = now_ns, sim_ns
        return now_ns - self._stood_ns

    def _warn(self, topic: str, text: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._quiet_until_s.get(topic, 0.0):
            self._quiet_until_s[topic] = now_s + LOG_PERIOD_S
            self.get_logger().warning(text)


def main(args: Optional[List[str]] = None) -> int:
    """Run the node until it is interrupted; return the exit code."""
    return spin_node(ActionEncoderNode, args)
