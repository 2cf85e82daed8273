# SPDX-License-Identifier: Apache-2.0
"""
Pages about topics and services, asked of nodes that are really made.

The nodes run the embedded world, stopped, where nobody else can see them. What a graph does not
know is said below, once per name: when a topic is sent and what a service is for. A name that the
nodes have and nothing is said of, or the other way round, is an error.
"""
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
import inspect
import os

from lingbot_world_ros.engines.registry import DEFAULT_ENGINE
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.settings.parameters import NODES, PARAMS
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
from md import code, page, prose, table
from parameters import tables

TOPICS = """
Names and types of the default profile; relative names move into the namespace of the node. The
[profiles](profiles.md) rename them for a stack, and every name with a parameter
can be changed. Quality of service can be overridden too:
[Simulator profiles](../simulators.md#quality-of-service). Nothing is rendered, encoded or sent
for a topic without subscribers. A subscriber that joins while time stands still gets the newest
frame; `view` subscribes to images and states while a page is open. The
reference world also has `topics.ground_truth_pose`, the true pose (as a follower, below its
prefix), and with `publish_wrist_camera` `topics.wrist_image` and `topics.wrist_camera_info`,
drawn while somebody looks."""
SERVICES = """
Services of the node `world_model`, relative to its namespace; FollowJointTrajectory belongs to
`action_encoder`, beside `topics.joint_trajectory`, Plan to `planner`, which `lingbot-world plan`
starts. `service_prefix` is prepended to the names of
`simulation_interfaces`. What each answers in each state:
[simulation_interfaces](../simulation_interfaces.md). Each node also has ROS's own parameter
services, and `world_model`, a managed node, those for its lifecycle."""

FRAME = 'with each frame'
STEP = 'after each step, and each second while time stands still'
TRUTH = 'after each followed step'
COMMAND = 'at any time; the newest wins'
# When a topic is sent: by its parameter without "topics.", else by its name.
WHEN = {
    'image': FRAME, 'camera_info': FRAME, 'compressed': FRAME,
    'depth': f'{FRAME}, where the engine predicts depth',
    'camera/depth/camera_info': f'{FRAME}, beside depth',
    'points': f'{FRAME}, beside depth',
    'scan': f'{FRAME}, with `publish_scan` and depth', 'joint_states': FRAME, 'odom': FRAME,
    'contact': f'{FRAME}, from engines that predict or know it', 'imu': FRAME,
    'bumper': f'{FRAME}, with `publish_bumper`',
    'predicted_pose': f'{FRAME}; the reference world, which knows it, has '
    '`topics.ground_truth_pose` in its place',
    'map': 'at each reset, with `publish_map`',
    'path': 'twice per sim second, less often when it is long',
    'tf': f'{FRAME}, with `publish_tf`', 'tf_static': 'at each reset',
    'clock': '`clock_rate_hz` times per sim second, with `publish_clock`',
    'world_spec': 'at each reset, and when world or mode change', 'world_status': STEP,
    'real_time_factor': 'after each step', 'diagnostics': 'each second',
    'robot_description': 'once', 'action_embedding': 'with each command, and '
    '`encode_rate_hz` times a second; in one process only for outside subscribers',
    'cmd_vel': 'repeatedly: it ends after `cmd_timeout_s`',
    'joint_command': 'at any time; positions are held, velocities end after `cmd_timeout_s`',
    'joint_trajectory': COMMAND, 'joint_commands': COMMAND, 'prompt': COMMAND,
    'anchor_image': COMMAND,
    'reference/image_error': f'{TRUTH}, while it has subscribers',
    'reference/position_error': TRUTH}
MEANING = {  # of names that are no parameter; nodes hear what others send
    'camera/depth/camera_info': 'calibration of the depth image',
    'world_spec': 'what the running world is: [WorldSpec](messages.md#worldspec)',
    'world_status': 'how it is doing: [WorldStatus](messages.md#worldstatus)',
    'reference/image_error': 'difference between both images: RMS, 1 is full scale',
    'reference/position_error': 'distance between both bases, metres',
    'action_embedding': 'commands for the next step: '
    '[ActionEmbedding](messages.md#actionembedding)'}
