# SPDX-License-Identifier: Apache-2.0
"""Profiles and parameters: one home per default, mistakes told in one line."""
from dataclasses import fields
from types import SimpleNamespace

from lingbot_world_ros.actions.limits import Limits
from lingbot_world_ros.engines.registry import CAMERA_SCALE, KEYS, RESERVED, SHIPPED
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.frames import FrameNames
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.settings import parameters as params
from lingbot_world_ros.settings.parameters import (ACTION_ENCODER, ENGINES, PARAMS, SHARED, VIEW,
                                                   WORLD_MODEL)
from lingbot_world_ros.settings.profiles import (load_profile, params_file, profile_path,
                                                 read_assignments)
from lingbot_world_ros.settings.shared_file import given_to
import pytest

HEAD = '/**:\n  ros__parameters:\n'


def write(tmp_path, text):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    return str(path)


def test_every_parameter_has_its_default_in_the_default_profile_and_nothing_else_is_there():
    assert set(load_profile('default')) == set(PARAMS)
    own = [param for param in VIEW if param.name.startswith('view.')]
    scale = [row for row in ACTION_ENCODER if row.name == CAMERA_SCALE]
    assert len(PARAMS) == (len(WORLD_MODEL) + len(ENGINES) + len(ACTION_ENCODER) - len(SHARED)
                           - len(scale) + len(own))


def test_parameters_of_engines_stay_apart_from_those_that_all_worlds_have():
    assert set(KEYS) | {CAMERA_SCALE} <= {row.name for row in ENGINES}
    own = {row.name.partition('.')[0] for row in ENGINES}
    assert own == {entry.prefix or entry.name for entry in SHIPPED.values() if entry.table()}
    others = {name.partition('.')[0] for name in PARAMS if '.' in name} - own
    assert others == set(RESERVED)
    assert not {row.name for row in ENGINES} & {row.name for row in WORLD_MODEL}


def test_every_field_of_the_session_is_a_parameter():
    names = {param.name for param in WORLD_MODEL}
    assert {field.name for field in fields(SessionSpec)} <= names


def option_classes():
    """Return dataclasses whose fields are parameters, and the prefix of these."""
    found = [('', SessionSpec), ('limits.', Limits), ('frames.', FrameNames)]
    try:
        from lingbot_world_ros.engines.lingbot_world import engine
    except ImportError:  # without torch
        return found
    return [*found, ('lingbot.', engine.ModelOptions), ('lingbot.', engine.StreamOptions)]


@pytest.mark.parametrize('prefix, kind', option_classes())
def test_defaults_in_code_are_those_of_the_default_profile(prefix, kind):
    profile = load_profile('default')
    defaults = {f'{prefix}{field.name}': field.default for field in fields(kind)}
    assert defaults == {name: profile[name] for name in defaults}


def test_every_parameter_is_described_and_numbers_have_a_range():
    for param in PARAMS.values():
        assert len(param.description) > 15, param.name
        assert param.kind not in (int, float) or param.low < param.high, param.name


@pytest.mark.parametrize('name', [path.stem for path in share_path('config').glob('*.yaml')])
def test_shipped_profiles_are_good(name):
    assert profile_path(name).is_file() and load_profile(name)


def test_a_profile_names_only_what_it_changes_and_a_whole_number_may_be_a_float(tmp_path):
    values = load_profile(write(tmp_path, f'{HEAD}    speed: 2\n    use_sim_time: true\n'))
    assert values == {'speed': 2.0} and type(values['speed']) is float


def test_parameters_of_every_ros_node_may_be_given_by_name():
    assert read_assignments(['use_sim_time:=true', 'qos_overrides./odom.publisher.depth:=5']) == {
        'use_sim_time': True, 'qos_overrides./odom.publisher.depth': 5}


def test_sections_by_node_name_are_read(tmp_path):
    text = '/w1/world_model:\n  ros__parameters:\n    scene: office\n'
    assert load_profile(write(tmp_path, text)) == {'scene': 'office'}


