# SPDX-License-Identifier: Apache-2.0
"""What the simulation services answer beyond the codes of test_conformance.py."""
import json
import math
import sys
import threading
import time
from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip('rclpy')
srv = pytest.importorskip('simulation_interfaces.srv')
if not hasattr(srv, 'GetAvailableWorlds'):
    pytest.skip('this simulation_interfaces has no worlds to load', allow_module_level=True)

from geometry_msgs.msg import Pose, Twist, Vector3  # noqa: E402, I100
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se2  # noqa: E402
from lingbot_world_ros.messages import simulation as standard  # noqa: E402
from lingbot_world_ros.messages.frames import planar_pose_from_msg  # noqa: E402
from lingbot_world_ros.nodes import simulation_services  # noqa: E402
from moody_world import MoodyWorld, POUF, simulator  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402
from simulation_interfaces import msg  # noqa: E402
from simulation_interfaces.action import SimulateSteps  # noqa: E402
from simulation_requests import fitting  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

UNSUPPORTED, OK, NOT_FOUND, INCORRECT_STATE, FAILED = range(5)
NAMES = ('get_simulator_features', 'get_simulation_state', 'set_simulation_state',
         'reset_simulation', 'step_simulation', 'load_world', 'unload_world', 'get_current_world',
         'get_available_worlds', 'get_entities', 'get_entities_states', 'get_entity_state',
         'set_entity_state', 'get_entity_info', 'get_named_poses')


@pytest.fixture(scope='module')
def domain():
    """Claim a ROS domain for the whole file."""
    with Domain() as number:
        yield number


class Simulator:
    """A graph with one simulator; services are called by their name."""

    def __init__(self, domain, **params):
        self._domain, self._params = domain, params

    def __enter__(self):
        self.graph = Graph(lambda: [simulator(**self._params)], self._domain)
        self.graph.__enter__()
        self.node, = self.graph.nodes
        return self

    def __exit__(self, *error):
        self.graph.__exit__(*error)

    def __getattr__(self, name):
        srv_type = getattr(srv, ''.join(part.capitalize() for part in name.split('_')))
        known = srv_type.Request.get_fields_and_field_types()
        return lambda **fields: self.graph.call(
            srv_type, f'/{name}', srv_type.Request(**fitting(known, fields)))

    def code(self, name, **fields):
        """Call a service and return the code of its result."""
        return getattr(self, name)(**fields).result.result

    def set_state(self, state):
        """Ask for a state by number."""
        return self.code('set_simulation_state', state=msg.SimulationState(state=state))


# First simulators of their own: rclpy has one graph at a time.


def test_names_follow_namespace_and_prefix(domain):
    """Relative to the namespace by default; a prefix with a slash is absolute."""
    def make_nodes():
        return [simulator('/w1'), simulator('/w2', service_prefix='/gzserver'),
                simulator('/w3', service_prefix='sim/')]
    wanted = {f'{prefix}/{name}' for prefix in ('/w1', '/gzserver', '/w3/sim') for name in NAMES}
    with Graph(make_nodes, domain) as graph:
        graph.wait_for(lambda: wanted == {
            name for node in graph.nodes for name, types in
            node.get_service_names_and_types_by_node(node.get_name(), node.get_namespace())
            if types[0].startswith('simulation_interfaces/srv')}, 'these names and no others')


def test_prefix_that_makes_no_name_is_refused(domain):
    """A parameter that cannot work is told in words, at the start."""
    rclpy.init(domain_id=domain)
    try:
        with pytest.raises(SpecError, match='service_prefix'):
            simulator(service_prefix='two words')
    finally:
        rclpy.try_shutdown()


def test_without_a_configured_node_every_service_answers_at_once(domain):
    """Lifecycle unconfigured: incorrect state; only the features are told."""
    with Simulator(domain, autostart=False) as sim:
        assert len(sim.get_simulator_features().features.features) > 10
        state = sim.get_simulation_state()
        assert state.result.result == INCORRECT_STATE
        assert state.state.state == msg.SimulationState.STATE_NO_WORLD
        for name in NAMES[2:]:
            assert sim.code(name) == INCORRECT_STATE, name
        client = ActionClient(sim.graph.probe, SimulateSteps, '/simulate_steps')
        sim.graph.wait_for(client.server_is_ready)
        goal = client.send_goal_async(SimulateSteps.Goal(steps=1))
        sim.graph.wait_for(goal.done)
        outcome = goal.result().get_result_async()
        sim.graph.wait_for(outcome.done)
        assert outcome.result().result.result.result == INCORRECT_STATE
        client.destroy()


