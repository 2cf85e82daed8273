# SPDX-License-Identifier: Apache-2.0
"""
A simulator that is reached over ROS, as an engine: commands go out as topics, frames come in.

Ours or another one: it publishes images, joint states and odometry, offers the services of
``simulation_interfaces``, and stands in a room that is known here. Where it can be stepped, a step
publishes a command, asks for one frame and takes what carries its stamp; where it cannot, a step
waits for the frame that comes.
"""
import time
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from diagnostic_msgs.msg import DiagnosticArray
from lingbot_world_ros.actions.layout import ANGULAR, LATERAL, LINEAR, robot_action_layout
from lingbot_world_ros.engines.interface import (Capabilities, Observation, Rows, Scenes, Seeds,
                                                 Start, WorldModel, WorldSpec)
from lingbot_world_ros.engines.registry import engines, TRUTH_ENGINE
from lingbot_world_ros.errors import EngineLost, shown, SpecError
from lingbot_world_ros.geometry import se2
from lingbot_world_ros.messages.diagnostics import entry_to_msg, OK as HEALTHY
from lingbot_world_ros.messages.encodings import depth_from_msg, rgb_from_msg
from lingbot_world_ros.messages.frames import planar_pose_from_msg
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.command_publishers import CommandPublishers
from lingbot_world_ros.nodes.parameters import as_overrides, declare
from lingbot_world_ros.nodes.ros_environment import prepare_environment
from lingbot_world_ros.nodes.simulation_answers import installed
from lingbot_world_ros.nodes.world_client import ALREADY, OK, PAUSED, PLAYING
from lingbot_world_ros.plain_yaml import as_yaml
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.session.states import Mode
from lingbot_world_ros.settings.parameters import PARAMS, TOPICS
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

OWN = (*TOPICS, *(PARAMS[name] for name in ('service_prefix', 'entity_name')))
STATES = ('base', 'joints', 'contact', 'objects')
SILENT_S = 3.0  # a simulator that shows nothing for this long after a reset shows it with a step
FOUND_S = 3.0  # after its topics a simulator's services are found, or the other way round
STILL = np.array([0.02, 0.02, 0.05])  # m/s, m/s, rad/s: a robot that moves by less stands
STILL_RADPS = 0.1  # and its joints
OLD_S = 0.2  # in which what has waited to be heard is taken and left out
SERVICES = {'LoadWorld': 'load_world', 'ResetSimulation': 'reset_simulation',
            'StepSimulation': 'step_simulation', 'SetSimulationState': 'set_simulation_state',
            'GetEntitiesStates': 'get_entities_states'}
PURPOSES = {'GetEntitiesStates': ', which tells where robot and objects are'}


