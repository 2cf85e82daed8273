# SPDX-License-Identifier: Apache-2.0
"""What is attacked, with what, and what must hold afterwards."""
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Callable

from fuzz import texts as files
from fuzz.values import all_finite, floats, integers, mutated, of_type, rarely, texts
from hypothesis import strategies as st

JOINTS = files.JOINTS
LOW, HIGH = (-1.2, -1.5, 0.2, -1.2, 0.0), (1.2, -0.4, 2.0, 1.2, 0.045)
LAYOUT = ('base.linear.x', 'base.angular.z', *(f'{joint}.velocity' for joint in JOINTS))
UNITS = ('m/s', 'rad/s', 'rad/s', 'rad/s', 'rad/s', 'rad/s', 'm/s')
SPEEDS = (0.8, 1.5, 1.5, 1.2, 1.5, 1.8, 0.08)
ZERO = {'x': 0.0, 'y': 0.0, 'z': 0.0}
NO_TURN = {**ZERO, 'w': 1.0}
K = (20.0, 0.0, 15.5, 0.0, 20.0, 11.5, 0.0, 0.0, 1.0)
EMBEDDING = {
    'num_frames': 1, 'frame_period_s': 1.0 / 15.0, 'joint_names': list(JOINTS),
    'camera_motion': [{'translation': dict(ZERO), 'rotation': dict(NO_TURN)}],
    'joint_position_target': [0.0] * 5, 'joint_velocity_target': [0.0] * 5, 'width': 32,
    'height': 24, 'k': list(K), 'layout': list(LAYOUT), 'embedding': [0.0] * 7,
    'accepted_commands': 1, 'message': ''}
WORLD_SPEC = {
    'engine': 'fake', 'model': 'fake 1', 'scene': 'a', 'scenes': ['a', 'b'], 'mode': 'stepped',
    'width': 32, 'height': 24, 'k': list(K),
    'camera_pose': {'translation': dict(ZERO), 'rotation': dict(NO_TURN)}, 'frame_rate': 15.0,
    'frames_per_step': 1, 'step_dt': 1.0 / 15.0, 'action_names': list(LAYOUT),
    'action_units': list(UNITS), 'action_min': [-v for v in SPEEDS], 'action_max': list(SPEEDS),
    'joint_names': list(JOINTS), 'joint_position_min': list(LOW),
    'joint_position_max': list(HIGH)}


@dataclass(frozen=True)
class Target:
    """
    One thing to attack.

    ``system`` is the attacked process: 'direct' has no ROS, 'composed' and 'separate' run both
    nodes in stepped mode, 'lockstep' in the mode where every accepted command makes a step,
    'world' only the one node.
    ``door``: 'call' goes through the side door to the method ``address`` or ``name``, 'command'
    likewise to the handler of a message type; 'topic', 'raw' (bytes that are no message),
    'service' and 'burst' (of messages and requests that do not wait) go over DDS. ``share`` is how
    many of the cases are for it, relative to the others. ``must_refuse`` knows cases that cannot
    be anything but refused. ``may_change``: whether a request may change anything.
    """

    name: str
    system: str
    door: str
    cases: st.SearchStrategy = field(repr=False)
    kind: str = ''
    address: str = ''
    share: float = 1.0
    must_refuse: Callable = lambda case: False
    may_change: bool = False


# Messages near valid ones


@st.composite
def some_joints(draw):
    """A few joints in any order."""
    return draw(st.lists(st.sampled_from(JOINTS), unique=True, min_size=1, max_size=5))


def _per(names, strategy):
    return st.lists(strategy, min_size=len(names), max_size=len(names))


stamps = st.fixed_dictionaries({'sec': st.sampled_from([0, 0, 0, 1, -1, 2 ** 31 - 1, -2 ** 31]),
                                'nanosec': st.sampled_from([0, 0, 1, 999_999_999, 2 ** 32 - 1])})
headers = st.fixed_dictionaries({'stamp': stamps, 'frame_id': st.sampled_from(['', 'base_link'])})
speeds = st.floats(-2.0, 2.0)
twists = st.builds(lambda v, w: {'linear': {**ZERO, 'x': v}, 'angular': {**ZERO, 'z': w}},
                   speeds, speeds)
