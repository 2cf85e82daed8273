# SPDX-License-Identifier: Apache-2.0
"""
Node ``view``: what the operator's page shows and asks for, as topics and services.

It knows a simulator by its topics alone, so it may run on another machine and beside another
simulator with the same profile. Pictures and states are subscribed to while a page is open.
"""
import asyncio
from math import inf, isfinite, pi
import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.messages import page
from lingbot_world_ros.messages.encodings import depth_from_msg, rgb_from_msg
from lingbot_world_ros.messages.map import map_from_msg
from lingbot_world_ros.messages.simulation import state_name
from lingbot_world_ros.messages.stamps import stamp_to_ns
from lingbot_world_ros.messages.world import STATES
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg, WorldStatus as WorldStatusMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.command_publishers import CommandPublishers
from lingbot_world_ros.nodes.endpoints import node_of
from lingbot_world_ros.nodes.floor_map import FloorMap
from lingbot_world_ros.nodes.parameter_service import SafeParameterService
from lingbot_world_ros.nodes.parameters import declare
from lingbot_world_ros.nodes.spinner import Spinner
from lingbot_world_ros.nodes.world_client import WorldClient
from lingbot_world_ros.processes import ending_signals
from lingbot_world_ros.robots.drive import steered
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.urdf import JointLimits, RobotModel
from lingbot_world_ros.session.states import State
from lingbot_world_ros.settings.parameters import VIEW
from lingbot_world_ros.view.link import link_of, LOST_S, Signs
from lingbot_world_ros.view.messages import Drive, MAX_JOINTS, MODES, WorldRequest
from lingbot_world_ros.view.pictures import COLOUR, colour_jpeg, DEPTH, depth_jpeg, FAR_M, TRUTH
from lingbot_world_ros.worlds.floor_plan import FloorPlan
from lingbot_world_ros.worlds.learned import learned_folder
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