class RosWorld(WorldModel):
    """
    The one world of a simulator on topics.

    Scenes are those that ship: rooms whose geometry the tasks know. ``spec.can.know_truth`` holds
    for simulators that do not publish ``world_spec``, and for the reference world.
    """

    def __init__(self, *, profile: str = DEFAULT_PROFILE, namespace: str = '', robot: str = '',
                 scene: str = '', image: bool = True, depth: bool = False, entities: bool = True,
                 frame_rate_hz: float = 15.0, steps_per_frame: int = 1,
                 domain_id: Optional[int] = None, patience_s: float = 60.0,
                 stale_s: Optional[float] = None) -> None:
        """
        Find the simulator.

        :param profile: names of its topics and the prefix of its services, as ``sim --profile``
        :param namespace: of the world, '' for none
        :param robot: as the parameter ``robot``; '' is that of the world that tells world_spec
        :param scene: that a simulator without world_spec stands in
        :param image: whether the picture is wanted
        :param depth: whether depth is
        :param entities: whether poses come from GetEntitiesStates; else the base's is that of
            odometry since the reset, and objects have none
        :param frame_rate_hz: of a simulator without world_spec: sim time from frame to frame
        :param steps_per_frame: of such a one: its own steps from frame to frame
        :param domain_id: ROS domain; None goes by ROS_DOMAIN_ID
        :param patience_s: wall time after which waiting for the simulator ends in an error
        :param stale_s: wall time without a new frame after which the robot is told to stop, while
            the frame is waited for; None: it is not
        :raises SpecError: there is none, or it does not fit; says what is missing
        """
        prepare_environment()
        self._patience_s, self._stale_s, self._gave_up = patience_s, stale_s, False
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        try:
            self._set_up(profile, namespace, image, depth, entities)
            self._find(robot, scene, frame_rate_hz, steps_per_frame)
        except EngineLost as error:
            self.close()
            raise SpecError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _set_up(self, profile: str, namespace: str, image: bool, depth: bool,
                entities: bool) -> None:
        """Make the ends of all topics and services."""
        names = {row.name for row in OWN}
        given = {name: value for name, value in load_profile(profile).items() if name in names}
        self._node = node = Node('ros_world', context=self._context, namespace=namespace or None,
                                 use_global_arguments=False,
                                 parameter_overrides=as_overrides(given))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._params = params = declare(node, OWN)
        topics = params.topics
        self._newest: Dict[str, Any] = {}  # messages, by sense
        self._num_heard = 0
        self._status: Optional[WorldStatusMsg] = None
        self._contact = 0.0  # the largest of the step
        self._told: Optional[WorldSpecMsg] = None
        self._takes_entities = entities
        wanted = [('joints', JointState, topics.joint_states), ('odom', Odometry, topics.odom)]
        wanted += [('image', Image, topics.image)] if image else []
        wanted += [('depth', Image, topics.depth)] if depth else []
        self._topics = {name: topic for name, _, topic in wanted}
        for name, msg_type, topic in wanted:
            qos.Listener(node, msg_type, topic, self._keeper(name), qos.STATE)
        qos.Listener(node, WorldStatusMsg, 'world_status', self._on_status, qos.STATE)
        qos.Listener(node, WorldSpecMsg, 'world_spec', self._on_spec, qos.LATCHED)
        self._commands = CommandPublishers(node, topics.cmd_vel, topics.joint_command)
        self._moves_joints = False
        self._can_reset: Optional[bool] = None  # not asked for yet
        self._diagnostics = qos.publisher(node, DiagnosticArray, topics.diagnostics, qos.STATE)
        prefix = params.service_prefix.rstrip('/') + '/' if params.service_prefix else ''
        self._clients: Dict[str, Any] = {
            name: node.create_client(kind, prefix + topic) for name, topic in SERVICES.items()
            for kind in [installed('srv', name)] if kind is not None}
        self._stamp_ns = self._last_ns = 0
        self._start_odom, self._scene_odom, self._scene = np.zeros(3), np.zeros(3), ''

    def _find(self, robot: str, scene: str, frame_rate_hz: float, steps_per_frame: int) -> None:
        """Wait for the simulator, and work out what it is."""
        self._wait(lambda: self._told is not None or self._newest or self._offers('StepSimulation')
                   or self._offers('ResetSimulation'), lambda: 'a simulator: nobody '
                   f'publishes world_spec or {", ".join(self._topics.values())}, nor offers '
                   'StepSimulation or ResetSimulation')
        spec = self._node.resolve_topic_name('world_spec')
        if self._wait(lambda: self._told is not None or self._node.count_publishers(spec),
                      lambda: '', FOUND_S, is_needed=False):
            self._wait(lambda: self._told is not None, lambda: f'what {spec} tells')
        told = self._told
        entry = None if told is None else engines().get(told.engine)
        found = load_robot(robot or ('' if entry is None else entry.robot))
        layout = robot_action_layout(found)
        if told is not None:
            if tuple(told.action_names) != layout.names:
                raise SpecError(f'The world of engine {shown(told.engine)} moves '
                                f'{", ".join(told.action_names)}, robot {shown(found.name)} '
                                f'{", ".join(layout.names)}; give its robot (robot=...).')
            if told.frames_per_step != 1:
                raise SpecError(f'The engine {shown(told.engine)} makes {told.frames_per_step} '
                                'frames per step; a world behind an environment makes one.')
            if told.mode == Mode.LOCKSTEP:
                raise SpecError('The world is in mode lockstep, where each command is a step; '
                                'start it with mode:=stepped.')
            frame_rate_hz, steps_per_frame = told.frame_rate, 1
        if told is None and not scene and not self._takes_entities:
            scene = next(iter(SCENES))  # where the robot stands does not matter to who asks
        scenes = (scene,) if told is None else tuple(told.scenes)
        for name in scenes:
            if name not in SCENES:
                raise SpecError(f'scene={shown(name)} is none of {", ".join(SCENES)}, which the '
                                'tasks are in; give the one that the simulator stands in '
                                '(scene=...).')
        limit = np.nan if told is None else told.uncertainty_limit
        self.spec = WorldSpec(
            engine='ros' if told is None else told.engine,
            model='ros' if told is None else told.model, scenes=scenes, robot=found,
            action=layout, frame_rate_hz=frame_rate_hz,
            predicted_states=STATES if told is None else tuple(told.predicted_states),
            integrated_states=() if told is None else tuple(told.integrated_states),
            has_depth='depth' in self._topics if told is None else told.has_depth,
            uncertainty_limit=float(limit) if np.isfinite(limit) else None,
            can=Capabilities(take_poses=False, keep_scenes=True,
                             know_truth=told is None or told.engine == TRUTH_ENGINE))
        self._steps_per_frame = steps_per_frame

    # WorldModel

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """
        See ``WorldModel``.

        A simulator without world_spec starts as it always does: it knows no seed. Where nothing
        can be reset, as a robot, it stops and begins where it then stands.
        """
        scene = scenes if isinstance(scenes, str) else scenes[0]
        seed = int(np.ravel(seeds)[0])
        if scene not in self.spec.scenes:
            raise SpecError(f'scene={shown(scene)} is none of {", ".join(self.spec.scenes)}.')
        if start is not None and start != Start():
            raise SpecError('A world on topics takes no prompt and no images at a reset.')
        self._rest()
        self._newest.clear()
        self._status, self._stamp_ns, self._last_ns, self._contact = None, 0, -1, 0.0
        if self._told is not None:
            world = f'{{name: environment, scene: {as_yaml(scene)}, seed: {seed}}}'
            request = self._request('LoadWorld')
            getattr(request, 'world_resource', request).resource_string = world
            self._ask('LoadWorld', request)
            self._set_state(PAUSED if self.is_stepped else PLAYING)
        elif self.can_reset:
            self._ask('ResetSimulation', self._request('ResetSimulation'))
            if self.is_stepped:
                self._set_state(PAUSED)
        else:
            self._come_to_rest()
        self._scene = scene
        if not self._wait(self._is_there, self._missing, SILENT_S, is_needed=False):
            if self.is_stepped:
                self._step_simulation()
            self._wait(self._is_there, self._missing)
        self._start_odom = planar_pose_from_msg(self._newest['odom'].pose.pose)
        return self._seen(render)

    @property
    def can_reset(self) -> bool:
        """Whether it goes back to a start when an episode begins; a robot does not."""
        if self._can_reset is None:
            self._can_reset = self._told is not None or self._wait(
                lambda: self._offers('ResetSimulation'), lambda: '', FOUND_S, is_needed=False)
        return self._can_reset

    def tell(self, message: str, values: Mapping[str, str]) -> None:
        """
        Publish how who drives is doing, on the topic of diagnostics.

        :param message: one line
        :param values: name -> value
        """
        name = f'{self._node.get_fully_qualified_name().lstrip("/")}: policy'
        self._diagnostics.publish(entry_to_msg(name, HEALTHY, message, values, self._stamp_ns))

    def join(self, render: bool = True) -> Observation:
        """
        Take the world as it runs, without a reset; the robot is told to stop.

        A stepped world makes one step, since it shows nothing while it stands.

        :param render: as in ``WorldModel.step``
        :return: the world as it is
        :raises SpecError: it is in no scene that is known here, or does not fit
        :raises EngineLost: nothing comes
        """
        self._rest()
        self._wait(lambda: False, self._missing, OLD_S, is_needed=False)
        self._newest.clear()
        self._status, self._stamp_ns, self._last_ns, self._contact = None, 0, -1, 0.0
        told = self._told
        self._scene = self.spec.scenes[0] if told is None else told.scene
        if self._scene not in SCENES:
            raise SpecError(f'scene={shown(self._scene)} is none of {", ".join(SCENES)}, which '
                            'are known here.')
        if self.is_stepped:
            self._step_simulation()
        self._wait(self._is_there, self._missing)
        self._start_odom = planar_pose_from_msg(self._newest['odom'].pose.pose)
        return self._seen(render)

    def stop(self) -> None:
        """Tell the robot to stop; from any thread."""
        self._rest()

    def give_up(self) -> None:
        """Let the wait that is under way, and later ones, end in ``EngineLost``; any thread."""
        self._gave_up = True

    @property
    def scene(self) -> str:
        """The scene that the world is in, '' before ``reset`` or ``join``."""
        return self._scene

    @property
    def sim_ns(self) -> int:
        """Sim time of the newest frame that was taken."""
        return self._stamp_ns

    @property
    def scene_odom(self) -> np.ndarray:
        """Where the frame of odometry is in the scene, (3,) x, y [m], yaw [rad]."""
        return self._scene_odom.copy()

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """See ``WorldModel``."""
        expected = 1, 1, len(self.spec.action.dims)
        if np.shape(actions) != expected:
            raise SpecError(f'actions have shape {np.shape(actions)}, expected {expected}.')
        self._command(dict(zip(self.spec.action.names, actions[0, 0].tolist())))
        if not self.is_stepped:
            self._catch_up()
        self._last_ns, self._contact = self._stamp_ns, 0.0
        self._stamp_ns = self._last_ns + self.spec.frame_period_ns
        if self.is_stepped:
            self._step_simulation()
        if self._stale_s is not None and not self._wait(self._is_there, self._missing,
                                                        self._stale_s, is_needed=False):
            self._rest()
        self._wait(self._is_there, self._missing)
        return self._seen(render)

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """Refuse: who is elsewhere cannot be put elsewhere from here."""
        raise self._refusal('cannot be put elsewhere from an environment')

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """See ``WorldModel``."""
        return tuple(movable.name for movable in get_scene(scene).movables)

    def snapshot(self, rows: Rows = None) -> Any:
        """Refuse: nobody hands out the state of a simulator."""
        raise self._refusal('hands out no snapshot')

    def restore(self, snapshot: Any, rows: Rows = None) -> None:
        """Refuse, as ``snapshot``."""
        raise self._refusal('takes no snapshot')

    def close(self) -> None:
        """Stop the robot and leave the graph."""
        if not self._context.ok():
            return
        if hasattr(self, '_commands'):
            self._rest()
        if hasattr(self, '_executor'):
            self._executor.shutdown()
            self._node.destroy_node()
        self._context.try_shutdown()

    # What comes in, in the calling thread: nothing spins but who waits.

    def _keeper(self, name: str) -> Callable[[Any], None]:
        def keep(msg: Any) -> None:
            self._newest[name] = msg
            self._num_heard += 1
        return keep

    def _on_status(self, msg: WorldStatusMsg) -> None:
        self._status = msg
        self._num_heard += 1
        if self._last_ns < stamp_to_ns(msg.header.stamp):  # else it is of the frame before, again
            self._contact = max(self._contact, msg.contact)

    def _on_spec(self, msg: WorldSpecMsg) -> None:
        self._told = msg

    @property
    def is_stepped(self) -> bool:
        """Whether frames are asked for; else they come by themselves."""
        if self._told is not None:
            return self._told.mode == Mode.STEPPED
        return self._offers('StepSimulation')

    def _catch_up(self) -> None:
        """Take what has come by itself: the next frame is one that the next command can move."""
        heard = -1
        while heard != self._num_heard:
            heard = self._num_heard
            self._executor.spin_once(timeout_sec=0.0)
        self._stamp_ns = max(stamp_to_ns(msg.header.stamp) for msg in self._newest.values())

    def _is_there(self) -> bool:
        """Tell whether every sense has shown the frame that is waited for, or a later one."""
        since_ns = self._stamp_ns - self.spec.frame_period_ns // 2
        if self._told is not None and (self._status is None or
                                       stamp_to_ns(self._status.header.stamp) < since_ns):
            return False
        return all(name in self._newest and
                   stamp_to_ns(self._newest[name].header.stamp) >= since_ns
                   for name in self._topics)

    def _missing(self) -> str:
        late = [topic for name, topic in self._topics.items() if name not in self._newest]
        return f'a frame at {self._stamp_ns * 1e-9:.3f} s on {", ".join(late) or "all topics"}'

    def _seen(self, render: bool) -> Observation:
        """Put together what the newest frame shows."""
        odom, joints = self._newest['odom'], self._newest['joints']
        self._stamp_ns = max(stamp_to_ns(self._newest[name].header.stamp)
                             for name in self._topics)
        place = dict(zip(joints.name, range(len(joints.name))))
        try:
            order = [place[name] for name in self.spec.robot.joint_names]
        except KeyError as error:
            raise SpecError(f'{self._topics["joints"]} has no joint {error}, which robot '
                            f'{shown(self.spec.robot.name)} has.') from error
        position = np.array(joints.position, float)[order]
        velocity = (np.array(joints.velocity, float)[order] if len(joints.velocity)
                    else np.zeros(len(order)))
        odometry = planar_pose_from_msg(odom.pose.pose)
        base, objects = self._poses(odometry)
        self._scene_odom = se2.compose(base, se2.inverse(odometry))
        twist = odom.twist.twist
        status = self._status
        seen = Observation(
            rgb=self._picture('image', rgb_from_msg) if render else None,
            depth_m=self._picture('depth', depth_from_msg) if render else None,
            base_pose=base[None, None],
            base_twist=np.array([[[twist.linear.x, twist.linear.y, twist.angular.z]]]),
            joint_position=position[None, None], joint_velocity=velocity[None, None],
            contact=np.full((1, 1), self._contact, np.float32), object_pose=objects[None, None])
        if render and status is not None and np.isfinite(status.uncertainty):
            seen.uncertainty = np.full((1, 1), status.uncertainty, np.float32)
            seen.calibrated = np.full((1, 1), status.uncertainty_calibrated)
        return seen

    def _picture(self, name: str, read: Callable[[Any], np.ndarray]) -> Optional[np.ndarray]:
        """Return a picture of the size that the robot's camera has."""
        if name not in self._topics:
            return None
        pixels, camera = read(self._newest[name]), self.spec.camera
        if pixels.shape[:2] != (camera.height_px, camera.width_px):
            raise SpecError(f'{self._topics[name]} shows {pixels.shape[1]}x{pixels.shape[0]} '
                            f'pixels, the camera of robot {shown(self.spec.robot.name)} has '
                            f'{camera.width_px}x{camera.height_px}; make them the same.')
        return pixels[None, None].copy()

    def _poses(self, odometry: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return where base (3,) and objects (n, 3) are."""
        names = self.object_names(self._scene)
        if not self._takes_entities:
            return se2.relative(self._start_odom, odometry), np.zeros((len(names), 3))
        answer = self._ask('GetEntitiesStates', self._request('GetEntitiesStates'))
        poses = {name: planar_pose_from_msg(state.pose)
                 for name, state in zip(answer.entities, answer.states)}
        missing = [name for name in (self._params.entity_name, *names) if name not in poses]
        if missing:
            raise SpecError(f'GetEntitiesStates tells nothing of {", ".join(missing)}; it tells '
                            f'of {", ".join(sorted(poses)) or "nothing"}.')
        objects = [poses[name] for name in names]
        return poses[self._params.entity_name], np.array(objects).reshape(-1, 3)

    # What goes out

    def _command(self, action: Mapping[str, float]) -> None:
        """Publish an action as commands."""
        self._wait(self._commands.look, lambda: f'somebody who listens to '
                   f'{self._commands.topics["cmd_vel"]}')
        self._commands.twist(action[LINEAR], action.get(LATERAL, 0.0), action[ANGULAR])
        names = self.spec.robot.joint_names
        speeds = list(action.values())[-len(names):] if names else []
        if any(speeds) or self._moves_joints:
            self._moves_joints = True  # a velocity that is not repeated comes to nothing
            self._commands.joint_velocities(names, speeds)

    def _rest(self) -> None:
        """Let go."""
        self._commands.twist(0.0, 0.0, 0.0)
        if self._moves_joints:
            names = self.spec.robot.joint_names
            self._commands.joint_velocities(names, [0.0] * len(names))
            self._moves_joints = False

    def _come_to_rest(self) -> None:
        """Wait until a robot that was told to stop stands; who goes on from there measures it."""
        def stands() -> bool:
            if not {'odom', 'joints'} <= set(self._newest):
                return False
            twist = self._newest['odom'].twist.twist
            speeds = np.abs([twist.linear.x, twist.linear.y, twist.angular.z])
            return bool((speeds <= STILL).all() and
                        (np.abs(self._newest['joints'].velocity) <= STILL_RADPS).all())
        self._wait(stands, lambda: f'the robot to stand still ({self._topics["odom"]} and '
                   f'{self._topics["joints"]} tell that), which was told to stop')
        self._newest.clear()

    def _step_simulation(self) -> None:
        request = self._request('StepSimulation')
        request.steps = self._steps_per_frame
        self._ask('StepSimulation', request)

    def _set_state(self, state: int) -> None:
        request = self._request('SetSimulationState')
        request.state.state = state
        self._ask('SetSimulationState', request, (OK, ALREADY))

    def _offers(self, name: str) -> bool:
        return name in self._clients and self._clients[name].service_is_ready()

    def _request(self, name: str) -> Any:
        if name not in self._clients:
            raise SpecError(f'{name} of simulation_interfaces is not installed here.')
        return self._clients[name].srv_type.Request()

    def _ask(self, name: str, request: Any, good: Sequence[int] = (OK,)) -> Any:
        """Call a service and return its answer."""
        client = self._clients[name]
        self._wait(client.service_is_ready, lambda: f'service {client.srv_name}'
                   f'{PURPOSES.get(name, "")}')
        future = client.call_async(request)
        self._wait(future.done, lambda: f'the answer of {client.srv_name}')
        answer: Any = future.result()
        if answer.result.result not in good:
            raise SpecError(f'{client.srv_name}: result {answer.result.result}: '
                            f'{answer.result.error_message}')
        return answer

    def _wait(self, happened: Callable[[], Any], what: Callable[[], str],
              patience_s: Optional[float] = None, is_needed: bool = True) -> bool:
        """Spin until something happened; return whether it did, or raise that it is missing."""
        patience_s = self._patience_s if patience_s is None else patience_s
        deadline_s = time.monotonic() + patience_s
        while not happened():
            if self._gave_up or time.monotonic() > deadline_s:
                if is_needed:
                    raise EngineLost(f'Waited {patience_s:g} s in vain for {what()}, in ROS '
                                     f'domain {self._context.get_domain_id()}. Is the world '
                                     'there that ROS_DOMAIN_ID and --namespace mean?')
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True