stamped_twists = st.builds(lambda header, twist: {'header': header, 'twist': twist}, headers,
                           twists)


@st.composite
def joint_commands(draw):
    """JointState in one of the three ways to fill it."""
    names = draw(some_joints())
    out = {'header': draw(headers), 'name': names}
    how = draw(st.sampled_from(['position', 'velocity', 'both']))
    if how != 'velocity':
        out['position'] = draw(_per(names, speeds))
    if how != 'position':
        out['velocity'] = draw(_per(names, speeds))
    return out


@st.composite
def trajectories(draw):
    """JointTrajectory with and without timing, velocities, accelerations."""
    names, count = draw(some_joints()), draw(st.integers(0, 4))
    derivatives = draw(st.integers(0, 2))
    timed, at_s, points = draw(st.integers(0, 3)), 0.0, []
    for number in range(count):
        at_s += draw(st.sampled_from([0.001, 0.0667, 0.5, 3.0])) if timed else 0.0
        point = {'positions': draw(_per(names, speeds)), 'time_from_start': {
            'sec': int(at_s), 'nanosec': int(at_s % 1.0 * 1e9)}}
        still = number == count - 1
        if derivatives:
            point['velocities'] = [0.0] * len(names) if still else draw(_per(names, speeds))
        if derivatives == 2:
            point['accelerations'] = draw(_per(names, speeds))
        points.append(point)
    return {'header': draw(headers), 'joint_names': names, 'points': points}


@st.composite
def goals(draw):
    """Goals of FollowJointTrajectory, with and without tolerances."""
    def tolerances():
        return [{'name': name, 'position': draw(speeds), 'velocity': draw(speeds)}
                for name in draw(st.lists(st.sampled_from(JOINTS), max_size=2))]
    return {'trajectory': draw(trajectories()), 'path_tolerance': tolerances(),
            'goal_tolerance': tolerances(), 'goal_time_tolerance': {
                'sec': draw(st.integers(-2, 2)), 'nanosec': 0}}


float_arrays = st.fixed_dictionaries({'data': _per(JOINTS, speeds), 'layout': st.just(
    {'dim': [{'label': 'x', 'size': 5, 'stride': 5}], 'data_offset': 0})})


@st.composite
def embeddings(draw):
    """ActionEmbedding that fits the fake engine."""
    frames = draw(st.integers(1, 3))
    goals = st.lists(st.one_of(st.just(float('nan')), speeds), min_size=5 * frames,
                     max_size=5 * frames)
    return {**EMBEDDING, 'header': draw(headers), 'sequence': draw(integers(64, False)),
            'num_frames': frames, 'valid_until': draw(stamps),
            'camera_motion': EMBEDDING['camera_motion'] * frames,
            'joint_position_target': draw(goals), 'joint_velocity_target': [0.0] * (5 * frames),
            'embedding': draw(st.lists(st.floats(-0.5, 0.5, width=32), min_size=7 * frames,
                                       max_size=7 * frames))}


@st.composite
def world_specs(draw):
    """WorldSpec of the fake engine."""
    return {**WORLD_SPEC, 'header': draw(headers), 'seed': draw(integers(64, False)),
            'camera_parent': draw(st.sampled_from(['', 'base_link', 'link_3'])),
            'free_camera': draw(st.booleans()),
            'frames_per_step': draw(st.sampled_from([1, 2, 4]))}


joint_states = st.fixed_dictionaries({'header': headers, 'name': st.just(list(JOINTS)),
                                      'position': _per(JOINTS, speeds),
                                      'velocity': _per(JOINTS, speeds)})


# What can be nothing but refused


def refuse_twist(case):
    """A number that is none."""
    return not all_finite(case.get('twist', case))


def refuse_joints(case):
    """Unknown, doubled or missing names, wrong lengths, numbers that are none."""
    names = case.get('name', [])
    rows = [case.get('position', []), case.get('velocity', [])]
    return (not names or len(set(names)) < len(names) or not set(names) <= set(JOINTS)
            or not any(map(len, rows)) or any(len(row) not in (0, len(names)) for row in rows)
            or not all(map(all_finite, rows)))