def test_engine_that_hangs_is_answered_for_within_the_timeout(domain, monkeypatch):
    """The step, and what is asked meanwhile, get an error in time; other services go on."""
    release = threading.Event()
    monkeypatch.setattr(MoodyWorld, 'step',
                        lambda self, actions: release.wait(2 * PATIENCE_S) and self._observe([]))
    with Simulator(domain, service_timeout_s=0.5) as sim:
        step = sim.step_simulation(steps=5).result
        assert step.result == FAILED and '0 of 5' in step.error_message
        assert sim.code('get_simulation_state') == OK
        assert sim.set_state(0) == srv.SetSimulationState.Response.STATE_TRANSITION_ERROR
        assert sim.code('reset_simulation') == FAILED
        assert not sim.graph.call(Trigger, '/world_model/step').success
        release.set()


def test_engine_that_hangs_is_given_up_while_a_service_waits(domain, monkeypatch):
    """The watch over the engine goes on, whichever service waits for it."""
    release = threading.Event()
    monkeypatch.setattr(MoodyWorld, 'step', lambda self, actions: release.wait(2 * PATIENCE_S))
    with Simulator(domain, step_timeout_s=0.3) as sim:
        answer = sim.graph.call(Trigger, '/world_model/step')
        assert not answer.success and 'step_timeout_s' in answer.message
        assert sim.get_simulation_state().result.result == FAILED
        assert sim.code('get_entities') == OK
        release.set()


def test_quitting_answers_first(domain):
    """The answer is OK, then the node is told to end; meanwhile the state is quitting."""
    with Simulator(domain) as sim:
        quits = []
        sim.node.on_quit = lambda: quits.append(1)
        assert sim.set_state(msg.SimulationState.STATE_PLAYING) == OK
        assert sim.set_state(msg.SimulationState.STATE_QUITTING) == OK
        assert sim.get_simulation_state().state.state == msg.SimulationState.STATE_QUITTING
        assert sim.code('reset_simulation') == INCORRECT_STATE
        sim.graph.wait_for(lambda: quits, 'the request to quit')
        assert sim.node.session.status.state == 'stopped'


def test_stepped_mode_cannot_play(domain):
    """Time advances by steps only; the message says why."""
    with Simulator(domain, mode='stepped', initial_state='playing') as sim:
        answer = sim.set_simulation_state(state=msg.SimulationState(state=1)).result
        assert answer.result == srv.SetSimulationState.Response.STATE_TRANSITION_ERROR
        assert 'stepped' in answer.error_message
        assert sim.code('step_simulation', steps=2) == OK
        assert sim.code('reset_simulation') == OK


def test_monotonic_time_is_not_reset(domain):
    """The scope and the feature are gone; a full reset leaves time running on."""
    with Simulator(domain, reset_time_policy='monotonic') as sim:
        features = sim.get_simulator_features().features.features
        assert msg.SimulatorFeatures.SIMULATION_RESET_TIME not in features
        assert msg.SimulatorFeatures.SIMULATION_RESET in features
        for scope in (1, 5):
            assert sim.code('reset_simulation', scope=scope) == UNSUPPORTED
        before = sim.node.session.sim_ns
        for scope in (0, 2, 3, 255):
            assert sim.code('reset_simulation', scope=scope) == OK
        assert sim.node.session.sim_ns > before


def test_older_standards_get_what_they_have(domain, monkeypatch):
    """Without the types of worlds and the action neither they nor their features exist."""
    there = simulation_services.installed
    monkeypatch.setattr(simulation_services, 'installed', lambda kind, name: None if
                        'World' in name or kind == 'action' else there(kind, name))
    with Simulator(domain) as sim:
        features = list(sim.get_simulator_features().features.features)
        assert features == [2, 4, 8, 10, 11, 12, *range(20, 27), 31, 32]
        assert sim.code('step_simulation', steps=1) == OK
        names = [name for name, _ in sim.node.get_service_names_and_types()]
        assert not [name for name in names if 'world' in name.rsplit('/', 1)[-1]
                    and '/world_model' not in name]


