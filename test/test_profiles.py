# SPDX-License-Identifier: Apache-2.0
"""Profiles: what a graph really offers under each is what docs/simulators.md says, by name."""
from pathlib import Path
import re

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.nodes.parameters import declare  # noqa: E402
from lingbot_world_ros.nodes.world_publishers import WorldPublishers  # noqa: E402
from lingbot_world_ros.paths import share_path  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.settings.parameters import engine_options, PARAMS, WORLD_MODEL  # noqa: E402
from lingbot_world_ros.settings.profiles import (DEFAULT_PROFILE, load_profile,  # noqa: E402
                                                 profile_path)
from lingbot_world_ros.settings.several_worlds import MAX_WORLDS, world_parameters  # noqa: E402
import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_graph import Graph  # noqa: E402

ROBOT = load_robot()

DOCS = Path(__file__).parent.parent / 'docs' / 'simulators.md'
SHIPPED = sorted(path.stem for path in share_path('config').glob('*.yaml'))
LINGBOT = [name for name in SHIPPED if load_profile(name).get('engine') == 'lingbot_world']
PROFILES = [name for name in SHIPPED if name not in LINGBOT]  # stand in for a simulator
OWN = ('/rosout', '/parameter_events')  # of every ROS node
WORLD = FakeWorld(robot=ROBOT)


def table():
    """Return (direction, parameter) -> profile -> name, from the table in the documentation."""
    if not DOCS.is_file():
        pytest.skip('docs/ is not installed with the package')
    section = DOCS.read_text().split('## Names under each profile')[1]
    lines = [line for line in section.splitlines() if line.startswith('|')]
    rows = [[re.sub(r'[`]', '', cell).strip() for cell in line.split('|')[1:-1]] for line in lines]
    rows = rows[:next(i for i, row in enumerate(rows) if row[0] == 'services') + 1]
    profiles, names = rows[0][2:], {}
    for number, (direction, parameter, *cells) in enumerate(rows[2:]):
        key = parameter if '.' in parameter or '_' in parameter else f'{parameter} {number}'
        names[direction, key] = dict(zip(profiles, cells))
    return names


def values_of(profile):
    return {**load_profile(DEFAULT_PROFILE), **load_profile(profile)}


def make_node(namespace='', overrides=()):
    parameters = [Parameter(name, value=value) for name, value in dict(overrides).items()]
    node = rclpy.create_node('world_model', namespace=namespace, parameter_overrides=parameters)
    node.params = declare(node, WORLD_MODEL)
    node.sensors = WorldPublishers(node, WORLD.spec, node.params)
    return node


def wait_until_published(graph, wanted):
    """Wait until others publish just these topics; what has ended is seen for a while."""
    def names():
        return {name for name, _ in graph.probe.get_topic_names_and_types()
                if name not in OWN and graph.probe.count_publishers(name)}
    try:
        graph.wait_for(lambda: names() == wanted, 'the topics')
    except AssertionError:
        assert names() == wanted  # shows what is different


def test_every_profile_that_ships_is_in_the_table():
    assert {tuple(sorted(cells)) for cells in table().values()} == {tuple(PROFILES)}
    assert {'isaac_sim', 'gazebo', 'moveit', 'nav2', 'turtlebot4'} < set(PROFILES)


@pytest.mark.parametrize('profile', PROFILES)
def test_a_graph_publishes_exactly_the_names_of_the_table(domain, profile):
    wanted = {'/' + cells[profile].lstrip('/')
              for (direction, _), cells in table().items() if direction == 'out'}
    with Graph(lambda: [make_node()], domain,
               ('--params-file', str(profile_path(profile)))) as graph:
        wait_until_published(graph, wanted)
        assert set(graph.nodes[0].sensors.topics) == wanted


@pytest.mark.parametrize('profile', PROFILES)
def test_names_in_frames_and_prefix_are_those_of_the_table(profile):
    values, told = values_of(profile), table()
    for (direction, parameter), cells in told.items():
        if parameter in PARAMS:
            assert values[parameter] == cells[profile], parameter
    listed = {parameter for _, parameter in told}
    assert {name for name in PARAMS if name.startswith(('topics.', 'frames.'))} <= listed


@pytest.mark.parametrize('profile', SHIPPED)
def test_a_profile_says_what_it_mimics(profile):
    head = [line for line in profile_path(profile).read_text().splitlines()
            if line.startswith('#')]
    assert len(head) >= 2 and head == profile_path(profile).read_text().splitlines()[:len(head)]