def refuse_array(case):
    """Not one finite number per joint."""
    data = case.get('data', [])
    return len(data) != len(JOINTS) or not all_finite(data)


def refuse_trajectory(case):
    """As for joints, for every point."""
    names, points = case.get('joint_names', []), case.get('points', [])
    if not names and not points:
        return False  # all joints hold
    if not names or len(set(names)) < len(names) or not set(names) <= set(JOINTS):
        return True
    for point in points:
        rows = [point.get(name, []) for name in ('positions', 'velocities', 'accelerations')]
        if len(rows[0]) != len(names) or not all(map(all_finite, rows)):
            return True
        if any(len(row) not in (0, len(names)) for row in rows):
            return True
    return False


def refuse_embedding(case):
    """Not for this robot, or a velocity that is no number."""
    frames = case.get('num_frames', 0)
    return (list(case.get('layout', [])) != list(LAYOUT) or not frames
            or list(case.get('joint_names', [])) != list(JOINTS)
            or len(case.get('embedding', [])) != 7 * frames
            or not all_finite(case.get('embedding', []))
            or len(case.get('joint_position_target', [])) != 5 * frames
            or len(case.get('joint_velocity_target', [])) != 5 * frames)


# Requests near valid ones

resources = st.one_of(
    st.builds(lambda uri: {'uri': uri}, files.uris()),
    st.builds(lambda text: {'resource_string': text}, files.world_texts()),
    st.builds(lambda text: {'resource_string': text}, files.image_worlds),
    st.just({'uri': 'a'}), st.just({'uri': 'file://{worlds}/good.yaml'}))
load_world = st.fixed_dictionaries({
    'world_resource': resources, 'fail_on_unsupported_element': st.booleans(),
    'ignore_missing_or_unsupported_assets': st.booleans()})
poses = st.builds(lambda x, y, yaw: {'position': {'x': x, 'y': y, 'z': 0.0},
                                     'orientation': {'x': 0.0, 'y': 0.0, **yaw}},
                  speeds, speeds, st.sampled_from([{'z': 0.0, 'w': 1.0}, {'z': 1.0, 'w': 0.0},
                                                   {'z': 0.6, 'w': 0.8}]))
set_entity_state = st.fixed_dictionaries({
    'entity': st.just('robot'), 'set_pose': st.booleans(), 'set_twist': st.booleans(),
    'set_acceleration': st.booleans(), 'state': st.fixed_dictionaries({
        'header': st.fixed_dictionaries({'stamp': stamps, 'frame_id': st.sampled_from(
            ['', 'world', 'odom', 'map'])}),
        'pose': poses, 'twist': st.builds(
            lambda v, w: {'linear': {**ZERO, 'x': v}, 'angular': {**ZERO, 'z': w}},
            st.floats(-0.5, 0.5), st.floats(-1.0, 1.0))})})
tags_filters = st.fixed_dictionaries({
    'tags': st.lists(st.sampled_from(['robot', 'navigation', 'indoor']), max_size=3),
    'filter_mode': st.sampled_from([0, 1])})
filters = st.fixed_dictionaries({'filters': st.fixed_dictionaries({
    'filter': st.one_of(st.sampled_from(['', 'rob', '^robot$', '.*']), texts),
    'categories': st.lists(st.fixed_dictionaries({'category': integers(8, False)}), max_size=3),
    'tags': tags_filters, 'bounds': st.one_of(st.just({'type': 0}), st.just(
        {'type': 3, 'points': [{'x': 1.0, 'y': 2.0, 'z': 0.0}, {'x': 3.0}]}))})})
entities = st.fixed_dictionaries({'entity': st.one_of(st.just('robot'), texts)})
available_worlds = st.fixed_dictionaries({
    'additional_sources': st.lists(files.uris(), max_size=4), 'filter': tags_filters,
    'offline_only': st.booleans(), 'continue_on_error': st.booleans()})