def test_without_the_standard_the_node_runs(domain, monkeypatch):
    """Machines without simulation_interfaces still have the services of std_srvs."""
    monkeypatch.setattr(simulation_services, 'installed', lambda kind, name: None)
    with Simulator(domain) as sim:
        assert sim.graph.call(Trigger, '/world_model/step').success


def test_default_source_that_is_gone_has_its_own_code(domain, tmp_path):
    """DEFAULT_SOURCES_FAILED, unless the caller wants what there is."""
    folder = tmp_path / 'worlds'
    folder.mkdir()
    with Simulator(domain, world_path=str(folder)) as sim:
        assert sim.code('get_available_worlds') == OK
        folder.rmdir()
        assert sim.code('get_available_worlds') == 101
        answer = sim.get_available_worlds(continue_on_error=True)
        assert answer.result.result == OK and len(answer.worlds) >= 3
        assert str(folder) in answer.result.error_message


def test_shutdown_in_the_middle_of_steps_ends(domain):
    """An answer that will never be sent holds up nobody."""
    with Simulator(domain) as sim:
        client = sim.graph.probe.create_client(srv.StepSimulation, '/step_simulation')
        sim.graph.wait_for(client.service_is_ready)
        client.call_async(srv.StepSimulation.Request(steps=2 ** 64 - 1))
        sim.graph.wait_for(lambda: sim.node.session.status.state == 'playing', 'steps')
        begun = time.monotonic()
    assert time.monotonic() - begun < PATIENCE_S  # the steps would go on for years
    assert not [t for t in threading.enumerate() if t.name.startswith('worlds')]


# One simulator for all that follows.


@pytest.fixture(scope='module')
def sim(domain):
    """Run one simulator for all tests that change nothing but its world."""
    with Simulator(domain) as sim:
        yield sim


@pytest.fixture
def paused(sim):
    """Bring that simulator to the start of its first world, paused."""
    resource = msg.Resource(uri='living_room')
    assert sim.code('load_world', world_resource=resource) == OK
    assert sim.set_state(msg.SimulationState.STATE_PAUSED) == OK
    return sim


def test_features_are_honest(paused):
    """Nothing of spawning and bounds; the rest is there, and custom_info is one line of JSON."""
    features = paused.get_simulator_features().features
    assert list(features.features) == [2, 4, 8, 10, 11, 12, *range(20, 27), 31, 32, 33,
                                       *range(40, 46)]
    assert features.spawn_formats == []
    assert '\n' not in features.custom_info
    info = json.loads(features.custom_info)
    assert info['engine'] == 'fake' and info['frames_per_step'] == 1
    assert info['seed'] == paused.node.session.status.seed
    assert info['step_dt_s'] == pytest.approx(1 / 15) and info['frame_rate_hz'] == 15.0
    assert info['mode'] == 'realtime' and 'simulation_interfaces.md' in info['docs']


def test_constants_are_those_of_the_installed_standard():
    """The fallback numbers agree with the package wherever it has the constant."""
    assert {name: getattr(msg.SimulatorFeatures, name) for name in standard.FEATURES} == \
        standard.FEATURES
    assert {name: getattr(msg.Result, f'RESULT_{name}') for name in standard.RESULTS} == \
        standard.RESULTS
    assert {name: getattr(msg.SimulationState, f'STATE_{name.upper()}')
            for name in standard.STATES} == standard.STATES
    own = [getattr(srv, name).Response for name in simulation_services.SERVICES]
    for name, number in standard.SPECIFIC.items():
        assert {getattr(kind, name) for kind in own if hasattr(kind, name)} == {number}


def test_handler_that_fails_answers_and_the_node_lives(paused, monkeypatch):
    """A bug becomes an answer and a log entry, not a dead executor."""
    def broken():
        raise ZeroDivisionError('one over nothing \udcff \0' + 'x' * 10_000)
    monkeypatch.setattr(paused.node.session, 'entities', broken)
    answer = paused.get_entities()
    assert answer.result.result == FAILED and len(answer.result.error_message) <= 2000
    monkeypatch.undo()
    assert paused.code('get_entities') == OK


