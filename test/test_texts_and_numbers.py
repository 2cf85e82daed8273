# SPDX-License-Identifier: Apache-2.0
"""Text is what was typed and a number is one number, whichever way it takes."""
from math import inf, isnan
import os
import signal
import subprocess
import sys

from lingbot_world_ros import processes
from lingbot_world_ros.cli.main import main
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.parameter import Param
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.plain_yaml import (as_text, as_yaml, read_bool, read_number, read_whole,
                                          read_yaml)
from lingbot_world_ros.robots.calibration import load_calibration, parse_calibration
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.settings.parameters import PARAMS
from lingbot_world_ros.settings.profiles import (assignments, load_profile, params_file,
                                                 params_text, read_assignments, read_sections)
from lingbot_world_ros.worlds.library import WorldLibrary
import pytest
from ros_domain import Domain
from test_library import IMAGINES
from test_robots import URDF, YAML as ROBOT
from test_view import YAML as CALIBRATION
from waiting import PATIENCE_S

# What YAML, or one of its readers, takes for something else where no quotes are.
WORDS = ('12:30', 'yes', 'y', 'Off', 'null', '~', '1984', '007', '+5', '1e-05', '1_000', '0x10',
         '0o17', '.5', '.inf', 'nan', '2026-11-29', '=', '<<', 'true', '1.2.3', '190:20:30.15')
TEXTS = (*WORDS, '', ' ', '[old town] a street', '[1]', 'A street: wet leaves', '# x', 'a # x',
         "it's", "'", '"in quotes"', "''", '{a}', '{a: 1}', '*star', '&a', '!!str 1', '!b',
         '\U0001f642 lobby', 'caf\u00e9', '  spaces  ', 'a\nb: c\n\n  d\n', '\n', 'a\r\nb',
         'a\tb', '- a', '-', '--- a', '...', '|', '> a', '@a', '`a`', '%a', '\\n %s $HOME', '?',
         ':', ': a', 'a:', ',', 'a\u2028b\u0085c\ufeffd', 'x' * 5000, ' '.join(['long'] * 100),
         share_path('config', 'robots', 'room.urdf').read_text())
NUMBERS = {'1e-05': 1e-05, '5e-1': 0.5, '.5': 0.5, '+1': 1.0, '1.': 1.0, '-0.25': -0.25,
           '1E+2': 100.0, '0x1f': 31.0, '0o17': 15.0, '0.00005': 5e-05, '12': 12.0, ' 2 ': 2.0,
           '.inf': inf, '-.Inf': -inf}
NO_NUMBERS = ('12:30', '1_000', '007', '-010', '', ' ', '1e', 'e5', 'nan', 'inf', 'yes', 'true',
              '0b1', '-0x1f', '1,5', '\u0663', '\u00b2', '1e999', '1 2', '--1', '1.2.3', '.', '+',
              '"5"', "'5'", '9' * 5000, 'null', '~')
HEAD = '/**:\n  ros__parameters:\n'
PROMPT = ('[old town] a "street": wet\n# x it\'s {a} *star & !b %s $HOME \\n\t| '
          '\U0001f642\n\n 12:30')


@pytest.fixture
def profile(tmp_path):
    """Return what writes a profile with one line."""
    def write(line):
        path = tmp_path / 'mine.yaml'
        path.write_text(f'{HEAD}    {line}\n', encoding='utf-8')
        return str(path)
    return write


@pytest.mark.parametrize('text', TEXTS)
def test_text_is_what_was_typed(profile, text):
    assert read_assignments([f'prompt:={text}']) == {'prompt': text}
    [option, argument] = assignments({'prompt': text})
    assert option == '--param' and read_assignments([argument]) == {'prompt': text}
    assert as_yaml(text).count('\n') == 0 and read_yaml(as_yaml(text)) == text
    assert load_profile(profile(f'prompt: {as_yaml(text)}')) == {'prompt': text}


@pytest.mark.parametrize('text', WORDS)
def test_text_needs_no_quotes_in_a_profile(profile, text):
    path = profile(f'prompt: {text}')
    assert load_profile(path) == {'prompt': text}
    with params_file(path) as written:
        assert f'"prompt": "{text}"' in written.read_text()