goal_ids = st.fixed_dictionaries({'uuid': st.lists(integers(8, False), min_size=16, max_size=16)})
steps = st.fixed_dictionaries({'steps': st.one_of(st.integers(0, 5), integers(64, False))})
DYNAMIC = ('seed', 'speed', 'action_timeout_s', 'lockstep_timeout_s', 'step_timeout_s',
           'service_timeout_s', 'jpeg_quality', 'cmd_timeout_s', 'policy_frequency')
OTHERS = ('engine', 'world_path', 'mode', 'scene', 'topics.cmd_vel', 'frames.odom', 'use_sim_time',
          'robot_description', 'camera_info_url', 'qos_overrides./tf.publisher.depth', 'no_such',
          'start_type_description_service', 'limits.joint_acceleration')


@st.composite
def parameters(draw):
    """A parameter with a value of some type, often a fitting one."""
    name = draw(rarely(texts, st.sampled_from(DYNAMIC + OTHERS), 10))
    value = draw(st.one_of(
        st.builds(lambda v: {'type': 3, 'double_value': v},
                  st.one_of(st.floats(0.1, 1.0), floats)),
        st.builds(lambda v: {'type': 2, 'integer_value': v},
                  st.one_of(st.integers(1, 90), integers(64, True))),
        st.builds(lambda v: {'type': 4, 'string_value': v}, texts),
        st.builds(lambda v: {'type': 1, 'bool_value': v}, st.booleans()),
        rarely(of_type('rcl_interfaces/ParameterValue'), st.just({'type': 0}), 2)))
    return {'name': name, 'value': value}


set_parameters = st.fixed_dictionaries({'parameters': st.lists(parameters(), max_size=3)})
parameter_names = st.fixed_dictionaries({'names': st.lists(
    rarely(texts, st.sampled_from(DYNAMIC + OTHERS), 3), max_size=4)})
prefixes = st.fixed_dictionaries({'prefixes': st.lists(rarely(texts, st.sampled_from(
    ['topics', 'frames.', '', '.'])), max_size=3), 'depth': integers(64, False)})
TRANSITIONS = (1, 2, 3, 4)  # configure, cleanup, activate, deactivate: those that can be undone
change_state = st.fixed_dictionaries({'transition': st.fixed_dictionaries({
    'id': rarely(integers(8, False), st.sampled_from(TRANSITIONS), 3),
    'label': rarely(texts, st.just(''), 4)})})
raw_bytes = st.one_of(
    st.binary(max_size=200), st.sampled_from([
        b'', b'\x00', b'\x00\x01\x00\x00', b'\x00\x01\x00\x00' + b'\xff' * 4,
        b'\x00\x01\x00\x00' + b'\xff' * 200, b'\x00\x01\x00\x00' + b'\x00' * 4000,
        b'\x00\x01\x00\x00' + b'\xff\xff\xff\x7f' * 30, b'\xff' * 64,
        b'\x00\x01\x00\x00' + b'\x04\x00\x00\x00\xff\xfe\xfd\x00' * 20]))


def _can_be_undone(case):
    """Tell a transition from the one that ends the node for good."""
    transition = case.get('transition', {})
    return (transition.get('id') not in SHUTDOWNS
            and 'shutdown' not in str.__str__(transition.get('label', '')))


def _goes_on(case):
    """Tell a state from quitting."""
    return case.get('state', {}).get('state') != 3


SHUTDOWNS = (5, 6, 7)
HARMLESS = {'world_model/change_state': _can_be_undone, 'set_simulation_state': _goes_on}


def _service(address, kind, cases, share=1.0, may_change=False):
    cases = mutated(f'{kind}.Request', cases).filter(HARMLESS.get(address, lambda case: True))
    return Target(address, 'composed', 'service', cases, kind, address, share,
                  may_change=may_change)


SIM = 'simulation_interfaces/srv'
nothing = st.just({})