def test_seed_parameter_counts_from_the_next_reset(paused):
    """Reset repeats the seed until the parameter is set."""
    seeds, before = [], paused.node.session.status.seed
    for seed in (None, 7, None):
        if seed is not None:
            paused.node.set_parameters([Parameter('seed', value=seed)])
        assert paused.code('reset_simulation') == OK
        seeds.append(paused.node.session.status.seed)
    paused.node.set_parameters([Parameter('seed', value=before)])
    assert seeds == [before, 7, 7]


def test_step_moves_time_by_exactly_its_frames(paused):
    """A hundred single steps, each one frame of 1/15 s."""
    for _ in range(100):
        before = paused.node.session.sim_ns
        assert paused.code('step_simulation', steps=1) == OK
        assert paused.node.session.sim_ns - before == round(1e9 / 15)


def run(sim, handler, request, response):
    """Run a handler in the node's executor; requests of old versions cannot be sent."""
    services = sim.node._simulation
    task = sim.node.executor.create_task(
        services.answering(handler), request, response)
    sim.graph.wait_for(task.done, handler)
    return task.result()


def test_requests_of_version_1_are_understood(paused):
    """No flags: pose and twist are both set. LoadWorld: uri without world_resource around it."""
    request = SimpleNamespace(entity='robot', state=msg.EntityState())
    request.state.pose.position.x, request.state.pose.position.y = 2.0, 1.5
    request.state.twist.linear.x = 0.25
    assert run(paused, 'SetEntityState', request,
               srv.SetEntityState.Response()).result.result == OK
    robot = paused.get_entity_state(entity='robot').state
    assert (robot.pose.position.x, robot.twist.linear.x) == (2.0, 0.25)
    request = SimpleNamespace(uri='office', resource_string='', fail_on_unsupported_element=False,
                              ignore_missing_or_unsupported_assets=False)
    assert run(paused, 'LoadWorld', request, srv.LoadWorld.Response()).world.name == 'office'


def put(sim, entity, x, y, yaw=0.0, frame='', twist=None):
    """Move an entity; returns the code."""
    state = msg.EntityState()
    state.header.frame_id = frame
    state.pose.position.x, state.pose.position.y = x, y
    state.pose.orientation.z, state.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    if twist is not None:
        state.twist = twist
    return sim.code('set_entity_state', entity=entity, state=state, set_pose=True,
                    set_twist=twist is not None)


def test_entity_states_come_with_frame_and_time(paused):
    """Robot and object, in the scene frame, at the time of the newest frame."""
    answer = paused.get_entities_states()
    assert answer.entities == ['robot', 'pouf']
    robot, pouf = answer.states
    assert robot.header.frame_id == pouf.header.frame_id == 'world'
    assert robot.header.stamp.nanosec == round(1e9 / 15)
    assert (robot.pose.position.x, robot.pose.position.y) == (1.0, 2.0)
    assert (pouf.pose.position.x, pouf.pose.position.y) == POUF[:2]


def test_what_was_put_is_read_back(paused):
    """Robot and object, pose and twist; twist is along the axes of the given frame."""
    assert put(paused, 'robot', 2.0, 1.5, math.pi / 2, twist=Twist(linear=Vector3(y=0.5))) == OK
    robot = paused.get_entity_state(entity='robot').state
    assert robot.pose.orientation.z == pytest.approx(math.sin(math.pi / 4))
    assert robot.twist.linear.y == pytest.approx(0.5)
    assert robot.twist.linear.x == pytest.approx(0.0, abs=1e-9)
    assert put(paused, 'pouf', 4.5, 1.5, -1.0) == OK
    pouf = paused.get_entity_state(entity='pouf').state.pose
    assert (pouf.position.x, pouf.position.y) == (4.5, 1.5)
    assert 2 * math.atan2(pouf.orientation.z, pouf.orientation.w) == pytest.approx(-1.0)