SERVICE = {  # by type
    'GetSimulatorFeatures': 'what the simulator can do; `custom_info` names engine and model',
    'GetSimulationState': 'stopped, playing, paused, no world',
    'SetSimulationState': 'stop, play, pause, quit',
    'ResetSimulation': 'start over: time, state or both',
    'StepSimulation': 'make steps while paused; answers when they are done',
    'SimulateSteps': 'make steps, with feedback after each and a way to cancel',
    'LoadWorld': 'load a world by name, URI or text', 'UnloadWorld': 'unload the world',
    'GetCurrentWorld': 'the loaded world', 'GetAvailableWorlds': 'worlds that can be loaded',
    'GetEntities': 'names of robot and movable objects, filtered',
    'GetEntitiesStates': 'their poses and twists', 'GetEntityState': 'pose and twist of one',
    'SetEntityState': 'move the robot or an object',
    'GetEntityInfo': 'category, description and tags of one',
    'GetNamedPoses': 'named places of the loaded world',
    'FollowJointTrajectory': 'move the arm, with feedback, tolerances and a way to cancel: '
    '[rules](../commands.md#followjointtrajectory)',
    'Plan': 'drive to a pose, or to where a picture was taken, by imagining: '
    '[rules](../policies.md#plan-as-a-ros-action), [fields](messages.md#plan)'}
FOR_COMMANDS = ('action_encoder', 'view')  # know cmd_vel, of which there are two types
BESIDE = 'reference/'  # what the follower puts before its topics
ALL_NODES = (*NODES, 'follower', 'planner')
OF_ROS = ('rcl_interfaces/', 'lifecycle_msgs/', 'type_description_interfaces/', 'action_msgs/')


@dataclass
class Graph:
    """
    What the nodes of the package have.

    ``topics``: (node, ``'in'`` or ``'out'``, full name) -> types and quality of service;
    ``services``: (name, type) pairs, actions included; ``told``: what the
    docstrings of its handlers of std_srvs say, by the last part of the name.
    """

    topics: dict = field(default_factory=dict)
    services: list = field(default_factory=list)
    told: dict = field(default_factory=dict)

    def ask(self, name: str, node) -> None:
        """
        Take in what a node has.

        :param name: of the node
        :param node: rclpy node
        """
        for direction, ends in (('out', node.publishers), ('in', node.subscriptions)):
            for end in ends:
                kind = _type_name(end.msg_type)
                if not kind.startswith(OF_ROS):
                    types, _ = self.topics.setdefault((name, direction, end.topic_name),
                                                      ([], _qos(end.qos_profile)))
                    types.append(kind)
        if name in ('world_model', 'action_encoder', 'planner'):
            self._ask_services(node)

    def _ask_services(self, node):
        from rclpy.action import get_action_server_names_and_types_by_node
        actions = get_action_server_names_and_types_by_node(node, node.get_name(),
                                                            node.get_namespace())
        found = [(service.srv_name, _type_name(service.srv_type)) for service in node.services]
        found += [(name, types[0]) for name, types in actions]
        found = [pair for pair in found if not pair[1].startswith(OF_ROS)]
        self.services = sorted({*self.services, *found})
        for name, kind in found:
            if kind.startswith('std_srvs/'):
                self.told[_last(name)] = inspect.getdoc(getattr(node, f'on_{_last(name)}'))


@lru_cache(maxsize=1)
def ask() -> Graph:
    """Make every node of the package, once for each type of cmd_vel; return what they have."""
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'OFF')  # nobody else shall see them
    import rclpy
    graph = Graph()
    for cmd_vel_type in ('twist', 'twist_stamped'):
        names = [name for name in ALL_NODES if name in FOR_COMMANDS or not graph.topics]
        rclpy.init(args=['--ros-args', '--log-level', 'warn'])
        nodes = {}
        try:
            for name in names:
                nodes[name] = _make(name, cmd_vel_type=cmd_vel_type, initial_state='stopped',
                                    publish_map=True, publish_bumper=True)
            nodes['view'].watch(True, True, True)  # it follows what a page looks at
            nodes['view'].on_tick()
            for name, node in nodes.items():
                graph.ask(name, node)
        finally:
            for node in nodes.values():
                node.destroy_node()
            rclpy.try_shutdown()
    return graph