DIRECT = (
    Target('world_text', 'direct', 'call', files.world_texts(), share=4),
    Target('world_text images', 'direct', 'call', files.image_worlds, share=2,
           address='world_text'),
    Target('world_uri', 'direct', 'call', files.uris(), share=4),
    Target('world_find', 'direct', 'call', files.uris(), share=2),
    Target('name_filter', 'direct', 'call', texts, share=2),
    Target('calibration', 'direct', 'call', files.calibration_texts(), share=3),
    Target('calibration_url', 'direct', 'call', files.uris()),
    Target('profile', 'direct', 'call', files.profile_texts(), share=3),
    Target('profile_name', 'direct', 'call', st.one_of(texts, files.uris())),
    Target('urdf', 'direct', 'call', files.urdfs(), share=3),
    Target('urdf_url', 'direct', 'call', st.one_of(texts, files.uris())))

COMMANDS = tuple(
    Target(f'{name} (direct)', 'composed', 'command', mutated(kind, cases), kind, share=4,
           must_refuse=refuse)
    for name, kind, cases, refuse in (
        ('cmd_vel', 'geometry_msgs/Twist', twists, refuse_twist),
        ('cmd_vel stamped', 'geometry_msgs/TwistStamped', stamped_twists, refuse_twist),
        ('joint_command', 'sensor_msgs/JointState', joint_commands(), refuse_joints),
        ('joint_trajectory', 'trajectory_msgs/JointTrajectory', trajectories(),
         refuse_trajectory),
        ('joint_commands', 'std_msgs/Float64MultiArray', float_arrays, refuse_array)))

TOPICS = tuple(
    Target(f'{address} ({system})', system, 'topic', mutated(kind, cases), kind, address, share,
           must_refuse=refuse)
    for system, address, kind, cases, refuse, share in (
        ('composed', 'cmd_vel', 'geometry_msgs/Twist', twists, refuse_twist, 2),
        ('composed', 'joint_command', 'sensor_msgs/JointState', joint_commands(), refuse_joints,
         2),
        ('composed', 'arm_controller/joint_trajectory', 'trajectory_msgs/JointTrajectory',
         trajectories(), refuse_trajectory, 2),
        ('composed', 'arm_controller/commands', 'std_msgs/Float64MultiArray', float_arrays,
         refuse_array, 1),
        ('composed', 'prompt', 'std_msgs/String', st.fixed_dictionaries({'data': texts}),
         lambda case: True, 1),
        ('lockstep', 'cmd_vel', 'geometry_msgs/Twist', twists, refuse_twist, 1),
        ('lockstep', 'joint_command', 'sensor_msgs/JointState', joint_commands(), refuse_joints,
         1),
        ('separate', 'cmd_vel', 'geometry_msgs/TwistStamped', stamped_twists, refuse_twist, 1),
        ('separate', 'joint_command', 'sensor_msgs/JointState', joint_commands(), refuse_joints,
         1),
        ('world', 'action_embedding', 'lingbot_world_ros/ActionEmbedding', embeddings(),
         refuse_embedding, 3),
        ('separate', 'world_spec', 'lingbot_world_ros/WorldSpec', world_specs(),
         lambda case: True, 3),
        ('separate', 'joint_states', 'sensor_msgs/JointState', joint_states,
         lambda case: True, 2)))
RAW = tuple(
    Target(f'{address} raw ({system})', system, 'raw', raw_bytes, kind, address, 0.5,
           must_refuse=lambda case: False)
    for system, address, kind in (
        ('composed', 'cmd_vel', 'geometry_msgs/Twist'),
        ('composed', 'joint_command', 'sensor_msgs/JointState'),
        ('composed', 'arm_controller/joint_trajectory', 'trajectory_msgs/JointTrajectory'),
        ('composed', 'prompt', 'std_msgs/String'),
        ('world', 'action_embedding', 'lingbot_world_ros/ActionEmbedding'),
        ('separate', 'world_spec', 'lingbot_world_ros/WorldSpec')))