def test_profiles_have_the_habits_of_their_stacks():
    isaac, gazebo, nav2 = (values_of(name) for name in ('isaac_sim', 'gazebo', 'nav2'))
    assert (isaac['state_after_reset'], isaac['cmd_vel_type']) == ('playing', 'twist')
    assert (gazebo['state_after_reset'], gazebo['service_prefix']) == ('keep', '/gzserver')
    assert nav2['reset_time_policy'] == values_of('moveit')['reset_time_policy'] == 'monotonic'
    assert nav2['publish_scan'] and nav2['clock_rate_hz'] >= 50.0


@pytest.mark.parametrize('profile', LINGBOT)
def test_profiles_of_lingbot_world_name_no_topics_and_say_what_must_be_set(profile):
    assert LINGBOT == ['lingbot_world_1_3b', 'lingbot_world_fast', 'lingbot_world_nf4_24gb']
    own = load_profile(profile)
    names = ('topics.', 'frames.', 'service_prefix')
    assert not [name for name in own if name.startswith(names)]
    assert own['step_timeout_s'] >= 60.0
    text = profile_path(profile).read_text()
    assert 'lingbot.checkpoint' in text and 'docs/lingbot_world.md' in text


@pytest.mark.parametrize('profile, gigabytes', [
    ('lingbot_world_1_3b', 24), ('lingbot_world_fast', 80), ('lingbot_world_nf4_24gb', 24)])
def test_profiles_fit_the_gpu_they_are_for(profile, gigabytes):
    from lingbot_world_ros.models.wan.memory import estimate, Preset, smallest_gpu
    from lingbot_world_ros.models.wan.spec import LINGBOT_14B, LINGBOT_1_3B, VideoSize
    options = engine_options(values_of(profile))
    preset = Preset(LINGBOT_1_3B if '1_3b' in profile else LINGBOT_14B,
                    VideoSize(options['height_px'], options['width_px']), options['precision'],
                    options['chunk_latents'] or 3, options['window_latents'],
                    options['keep_films'], 'bf16')
    total = sum(estimate(preset).values())
    assert smallest_gpu(total).startswith(f'{gigabytes} GB')
    told = re.search(r'about ([0-9]+) GB by estimate', profile_path(profile).read_text())
    assert round(total / 1e9) == int(told[1])


def test_one_world_is_left_as_it_is():
    assert world_parameters(0, 1, values_of('gazebo'), '/robot/') == ('robot', {})


def test_worlds_are_kept_apart_by_hand():
    namespace, apart = world_parameters(1, 2, {**values_of('gazebo'), 'seed': 5})
    assert namespace == 'world_1'
    assert apart == {'frame_prefix': 'world_1/', 'seed': 6, 'service_prefix': 'gzserver',
                     'topics.clock': 'clock'}
    namespace, apart = world_parameters(0, 3, {'frame_prefix': 'r1/', 'seed': 3}, 'farm')
    assert (namespace, apart['frame_prefix'], apart['seed']) == ('farm_0', 'farm_0/r1/', 3)
    absolute = world_parameters(2, 3, {'topics.image': '/front/rgb', 'topics.tf': '/tf'})[1]
    assert absolute['topics.image'] == 'front/rgb' and 'topics.tf' not in absolute


@pytest.mark.parametrize('num_worlds, values', [
    (0, {}), (-1, {}), (MAX_WORLDS + 1, {}), (2, {'seed': 2 ** 31 - 1})])
def test_worlds_that_cannot_be_are_refused(num_worlds, values):
    with pytest.raises(SpecError):
        world_parameters(1, num_worlds, values)


@pytest.mark.parametrize('profile', PROFILES)
def test_worlds_share_transforms_and_diagnostics_only(domain, profile):
    worlds = [world_parameters(i, 2, values_of(profile)) for i in range(2)]

    def nodes():
        return [make_node(namespace=namespace, overrides=apart) for namespace, apart in worlds]
    with Graph(nodes, domain, ('--params-file', str(profile_path(profile)))) as graph:
        first, second = (set(node.sensors.topics) for node in graph.nodes)
        assert first & second == {'/tf', '/tf_static', '/diagnostics'}
        assert all(name.startswith('/world_0/') for name in first - second)
        assert {'/world_0/clock', '/world_1/clock'} <= first | second
        seeds, frames = zip(*((node.params.seed, node.sensors._frames) for node in graph.nodes))
        assert seeds[1] == seeds[0] + 1
        assert [f.base for f in frames] == ['world_0/base_link', 'world_1/base_link']