@pytest.mark.parametrize('value', [True, 1984, 1e-05, None])
def test_what_ros_did_not_take_for_text_is_refused_and_not_guessed(value):
    """``-p prompt:=007`` reaches a node as the number 7."""
    with pytest.raises(SpecError, match='prompt=.* is not text; in YAML, put it in quotes'):
        PARAMS['prompt'].check(value, 'here')


@pytest.mark.parametrize('text', TEXTS)
def test_text_of_a_world_file_is_what_it_says(text):
    library = WorldLibrary(IMAGINES)
    if len(text) <= 2000 and not set(text) & set('\r\u0085'):
        world = library.load(text=f'scene: office\ndescription: {as_yaml(text)}\n')
        assert world.description == text and library.load(text=world.text) == world
    if text in WORDS:
        assert library.load(text=f'scene: office\nprompt: {text}\n').prompt == text


@pytest.mark.parametrize('text, number', NUMBERS.items())
def test_numbers_are_those_of_yaml_1_2(profile, text, number):
    assert read_number(text) == number and read_number(read_yaml(text)) == number
    assert read_number(as_text(number)) == number and read_number(read_yaml(f'"{text}"')) is None
    param = Param('example.size', float, 'Any number.')
    assert param.read(text, 'here') == number
    if 0.0 <= number <= 100.0:
        assert read_assignments([f'speed:={text}']) == {'speed': number}
        assert load_profile(profile(f'speed: {text}')) == {'speed': number}
        assert read_assignments(assignments({'speed': number})[1:]) == {'speed': number}


@pytest.mark.parametrize('text', NO_NUMBERS)
def test_what_is_no_number_is_refused_in_one_sentence(profile, text):
    assert read_number(text) is None and read_whole(text) is None
    with pytest.raises(SpecError, match='speed=.* is not a number[.;]') as error:
        read_assignments([f'speed:={text}'])
    assert '\n' not in str(error.value) and len(str(error.value)) < 300
    with pytest.raises(SpecError, match='speed=.* is not a number[.;]'):
        load_profile(profile(f'speed: {text}'))


def test_whole_numbers_and_truth_are_read_where_they_are_wanted():
    assert [read_whole(text) for text in ('0', '-5', '+5', '0x1F', '1.0', '1e3', '.inf', [], {})
            ] == [0, -5, 5, 31, None, None, None, None, None]
    assert [read_bool(text) for text in ('true', 'Yes', 'ON', 'y', 'false', 'no', 'Off', 'N')
            ] == [True] * 4 + [False] * 4
    assert [read_bool(text) for text in ('tRue', '1', '', 'null', read_yaml('"true"'))
            ] == [None] * 5
    assert isnan(read_number('.nan')) and [as_text(value) for value in (
        True, False, 5, 5.0, 5e-05, inf, -inf, float('nan'))] == [
            'true', 'false', '5', '5.0', '5e-05', '.inf', '-.inf', '.nan']


def test_a_calibration_takes_such_numbers(tmp_path):
    read = parse_calibration(CALIBRATION.replace('0.002', '1e-05').replace('150.0', '+1.5e2'))
    assert read.d[2] == 1e-05 and read.camera.fx_px == 150.0
    path = tmp_path / 'camera.yaml'
    for wrong in ('12:30', '1_5', '"150.0"', '0b1'):
        path.write_text(CALIBRATION.replace('150.0', wrong))
        with pytest.raises(SpecError, match='camera_matrix does not hold "data:" with 9 numbers'):
            load_calibration(str(path))
    for wrong in ('12:30', '1e2', '"160"', '0160'):
        path.write_text(CALIBRATION.replace('image_width: 160', f'image_width: {wrong}'))
        with pytest.raises(SpecError, match='image_width=.* is not a whole number'):
            load_calibration(str(path))


def test_a_robot_takes_such_numbers(tmp_path):
    (tmp_path / 'my.urdf').write_text(URDF)
    path = tmp_path / 'mine.yaml'
    path.write_text(ROBOT.replace('radius_m: 0.2', 'radius_m: 2e-1'))
    assert load_robot(str(path)).footprint.radius_m == 0.2
    for wrong in ('12:30', '1_0', '"0.2"', '02'):
        path.write_text(ROBOT.replace('radius_m: 0.2', f'radius_m: {wrong}'))
        with pytest.raises(SpecError, match='footprint.radius_m=.* is not a number of more'):
            load_robot(str(path))