SERVICES = (
    _service('get_simulator_features', f'{SIM}/GetSimulatorFeatures', nothing, 0.1),
    _service('get_simulation_state', f'{SIM}/GetSimulationState', nothing, 0.1),
    _service('get_current_world', f'{SIM}/GetCurrentWorld', nothing, 0.1),
    _service('set_simulation_state', f'{SIM}/SetSimulationState', st.fixed_dictionaries(
        {'state': st.fixed_dictionaries({'state': integers(8, False)})}), 1, True),
    _service('reset_simulation', f'{SIM}/ResetSimulation', st.fixed_dictionaries(
        {'scope': integers(8, False)}), 1, True),
    _service('step_simulation', f'{SIM}/StepSimulation', steps, 1, True),
    _service('load_world', f'{SIM}/LoadWorld', load_world, 6, True),
    _service('unload_world', f'{SIM}/UnloadWorld', nothing, 0.1, True),
    _service('get_available_worlds', f'{SIM}/GetAvailableWorlds', available_worlds, 3),
    _service('get_entities', f'{SIM}/GetEntities', filters, 2),
    _service('get_entities_states', f'{SIM}/GetEntitiesStates', filters, 1),
    _service('get_entity_state', f'{SIM}/GetEntityState', entities, 0.5),
    _service('get_entity_info', f'{SIM}/GetEntityInfo', entities, 0.5),
    _service('set_entity_state', f'{SIM}/SetEntityState', set_entity_state, 4, True),
    _service('get_named_poses', f'{SIM}/GetNamedPoses',
             st.fixed_dictionaries({'tags': tags_filters}), 0.5),
    _service('world_model/reset', 'std_srvs/srv/Trigger', nothing, 0.1, True),
    _service('world_model/pause', 'std_srvs/srv/SetBool',
             st.fixed_dictionaries({'data': st.booleans()}), 0.1, True),
    _service('world_model/step', 'std_srvs/srv/Trigger', nothing, 0.1, True),
    _service('world_model/change_state', 'lifecycle_msgs/srv/ChangeState', change_state, 1, True),
    _service('world_model/get_state', 'lifecycle_msgs/srv/GetState', nothing, 0.1),
    _service('world_model/get_available_transitions',
             'lifecycle_msgs/srv/GetAvailableTransitions', nothing, 0.1),
    *(_service(f'{node}/{name}', f'rcl_interfaces/srv/{kind}', cases, share)
      for node in ('world_model', 'action_encoder') for name, kind, cases, share in (
          ('set_parameters', 'SetParameters', set_parameters, 1.5),
          ('set_parameters_atomically', 'SetParametersAtomically', set_parameters, 0.5),
          ('get_parameters', 'GetParameters', parameter_names, 0.3),
          ('get_parameter_types', 'GetParameterTypes', parameter_names, 0.2),
          ('describe_parameters', 'DescribeParameters', parameter_names, 0.3),
          ('list_parameters', 'ListParameters', prefixes, 0.3))),
    _service('simulate_steps/_action/cancel_goal', 'action_msgs/srv/CancelGoal',
             of_type('action_msgs/CancelGoal.Request'), 0.3),
    _service('simulate_steps/_action/get_result', f'{SIM}/SimulateSteps_GetResult',
             of_type('simulation_interfaces/SimulateSteps_GetResult.Request'), 0.3),
    _service('simulate_steps/_action/send_goal', f'{SIM}/SimulateSteps_SendGoal',
             st.fixed_dictionaries({'goal_id': goal_ids, 'goal': steps}), 0.5, True),
    *([_service('arm_controller/follow_joint_trajectory/_action/send_goal',
                'control_msgs/srv/FollowJointTrajectory_SendGoal', st.fixed_dictionaries(
                    {'goal_id': goal_ids, 'goal': goals()}), 2, True)]
      if find_spec('control_msgs') else []))
TRANSITION = st.tuples(st.just('world_model/change_state'), st.sampled_from(TRANSITIONS).map(
    lambda number: {'transition': {'id': number}}))
BURST = Target('burst', 'composed', 'burst', st.lists(rarely(TRANSITION, st.one_of(*(
    st.tuples(st.just(target.name), target.cases) for target in (*SERVICES, *TOPICS)
    if target.system == 'composed')), 4), min_size=2, max_size=30), share=0.5)
TARGETS = (*DIRECT, *COMMANDS, *TOPICS, *RAW, *SERVICES, BURST)