@pytest.mark.parametrize('text, words', [
    (f'{HEAD}    scen: office\n', ("'scen'", "Did you mean 'scene'")),
    (f'{HEAD}    seed: many\n', ('seed', 'many', 'whole number')),
    (f'{HEAD}    seed: "5"\n', ("seed='5'", 'leave out the quotes')),
    (f'{HEAD}    prompt: [old town] a street\n', ('line 3', 'not valid YAML')),
    (f'{HEAD}    prompt: [old town]\n', ('prompt', 'put it in quotes')),
    (f'{HEAD}    prompt: {{a}}\n', ('prompt', 'put it in quotes')),
    (f'{HEAD}    prompt: *star\n', ('line 3', 'put text that begins with')),
    (f'{HEAD}    prompt: a\n    prompt: b\n', ('line 4', 'given twice')),
    (f'{HEAD}    seed: true\n', ('seed', 'whole number')),
    (f'{HEAD}    speed: fast\n', ('speed', 'a number')),
    (f'{HEAD}    publish_tf: 3\n', ('publish_tf', 'true or false')),
    (f'{HEAD}    jpeg_quality: 101\n', ('jpeg_quality', '1 to 100')),
    (f'{HEAD}    speed: .nan\n', ('speed', 'outside')),
    (f'{HEAD}    cmd_vel_type: both\n', ('cmd_vel_type', 'twist_stamped')),
    (f'{HEAD}   scene: [office\n', ('line', 'YAML')),
    ('speed: 1.0\n', ("'speed'", 'ros__parameters')),
    ('camera_node:\n  ros__parameters: {}\n', ("'camera_node'", 'world_model')),
    ('/**:\n  speed: 1.0\n', ('ros__parameters',)),
    ('- 1\n', ('not a parameter file',)),
    ('', ('not a parameter file',)),
])
def test_mistakes_in_a_profile_name_file_and_remedy(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as error:
        load_profile(path)
    for word in ('mine.yaml', *words):
        assert word in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('profile, words', [
    ('defualt', "Did you mean 'default'"), ('nowhere/x.yaml', 'does not exist.*default')])
def test_missing_profile_lists_those_that_ship(profile, words):
    with pytest.raises(SpecError, match=words):
        load_profile(profile)


@pytest.mark.parametrize('text, words', [
    ('speed', 'NAME:=VALUE'), ('sped:=2', "Did you mean 'speed'"), ('speed:=fast', 'a number'),
    ('speed:=[1', 'not a number'), ('speed:="2"', 'not a number'), ('seed:=2.0', 'whole number'),
    ('publish_tf:=', 'true or false'), ('prompt:=a\0b', 'null character'),
    ('prompt:=a\udcff', 'not in UTF-8'),
    ('speed:=101', 'outside 0.0 to 100.0')])
def test_mistakes_on_the_command_line_are_told_in_one_line(text, words):
    with pytest.raises(SpecError, match=words) as error:
        read_assignments([text])
    assert '\n' not in str(error.value)


def test_nodes_need_no_file_for_the_default_profile():
    with params_file('default') as path:
        assert path is None
    with params_file('nav2') as path:
        assert load_profile(str(path)) == load_profile('nav2')
    assert not path.exists()


ROBOT_FILE = """
/**:
  ros__parameters: {robot_base_frame: base, costmap: {width: 3, height: 3}, seed: 1, twice: 1}
/w1/**: {ros__parameters: {below: 1}}
controller_server: {ros__parameters: {max_vel_x: 0.2}}
/**/world_model: {ros__parameters: {scen: office, twice: 2}}
w1:
  world_model: {ros__parameters: {nested: true}}
"""


def test_a_shared_file_speaks_to_all_nodes_and_to_one(tmp_path):
    path = write(tmp_path, ROBOT_FILE)
    given = given_to('world_model', [
        'sim', '--params-file', 'not/of/ros', '--ros-args', '-p', 'speed:=2.0', '-r', 'a:=b',
        '--params-file', path, '--params-file', '/no/where.yaml', '--param',
        'world_model:topics.odom:=o', '--', '-p', 'mine:=1'])
    assert given.to_all == {'robot_base_frame', 'costmap.width', 'costmap.height', 'seed', 'twice',
                            'below'}
    assert given.to_node == {'scen', 'twice', 'nested', 'speed', 'topics.odom'}
    assert given_to('view', ['--ros-args', '--params-file', path]).to_node == set()
    for nothing in ([], ['--ros-args'], ['--ros-args', '--params-file'],
                    ['--ros-args', '--params-file', write(tmp_path, '- 1')]):
        assert given_to('view', nothing) == (set(), set())


@pytest.mark.parametrize('also', [
    '/**: {ros__parameters: {b: 2}}', '/**:\n  ros__parameters: {b: 2, b: 3}',
    'amcl: {ros__parameters: {c: &c 1}}\n/**/x/**: {ros__parameters: {b: !!str 2}}',
    '---\n/**: {ros__parameters: {b: [1, 2]}}',
    '/**: {ros__parameters: {b: 1, d: {%s}}}' % ', '.join(f'k{i}: 1' for i in range(6000))])
def test_whatever_ros_reads_of_a_shared_file_speaks_to_all_nodes(tmp_path, also):
    """Names twice, as in files put together, anchors and tags made all of it unknown."""
    path = write(tmp_path, '/**: {ros__parameters: {a: 1, l: [{x: 1}], e: {}}}\n' + also)
    given = given_to('world_model', ['--ros-args', '--params-file', path])
    assert {'a', 'b', 'l'} <= given.to_all and not given.to_node
    assert given.to_all <= {'a', 'b', 'l', *(f'd.k{i}' for i in range(6000))}


def test_nodes_declare_their_own_table():
    pytest.importorskip('rclpy')
    from lingbot_world_ros.nodes.parameters import declare
    declared = {}

    class Node:
        """What ``declare`` needs of a node."""

        _parameter_overrides = {}

        def get_name(self):
            return 'n'

        def declare_parameter(self, name, default, descriptor):
            declared[name] = descriptor
            return type('P', (), {'value': default})

        def add_on_set_parameters_callback(self, callback):
            self.set = callback

    node, changes = Node(), []
    values = declare(node, ACTION_ENCODER, lambda *change: changes.append(change))
    assert set(declared) == {p.name for p in ACTION_ENCODER}
    assert values.topics.cmd_vel == 'cmd_vel' and values.limits.linear_velocity_mps == 0.0
    assert declared['cmd_timeout_s'].floating_point_range[0].from_value == 0.01
    assert all(d.description for d in declared.values())
    assert {name for name, d in declared.items() if not d.read_only} == {
        p.name for p in ACTION_ENCODER if p.dynamic}

    def change(value):
        return node.set([type('P', (), {'name': 'cmd_timeout_s', 'value': value})])
    assert change(2).successful and (values.cmd_timeout_s, changes) == (2.0, [('cmd_timeout_s',
                                                                               2.0)])
    assert not change(0.0).successful and values.cmd_timeout_s == 2.0


def values(**changes):
    return {**load_profile('default'), **{k.replace('__', '.'): v for k, v in changes.items()}}


def test_options_of_lingbot_world_are_its_parameters_without_the_prefix():
    options = params.engine_options(values(engine='lingbot_world', lingbot__checkpoint='/c',
                                           lingbot__height_px=352))
    assert options['checkpoint'] == '/c' and options['height_px'] == 352
    assert set(options) == {name[8:] for name in PARAMS if name.startswith('lingbot.')}
    with_robot = params.engine_options(values(engine='lingbot_world',
                                              robot_description='<robot/>'))
    assert with_robot['robot_description'] == '<robot/>'


def test_other_engines_are_made_without_options_and_take_no_checkpoint():
    assert params.engine_options(values(robot_description='<robot/>')) == {}
    with pytest.raises(SpecError, match="for engine 'lingbot_world', not for 'room'"):
        params.engine_options(values(lingbot__checkpoint='/c'))


def test_options_are_those_the_engine_knows():
    pytest.importorskip('torch')
    world = pytest.importorskip('lingbot_world_ros.engines.lingbot_world.engine')
    known = {f.name for kind in (world.ModelOptions, world.StreamOptions) for f in fields(kind)}
    assert set(params.engine_options(values(engine='lingbot_world'))) == known


def test_nested_values_are_told_with_dots():
    pytest.importorskip('rclpy')
    from lingbot_world_ros.nodes.parameters import flat
    nested = SimpleNamespace(a=1, b=SimpleNamespace(c=2, d=SimpleNamespace(e=3)))
    assert flat(nested) == {'a': 1, 'b.c': 2, 'b.d.e': 3}


@pytest.mark.parametrize('engine', ['room', 'reference'])
def test_an_engine_draws_in_the_size_asked_for_if_it_can(engine):
    drawn = params.engine_options(values(engine=engine, image_width=80, image_height=60))
    camera = drawn['robot'].camera
    assert (camera.width_px, camera.height_px) == (80, 60)
    assert camera.position_m == load_robot().camera.position_m
    for scaled in (dict(image_width=80), dict(image_width=64, image_height=64),
                   dict(image_width=80, image_height=60, field_of_view_deg=50.0)):
        assert 'robot' not in params.engine_options(values(engine=engine, **scaled))