def test_a_world_file_takes_such_numbers():
    library = WorldLibrary(IMAGINES)
    assert library.load(text='{scene: office, seed: 0x10}').seed == 16
    for wrong in ('12:30', '1_0', '"5"', '1e1', '05'):
        with pytest.raises(SpecError, match='seed=.* is not a whole number'):
            library.load(text=f'{{scene: office, seed: {wrong}}}')


@pytest.mark.parametrize('text', [*TEXTS[:-1], PROMPT])
def test_worlds_and_what_runs_beside_them_are_told_the_same(monkeypatch, text):
    given = {}
    monkeypatch.setattr(processes, 'run_together', lambda commands: given.update(commands) or 0)
    seed = load_profile('default')['seed']
    numbers = {'camera_path_metres_per_unit': 5e-05, 'publish_tf': False, 'jpeg_quality': 80}
    assert main(['sim', '--worlds', '2', f'--prompt={text}', '--speed', '5e-1',
                 *assignments(numbers)]) == 0
    for index, command in enumerate(given.values()):
        told = read_assignments(word for option, word in zip(command, command[1:])
                                if option == '--param')
        assert told == {'prompt': text, 'speed': 0.5, **numbers, 'seed': seed + index,
                        'frame_prefix': f'world_{index}/', 'topics.clock': 'clock',
                        **{name: value for name, value in told.items() if name.startswith(
                            ('topics.', 'service_prefix'))}}


def test_ros_reads_a_parameter_file_as_we_do(profile):
    pytest.importorskip('rclpy')
    from rclpy.context import Context
    from rclpy.node import Node
    given = {f'text.p{index}': text for index, text in enumerate(TEXTS)}
    given.update({f'number.p{index}': value for index, value in enumerate(
        (0, -5, 2 ** 40, 0.5, 5e-05, 1e22, 2.0, -inf, True, False))})
    read = read_sections(profile('{prompt: 007, speed: 2, use_sim_time: no, '
                                 'qos_overrides./tf.publisher.depth: 5}'))
    path = profile('')
    other = ('/other/world_model', {'speed': 1.0})
    for sections in ([('/**', given)], [('/**', {}), *read, other]):
        with open(path, 'w', encoding='utf-8') as file:
            file.write(params_text(sections))
        context = Context()
        context.init(['--ros-args', '--params-file', path])
        try:
            node = Node('world_model', context=context, start_parameter_services=False,
                        enable_rosout=False, automatically_declare_parameters_from_overrides=True)
            found = {name: node.get_parameter(name).value for name in node._parameters
                     if not name.startswith(('use_sim_time', 'start_type'))}
            told_type = {type(value) for value in found.values()}
            node.destroy_node()
        finally:
            context.try_shutdown()
        if sections[0][1]:
            assert found == given and {type(value) for value in given.values()} == told_type
    assert found == {'prompt': '007', 'speed': 2.0, 'qos_overrides./tf.publisher.depth': 5}


def test_each_process_has_exactly_what_was_typed():
    pytest.importorskip('rclpy')
    pytest.importorskip('aiohttp')
    from rcl_interfaces.srv import GetParameters
    from ros_graph import Graph
    wanted = {'prompt': PROMPT, 'view.token': '12:30', 'camera_path_metres_per_unit': 5e-05}
    with Domain() as domain:
        process = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--worlds', '2', '--view',
             *assignments({**wanted, 'autostart': False, 'isolate_engine': True})],
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        try:
            with Graph(lambda: [], domain) as graph:
                def asked(node, name):
                    [value] = graph.call(GetParameters, f'/world_1/{node}/get_parameters',
                                         GetParameters.Request(names=[name])).values
                    return value
                assert asked('world_model', 'prompt').string_value == PROMPT
                assert asked('view', 'view.token').string_value == '12:30'
                assert asked('action_encoder', 'camera_path_metres_per_unit').double_value == 5e-05
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0 and 'Traceback' not in said, said