TICK_S = 0.1
LOOK_TICKS = 5  # ticks between two looks at who is there
POLL_S = 1.0  # between two questions for the state of a simulator that does not publish it
POLL_PATIENCE_S = 4.0  # an older answer says nothing
WORLDS_S = 10.0  # the same, for the worlds of one that named none
MAX_WORLDS = 200
UNHEARD_S = 2.0  # a picture that was sent once and missed is asked for again after this
AWAY_S = 0.6  # so long, or the world does not see that a subscription was gone
STATE_NAMES = {number: name for name, number in STATES.items()}
# Matches reliable and best-effort publishers alike; only the newest counts.
WATCHING = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Sent once to who joins, while it stands.
OF_A_FRAME = {'image', 'compressed', 'depth', 'odom', 'joint_states', 'path'}
# Of these several nodes tell a part each.
SHARED, WATCHING_ALL = ('joint_states', 'diagnostics'), QoSProfile(
    depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class ViewNode(Node):
    """
    The ``Robot`` of ``view.server``.

    The executor's thread writes what it hears into attributes, each replaced as a whole; the
    server's thread reads them and publishes commands.
    """

    def __init__(self, **node_args: Any) -> None:
        """
        Declare parameters and look for a world.

        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: a parameter cannot be used
        """
        super().__init__('view', start_parameter_services=False, **node_args)
        SafeParameterService(self)
        self.params = declare(self, VIEW)
        topics = self.params.topics
        self.on_picture: Callable[[int, float, bytes], None] = lambda kind, stamp_s, jpeg: None
        robot = load_robot(self.params.robot)
        self._drive = robot.drive if self.params.robot else None
        self._commands = CommandPublishers(self, topics.cmd_vel, topics.joint_command)
        self._client = WorldClient(self, self.params.service_prefix, topics.prompt)
        self._map = FloorMap(self._client.ask_in_background, robot.footprint.height_m,
                             self._learned_plan)
        self._names = self._topic_names()
        # key -> (wall time [s, steady], newest message)
        self._heard: Dict[str, Tuple[float, Any]] = {}
        self._wanted: Set[str] = set()  # keys
        self._followed: Dict[str, Subscription] = {}  # by key
        self._followed_s: Dict[str, float] = {}  # key -> since when it is followed
        self._away_s: Dict[str, float] = {}  # key -> until when it is not
        self._asks_moving: Set[str] = set()  # joints that were asked to move
        self._on_their_way: Set[str] = set()  # joints sent to a position since the last stop
        self._base_asked, self._world_node = False, ''
        self._limits: Dict[str, Tuple[JointLimits, str]] = {}  # and the unit, by joint
        self._worlds: List[Dict[str, str]] = []
        self._polled: Optional[Tuple[float, Optional[str]]] = None  # when, and the state
        self._joints: Dict[str, float] = {}  # name -> position
        self._is_video = False  # compressed is no picture
        self._unshown = ''  # why pictures cannot be shown
        self._asked_worlds_s = -inf
        self._there: Dict[str, int] = {}  # publishers by key
        self._num_others, self._ticks, self._polled_s = 0, 0, 0.0
        qos.Listener(self, WorldSpecMsg, 'world_spec', self.on_world_spec, qos.LATCHED)
        self._follow_description()
        self._world = self._describe()
        self.create_timer(TICK_S, self.on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # What the server asks for; its thread

    def world(self) -> dict:
        """Describe the world to a page."""
        return self._world

    def map(self) -> dict:
        """Tell where robot and objects are in the room, and the way of the base."""
        return self._map.told

    def status(self) -> dict:
        """Tell how the world is doing."""
        now_s = time.monotonic()
        status, image = self._newest('status'), self._newest('image')
        link, text = link_of(self._signs(now_s))
        told = {
            'link': link, 'text': text,
            'image_age_s': page.rounded(self._age_s('image', now_s), 2),
            'sim_s': page.stamp_s(status or image), 'joints': self._joint_positions(),
            'pose': page.pose(self._newest('odom')), 'others_on_cmd_vel': self._num_others,
            'truth_error': page.finite(getattr(self._newest('image_error'), 'data', None)),
            'truth_position_error_m': page.finite(
                getattr(self._newest('position_error'), 'data', None))}
        return {**told, **(page.NO_STATUS if status is None else page.status(status))}

    def watch(self, colour: bool, depth: bool, truth: bool) -> None:
        """Follow what pages look at; nothing while there is none."""
        wanted = {'status', 'diagnostics', 'odom', 'joint_states', 'colour'} if colour else set()
        wanted |= {'depth'} if depth else set()
        wanted |= {'truth'} if truth else set()
        self._wanted = wanted

    def drive(self, drive: Drive) -> None:
        """Publish velocities; see ``view.server.Robot``."""
        world = self._world
        speeds = {joint['name']: joint['speed_max'] for joint in world['joints']}
        v_x, v_y = drive.linear * world['linear_max_mps'], drive.lateral * world['lateral_max_mps']
        w_z = drive.angular * world['angular_max_radps']
        if world['max_curvature'] is not None:
            w_z = float(steered(v_x, w_z, world['max_curvature']))
        base = bool(v_x or v_y or w_z)
        if base or self._base_asked:
            self._commands.twist(v_x, v_y, w_z)
        joints = {name: share for name, share in drive.joints.items() if share and name in speeds}
        names = sorted(self._asks_moving | set(joints))
        if names:
            self._commands.joint_velocities(
                names, [joints.get(name, 0.0) * speeds.get(name, 0.0) for name in names])
        self._base_asked, self._asks_moving = base, set(joints)

    def move_joint(self, name: str, position: float) -> None:
        """Publish a joint position; see ``view.server.Robot``."""
        joints = {joint['name']: joint for joint in self._world['joints']}
        if name not in joints:
            raise unknown_name('joint', name, joints)
        low, high = joints[name]['min'], joints[name]['max']
        self._asks_moving.discard(name)
        self._on_their_way.add(name)
        self._commands.joint_positions([name], [min(max(position, low), high)])

    def stop(self, everything: bool = False) -> None:
        """Publish zero once; see ``view.server.Robot``."""
        names = sorted(self._asks_moving | self._on_their_way)
        if self._base_asked or everything:
            self._commands.twist(0.0, 0.0, 0.0)
        if names:
            self._commands.joint_velocities(names, [0.0] * len(names))
        self._base_asked, self._asks_moving, self._on_their_way = False, set(), set()

    def request(self, asked: WorldRequest) -> 'asyncio.Future[Tuple[bool, str]]':
        """Ask the simulator; see ``view.server.Robot``."""
        return asyncio.ensure_future(self._do(asked))

    async def _do(self, asked: WorldRequest) -> Tuple[bool, str]:
        world = self._world
        if asked.what == 'prompt' and not world['can']['prompt']:
            return False, 'This world takes no prompt.'
        return await self._client.do(asked.what, asked.value, world['mode'])

    # What is heard; the executor's thread

    def on_world_spec(self, msg: WorldSpecMsg) -> None:
        """Learn what world it is."""
        before = self._newest('spec')
        self._heard['spec'] = time.monotonic(), msg
        if before is None or before.engine != msg.engine:
            self._joints = {}
            self._worlds, self._asked_worlds_s = [], -inf
        self._map.on_world_spec(msg)
        self._world = self._describe()

    def on_description(self, msg: Any) -> None:
        """Learn joint limits from the robot's URDF, for a simulator without ``world_spec``."""
        try:
            model = RobotModel.from_description(msg.data)
            self._limits = {name: (model.joint_limits[name], unit)
                            for name, unit in model.actuated_joints.items()}
        except SpecError as error:
            self.get_logger().warning(f'{self._names["robot_description"][1]}: {error}')

    def on_tick(self) -> None:
        """Follow what is wanted, and every now and then look who is there."""
        self._ticks += 1
        if self._ticks % LOOK_TICKS == 1:
            self._look()
        self._miss()
        self._follow()

    def _look(self) -> None:
        self._commands.look()
        self._num_others = self._commands.num_others
        for key in ('spec', 'status', 'compressed', 'image', 'truth', 'path'):
            self._there[key] = self.count_publishers(self._names[key][1])
        nodes = map(node_of, self.get_publishers_info_by_topic(self._names['spec'][1]))
        for self._world_node in [*filter(None, nodes)][:1]:
            self._client.know(self._world_node)
        if not self._wanted:
            return
        now_s = time.monotonic()
        if not self._there['status'] and now_s - self._polled_s > POLL_S:
            self._polled_s = now_s
            self._client.ask_in_background('GetSimulationState', self._on_state)
        if not self._worlds and now_s - self._asked_worlds_s > WORLDS_S:
            if self._client.ask_in_background('GetAvailableWorlds', self._on_worlds):
                self._asked_worlds_s = now_s
        self._follow_map()
        self._map.look()
        self._world = self._describe()

    def _follow_map(self) -> None:
        """Listen to the map of a world whose room nobody knows, if nobody else publishes one."""
        kind, topic = self._names['map']
        nodes = {node_of(info) for info in self.get_publishers_info_by_topic(topic)}
        is_told = self._map.takes_map and nodes == {self._world_node}
        if is_told and 'map' not in self._followed:
            self._followed['map'] = self.create_subscription(kind, topic, self.on_map, qos.LATCHED)
        elif not is_told and 'map' in self._followed:
            self.destroy_subscription(self._followed.pop('map'))

    def on_map(self, msg: Any) -> None:
        """Learn how the floor of the world looks."""
        try:
            self._map.on_map(map_from_msg(msg))
        except SpecError as error:
            self.get_logger().warning(f'{self._names["map"][1]}: {error}')

    def _learned_plan(self, scene: str) -> Optional[FloorPlan]:
        """Read the plan of the learned world that the parameter ``world`` names."""
        folder = learned_folder(self.params.world)
        if folder is None:
            return None
        from lingbot_world_ros.models.mapped.runtime import read_plan  # few pages need it
        try:
            name, plan = read_plan(folder)
        except SpecError as error:
            self.get_logger().warning(str(error))
            return None
        return plan if name == scene else None

    def _on_state(self, response: Any) -> None:
        self._polled = time.monotonic(), state_name(response.state.state)

    def _on_worlds(self, response: Any) -> None:
        self._worlds = [
            {'name': world.name, 'uri': world.world_resource.uri,
             'description': world.description}
            for world in response.worlds if world.world_resource.uri][:MAX_WORLDS]

    def _topic_names(self) -> Dict[str, Tuple[Any, str]]:
        """Return key -> message type, full name, of everything that may be followed."""
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import OccupancyGrid, Odometry, Path
        from sensor_msgs.msg import CompressedImage, Image, JointState
        from std_msgs.msg import Float32, String
        topics, beside = self.params.topics, self.params.view.reference.strip('/')
        names = {
            'spec': (WorldSpecMsg, 'world_spec'), 'status': (WorldStatusMsg, 'world_status'),
            'compressed': (CompressedImage, topics.compressed), 'image': (Image, topics.image),
            'depth': (Image, topics.depth), 'odom': (Odometry, topics.odom),
            'joint_states': (JointState, topics.joint_states), 'path': (Path, topics.path),
            'diagnostics': (DiagnosticArray, topics.diagnostics),
            'map': (OccupancyGrid, topics.map),
            'robot_description': (String, topics.robot_description),
            'truth': (CompressedImage, f'{beside}/{topics.compressed.lstrip("/")}'),
            'image_error': (Float32, f'{beside}/image_error'),
            'position_error': (Float32, f'{beside}/position_error')}
        return {key: (kind, qos.topic_name(self, name)) for key, (kind, name) in names.items()}

    def _follow_description(self) -> None:
        kind, topic = self._names['robot_description']
        qos.Listener(self, kind, topic, self.on_description, qos.LATCHED)

    def _miss(self) -> None:
        """
        Leave topics of a standing world that nothing came from, to come back and be seen as new.

        It sends its picture once to who joins, maybe before this side knows the publisher.
        """
        status = self._newest('status')
        if status is None or status.state != STATES[State.PAUSED]:
            return
        now_s = time.monotonic()
        for key in OF_A_FRAME & set(self._followed):
            heard = 'image' if key == 'compressed' else key
            is_late = now_s - self._followed_s[key] > UNHEARD_S and heard not in self._heard
            if is_late and self.count_publishers(self._names[key][1]):
                self.destroy_subscription(self._followed.pop(key))
                self._away_s[key] = now_s + AWAY_S

    def _follow(self) -> None:
        """Subscribe to what is wanted and there, drop what is not."""
        wanted = set(self._wanted)
        if 'colour' in wanted:  # the small one, where there is one that can be shown
            small = self._there.get('compressed') and not (self._is_video
                                                           and self._there.get('image'))
            wanted = wanted - {'colour'} | {'compressed' if small else 'image'}
        if self._there.get('truth') and 'status' in wanted:
            wanted |= {'image_error', 'position_error'}
        if self._there.get('path') and 'odom' in wanted:
            wanted |= {'path'}
        for key in [key for key in self._followed if key not in wanted and key != 'map']:
            self.destroy_subscription(self._followed.pop(key))
            self._heard.pop('image' if key == 'compressed' else key, None)
            if key == 'joint_states':
                self._joints = {}
            elif key in ('compressed', 'image'):
                self._unshown = ''
        now_s = time.monotonic()
        for key in wanted - set(self._followed):
            if now_s < self._away_s.get(key, 0.0):
                continue
            kind, topic = self._names[key]
            self._followed_s[key] = now_s
            self._followed[key] = self.create_subscription(
                kind, topic, lambda msg, key=key: self._hear(key, msg),
                WATCHING_ALL if key in SHARED else WATCHING)

    def _hear(self, topic: str, msg: Any) -> None:
        key: Optional[str] = topic
        if key == 'diagnostics':
            if not any(self._is_ours(entry) for entry in msg.status):
                return
        elif key == 'joint_states':
            self._hear_joints(msg)
        elif key == 'odom':
            self._map.on_odometry(msg, keeps_way='path' not in self._followed)
        elif key == 'path':
            self._map.on_path(msg)
        elif key in ('compressed', 'image', 'depth', 'truth'):
            key = self._show(topic, msg)
        if key is not None:
            self._heard[key] = time.monotonic(), msg

    def _hear_joints(self, msg: Any) -> None:
        """Note where joints are; arm and gripper may each have a publisher of their own."""
        heard = self._joints | dict(zip(msg.name, msg.position))
        if len(heard) <= MAX_JOINTS:
            self._joints = heard

    def _is_ours(self, entry: Any) -> bool:
        return entry.name == f'{self._world_node.lstrip("/")}: world'

    def _show(self, key: str, msg: Any) -> Optional[str]:
        """Hand a picture to the pages; return what it counts as, None if it cannot be shown."""
        stamp_s = stamp_to_ns(msg.header.stamp) * 1e-9
        try:
            if key in ('compressed', 'truth'):
                jpeg = page.picture(msg)
            elif key == 'image':
                jpeg = colour_jpeg(rgb_from_msg(msg))
            else:
                jpeg = depth_jpeg(depth_from_msg(msg))
        except SpecError as error:
            self._is_video |= key == 'compressed'
            if key in ('compressed', 'image'):
                self._unshown = f'{self._names[key][1]}: {error}'
            self.get_logger().warning(f'{self._names[key][1]}: {error}',
                                      throttle_duration_sec=5.0)
            return None
        self.on_picture({'depth': DEPTH, 'truth': TRUTH}.get(key, COLOUR), stamp_s, jpeg)
        if key in ('compressed', 'image'):
            self._unshown = ''
        return 'image' if key == 'compressed' else key

    # What follows from it; either thread

    def _newest(self, key: str) -> Any:
        return self._heard.get(key, (0.0, None))[1]

    def _age_s(self, key: str, now_s: float) -> Optional[float]:
        heard = self._heard.get(key)
        return None if heard is None else now_s - heard[0]

    def _signs(self, now_s: float) -> Signs:
        status, there = self._newest('status'), self._there
        where = (f'{self._names["status"][1]} and {self._names["image"][1]} in ROS domain '
                 f'{self.context.get_domain_id()}')
        ages = [self._age_s(key, now_s) for key in ('status', 'image', 'diagnostics')]
        signs: Dict[str, Any] = {
            'where': where, 'unshown': self._unshown, 'image_age_s': ages[1],
            'watches': 'status' in self._followed,
            'sign_age_s': min((age for age in ages if age is not None), default=None)}
        if status is None:
            polled_s, state = self._polled or (0.0, None)
            if now_s - polled_s > POLL_PATIENCE_S:
                state = None
            elif state is not None:
                ages.append(now_s - polled_s)
                signs['sign_age_s'] = min(age for age in ages if age is not None)
            return Signs(**signs, state=state, lost_s=POLL_PATIENCE_S, has_publishers=bool(
                state or there.get('image') or there.get('compressed')))
        step_s = _step_s(status)
        return Signs(**signs, state=STATE_NAMES.get(status.state), mode=status.mode,
                     message=status.message, step_s=step_s,
                     lost_s=LOST_S if step_s < LOST_S else 2.0 * LOST_S,  # diagnostics: each 1 s
                     has_publishers=bool(there.get('status', 1)))

    def _describe(self) -> dict:
        """Say what the world is; a simulator without world_spec as far as it can be told."""
        spec, topics = self._newest('spec'), self._names
        named = {key: topics[key][1] for key in ('image', 'compressed', 'depth', 'odom',
                                                 'joint_states')}
        told = {
            'namespace': self.get_namespace(), 'domain': self.context.get_domain_id(),
            'topics': {**named, **self._commands.topics}, 'worlds': self._worlds,
            'modes': list(MODES), 'depth_far_m': FAR_M,
            'has_truth': bool(self._there.get('truth')), 'plan': self._map.plan,
            'max_curvature': self._max_curvature(),
            'can': {**self._client.can(), 'prompt': spec is not None and spec.takes_text}}
        return {**told, **(self._describe_unknown() if spec is None else page.world(spec))}

    def _max_curvature(self) -> Optional[float]:
        """Return how tightly the base turns while it drives, 1/m; None if it needs not drive."""
        return page.finite(self._drive.max_curvature) if self._drive else None

    def _describe_unknown(self) -> dict:
        own, image = self.params.view, self._newest('image')
        joints = []
        for name in self._joints:
            limits, unit = self._limits.get(name, (None, 'rad'))
            joints.append(page.joint(name, unit, *(
                (-pi, pi, own.joint_velocity) if limits is None else
                (limits.low, limits.high, min(limits.speed, own.joint_velocity)))))
        return {
            **page.NO_WORLD, 'joints': joints, 'linear_max_mps': own.linear_velocity_mps,
            'lateral_max_mps': self._drive.lateral_max_mps if self._drive else 0.0,
            'angular_max_radps': own.angular_velocity_radps,
            'width': getattr(image, 'width', 0), 'height': getattr(image, 'height', 0),
            'has_depth': self.count_publishers(self._names['depth'][1]) > 0}

    def _joint_positions(self) -> Dict[str, float]:
        return {name: round(position, 4) for name, position in self._joints.items()
                if isfinite(position)}


def _step_s(status: WorldStatusMsg) -> float:
    """Return the wall seconds between pictures, of which one step may bring several at once."""
    rate_hz = page.finite(status.frame_rate) or 0.5  # nothing measured yet
    return max(1.0 / max(rate_hz, 0.1), page.finite(status.step_duration) or 0.0)


async def serve(node: ViewNode, spinner: Spinner, announce: Callable[[str], None]) -> None:
    """
    Serve the page of a node until a signal comes.

    :param node: spun by ``spinner``
    :param spinner: its ``wait`` raises what ended it
    :param announce: called with the address once it listens
    :raises SpecError: it cannot listen there, or aiohttp is missing
    """
    from lingbot_world_ros.view.server import Server
    own, loop = node.params.view, asyncio.get_running_loop()
    server = Server(node, host=own.host, port=own.port, token=own.token)
    await server.start()

    def show(kind: int, stamp_s: float, jpeg: bytes) -> None:
        try:
            loop.call_soon_threadsafe(server.on_picture, kind, stamp_s, jpeg)
        except RuntimeError:  # the loop has ended
            pass

    node.on_picture = show
    for number in ending_signals():
        loop.add_signal_handler(number, spinner.stop)
    announce(server.url)
    while not spinner.wait(0.0):
        server.check()
        await asyncio.sleep(0.1)
    await server.stop()