def test_odometry_frame_is_understood(paused):
    """A pose in odom starts where odometry counts from."""
    start = planar_pose_from_msg(paused.get_entity_state(entity='robot').state.pose)
    assert put(paused, 'robot', 1.0, -0.5, frame='odom') == OK
    position = paused.get_entity_state(entity='robot').state.pose.position
    assert (position.x, position.y) == pytest.approx(
        start[:2] + se2.rotated((1.0, -0.5), start[2]))


def test_furniture_and_walls_are_no_place(paused):
    """In the sofa, outside the room, half in the wall."""
    for x, y in ((2.7, 4.6), (7.0, 1.0), (0.1, 2.0)):
        assert put(paused, 'robot', x, y) == srv.SetEntityState.Response.INVALID_POSE
    assert paused.get_entity_state(entity='robot').state.pose.position.x == 1.0


@pytest.mark.parametrize('twist', [
    Twist(linear=Vector3(x=math.nan)), Twist(linear=Vector3(z=0.1)), Twist(linear=Vector3(x=9.0)),
    Twist(angular=Vector3(x=0.1)), Twist(angular=Vector3(z=99.0))])
def test_impossible_speeds_are_refused(paused, twist):
    """Not finite, off the floor or beyond what the robot can do."""
    assert put(paused, 'robot', 2.0, 1.5, twist=twist) == FAILED
    assert paused.get_entity_state(entity='robot').state.pose.position.x == 1.0


def test_filters_apply_together(paused):
    """Name, category, tags and sphere; an empty filter lets everything pass."""
    pytest.importorskip('re2')

    def names(**filters):
        return paused.get_entities(filters=msg.EntityFilters(**filters)).entities

    def sphere(x, y, z, radius):
        return msg.Bounds(type=msg.Bounds.TYPE_SPHERE,
                          points=[Vector3(x=x, y=y, z=z), Vector3(x=radius)])

    robot, thing = (msg.EntityCategory(category=number) for number in (1, 0))
    assert names() == ['robot', 'pouf']
    assert names(filter='^p.*f$') == ['pouf']
    assert names(categories=[robot]) == ['robot'] and names(categories=[thing]) == ['pouf']
    assert names(categories=[robot, thing]) == ['robot', 'pouf']
    assert names(tags=msg.TagsFilter(tags=['movable', 'arm'])) == ['robot', 'pouf']
    assert names(tags=msg.TagsFilter(tags=['movable', 'arm'], filter_mode=1)) == []
    assert names(categories=[thing], filter='robot') == []
    # The robot stands at (1, 2) with a radius of 0.34 m, 1.26 m high; the pouf at (4, 2).
    assert names(bounds=sphere(1.5, 2.0, 0.0, 0.2)) == ['robot']
    assert names(bounds=sphere(1.5, 2.0, 0.0, 0.1)) == []
    assert names(bounds=sphere(1.0, 2.0, 1.5, 0.3)) == ['robot']
    assert names(bounds=sphere(1.0, 2.0, 1.5, 0.2)) == []
    assert names(bounds=sphere(2.5, 2.0, 0.0, 3.0)) == ['robot', 'pouf']


@pytest.mark.parametrize('filters, code', [
    ({'bounds': msg.Bounds(type=3)}, FAILED),
    ({'bounds': msg.Bounds(type=3, points=[Vector3(), Vector3(x=-1.0)])}, FAILED),
    ({'bounds': msg.Bounds(type=3, points=[Vector3(x=math.nan), Vector3(x=1.0)])}, FAILED),
    ({'bounds': msg.Bounds(type=9)}, UNSUPPORTED),
    ({'tags': msg.TagsFilter(tags=['a'], filter_mode=7)}, UNSUPPORTED),
    ({'filter': '(a*)*' * 100}, FAILED)])
def test_filters_that_cannot_be_read_are_refused(paused, filters, code):
    """Never answered as if they had not been there."""
    assert paused.code('get_entities', filters=msg.EntityFilters(**filters)) == code
    assert paused.code('get_entities_states', filters=msg.EntityFilters(**filters)) == code


def test_names_are_filtered_only_where_the_package_for_it_is_installed(paused, monkeypatch):
    """Without RE2 that one filter is refused with the install line; the others do their work."""
    monkeypatch.setitem(sys.modules, 're2', None)
    answer = paused.get_entities(filters=msg.EntityFilters(filter='robot'))
    assert answer.result.result == FAILED and not answer.entities
    assert 'install google-re2' in answer.result.error_message
    tagged = msg.EntityFilters(tags=msg.TagsFilter(tags=['arm']))
    assert paused.get_entities(filters=tagged).entities == ['robot']