def _make(name, **values):
    """Make a node with those of the values that are its parameters."""
    from rclpy.parameter import Parameter
    if name == 'planner':  # nothing is loaded before there is a goal
        from lingbot_world_ros.nodes.plan_action import PlanNode
        from lingbot_world_ros.policies.drive import Driver
        return PlanNode(Driver())
    module = import_module(f'lingbot_world_ros.nodes.{name}')
    if name == 'follower':  # of any engine: the topics are the same
        return module.FollowerNode(name=DEFAULT_ENGINE)
    own = {param.name for param in tables()[name]}
    return getattr(module, f'{name.title().replace("_", "")}Node')(parameter_overrides=[
        Parameter(key, value=value) for key, value in values.items() if key in own])


def pages() -> dict:
    """
    Make the pages.

    :return: file name -> Markdown
    :raises SpecError: a topic or service is not described above
    """
    graph = ask()
    return {'topics.md': _topics(graph.topics), 'services.md': _services(graph)}


def _type_name(interface):
    return f'{interface.__module__.split(".")[0]}/{interface.__module__.split(".")[1]}/' \
           f'{interface.__name__}'


def _qos(profile):
    """Say the profile in words; publishers and subscriptions keep the last ``depth``."""
    durability = 'latched' if profile.durability.name == 'TRANSIENT_LOCAL' else 'volatile'
    reliability = profile.reliability.name.lower().replace('_', ' ')
    return f'{reliability}, {durability}, keeps {profile.depth}'


def _topics(known):
    defaults = load_profile(DEFAULT_PROFILE)
    parameter_of = {f'/{defaults[name].lstrip("/")}': name for name in PARAMS
                    if name.startswith('topics.')}
    keys = {topic: parameter_of.get(topic, topic[1:]).removeprefix('topics.')
            for _, _, topic in known}
    told = [*WHEN, *(key for key in sorted(keys.values()) if _is_truth(key))]
    _compare('topics', set(keys.values()), {*told})
    blocks = [TOPICS]
    for node in ALL_NODES:
        for direction, verb in (('in', 'hears'), ('out', 'publishes')):
            rows = [_topic(*known[node, direction, topic], keys[topic],
                           parameter_of.get(topic), defaults)
                    for topic in sorted(keys, key=lambda topic: told.index(keys[topic]))
                    if (node, direction, topic) in known]
            if rows:
                blocks += [f'## What `{node}` {verb}', table(
                    ('topic', 'type', 'what, and when', 'quality of service', 'parameter'),
                    rows)]
    return page('Topics', *blocks)


def _topic(types, qos, key, parameter, defaults):
    name = defaults[parameter] if parameter else key
    if _is_truth(key):
        meaning, when = f'as {code(key.removeprefix(BESIDE))}, from the following engine', TRUTH
    else:
        meaning, when = MEANING.get(key) or prose(PARAMS[parameter].description.removeprefix(
            'Topic name: ').rstrip('.')), WHEN[key]
    told = ' '.join(f'{text[0].upper()}{text[1:]}.' for text in (meaning, when))
    return (code(name), ' or '.join(map(code, dict.fromkeys(types))), told, qos,
            code(parameter or ''))


def _is_truth(key):
    """Tell whether a topic is that of a world, published for the truth beside it."""
    return key.startswith(BESIDE) and key not in WHEN


def _services(graph):
    offered = graph.services
    standard = {_last(kind): name for name, kind in offered
                if not kind.startswith('std_srvs/')}
    _compare('services', set(standard), set(SERVICE))
    order, rows = list(SERVICE), []
    for name, kind in sorted(offered, key=lambda pair: (
            order.index(_last(pair[1])) if _last(pair[1]) in order else len(order))):
        short = _last(name)
        what = SERVICE.get(_last(kind))
        if kind.startswith('std_srvs/'):
            name, what = f'~/{short}', prose(graph.told[short].rstrip('.'))
        rows.append(('action' if '/action/' in kind else 'service',
                     code(name.removeprefix('/')), code(kind), what))
    return page('Services and actions', SERVICES, table(('', 'name', 'type', 'what'), rows))


def _last(name):
    return name.rpartition('/')[2]


def _compare(what, there, told):
    if there != told:
        raise SpecError(f'{what}: tools/reference_docs/graph.py says nothing of '
                        f'{sorted(there - told)}, and tells of {sorted(told - there)}, which no '
                        'node has; change its tables.')