def test_entity_info_tells_robot_from_object(paused):
    """Category, tags and a description."""
    info = paused.get_entity_info(entity='robot').info
    assert info.category.category == msg.EntityCategory.CATEGORY_ROBOT
    assert 'robot' in info.tags and info.description
    info = paused.get_entity_info(entity='pouf').info
    assert info.category.category == msg.EntityCategory.CATEGORY_OBJECT


def test_named_poses_of_the_world(paused):
    """Those of its file, filtered by tags."""
    every = paused.get_named_poses().poses
    assert [pose.name for pose in every] == ['door', 'table', 'bookshelf', 'window']
    door = every[0].pose
    assert (door.position.x, door.position.y) == (4.6, 0.75)
    assert door.orientation.w == pytest.approx(math.cos(0.7854), abs=1e-5)
    spawn = paused.get_named_poses(tags=msg.TagsFilter(tags=['spawn'])).poses
    assert [pose.name for pose in spawn] == ['door']


def test_worlds_are_told_and_found_again(paused):
    """By name and inline; the current world's resource loads it again."""
    text = 'scene: office\nname: mine\nseed: 4\ntags: [a, b]\n' \
           'start_pose: {x_m: 3.0, y_m: 2.5, yaw_rad: 0}'
    loaded = paused.load_world(world_resource=msg.Resource(resource_string=text)).world
    assert (loaded.name, list(loaded.tags)) == ('mine', ['a', 'b'])
    current = paused.get_current_world().world
    assert current == loaded and current.world_resource.uri == ''
    assert paused.node.session.status.seed == 4
    assert paused.get_entity_state(entity='robot').state.pose.position.x == 3.0
    assert paused.code('load_world', world_resource=current.world_resource) == OK
    assert paused.get_current_world().world == current


def test_world_that_does_not_load_leaves_the_old_one_running(paused):
    """Whether it cannot be read or the engine cannot start it; time goes on."""
    assert paused.set_state(msg.SimulationState.STATE_PLAYING) == OK
    for resource in (msg.Resource(uri='kitchen'), msg.Resource(uri='unloadable')):
        assert paused.code('load_world', world_resource=resource) != OK
        before = paused.node.session.sim_ns
        assert paused.get_simulation_state().state.state == msg.SimulationState.STATE_PLAYING
        paused.graph.wait_for(lambda: paused.node.session.sim_ns > before, 'time')
        assert paused.get_current_world().world.name == 'living_room'


def test_available_worlds_are_filtered_by_tags(paused):
    """Any or all of the tags; each of them can be loaded by what is told."""
    def names(mode, *tags):
        answer = paused.get_available_worlds(
            filter=msg.TagsFilter(tags=list(tags), filter_mode=mode))
        return [world.name for world in answer.worlds]
    every = paused.get_available_worlds().worlds
    assert {'living_room', 'office', 'office_doorway', 'slow'} <= {w.name for w in every}
    assert names(0, 'home', 'doorway') == ['living_room', 'office', 'living_room_reach',
                                           'office_doorway']
    assert names(1, 'navigation', 'doorway') == ['office_doorway']
    for world in every:
        expected = FAILED if world.name == 'unloadable' else OK
        assert paused.code('load_world', world_resource=world.world_resource) == expected


def test_too_many_sources_are_refused(paused):
    """One request cannot keep the disk busy for ever."""
    assert paused.code('get_available_worlds', additional_sources=['file:///a'] * 100) == FAILED


def test_pose_conversion_turns_with_the_frame():
    """Worked out by hand: frame at (1, 2) turned left by a quarter."""
    pose = Pose()
    pose.position.x, pose.orientation.z, pose.orientation.w = 1.0, 1.0, 0.0
    x, y, yaw = standard.pose_from_msg(pose, (1.0, 2.0, math.pi / 2))
    assert (x, y) == (pytest.approx(1.0), pytest.approx(3.0))
    assert math.cos(yaw - 1.5 * math.pi) == pytest.approx(1.0)
