# SPDX-License-Identifier: Apache-2.0
"""The engine of docs/your_own_engine.md, installed as another package: it runs, and keeps all."""
from functools import partial
import os
import re
import subprocess
import sys

from doc_pages import DOCS, read
from engine_samples import _isolated, Sample
from lingbot_world_ros.engines import registry
from lingbot_world_ros.engines.registry import EngineEntry, make_world, SHIPPED
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.parameter import Param
from lingbot_world_ros.settings.layouts import absent_topics, profile_values
from lingbot_world_ros.settings.parameters import all_parameters, engine_options, PARAMS
from lingbot_world_ros.settings.profiles import load_profile, read_assignments
import pytest
import test_engine_contract as contract

if not DOCS.is_dir():
    pytest.skip('docs/ is not installed with the package', allow_module_level=True)

FOLDER = 'chequered_floor/'
SCENE = ('floor', 'floor')
HEAD = '/**:\n  ros__parameters:\n'


def install(folder, name, points, **modules):
    """Do what pip does: put modules into a folder, and beside them what they are registered as."""
    about = folder / f'{name}-1.0.dist-info'
    about.mkdir(parents=True)
    (about / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    lines = [f'{key} = {value}' for key, value in points.items()]
    (about / 'entry_points.txt').write_text('\n'.join([f'[{registry.GROUP}]', *lines, '']))
    for module, text in modules.items():
        (folder / f'{module}.py').write_text(text)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder with the package of the page, which Python looks into."""
    files = {block.marks['save'].removeprefix(FOLDER): block.text
             for block in read(DOCS / 'your_own_engine.md').blocks if 'save' in block.marks}
    project = files.pop('pyproject.toml')
    section = project.partition(f'[project.entry-points."{registry.GROUP}"]\n')[2]
    points = dict(re.findall(r'(?m)^(\w+) = "(.+)"$', section.partition('\n\n')[0]))
    folder = tmp_path_factory.mktemp('site')
    install(folder, 'chequered-floor', points,
            **{name.removesuffix('.py'): text for name, text in files.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        registry._others.cache_clear()
        yield folder
    registry._others.cache_clear()


def test_it_is_there_beside_those_that_ship(folder):
    assert list(registry.engines()) == [*SHIPPED, 'example']
    assert make_world('example', tile_m=2.0).spec.scenes == ('floor',)
    assert 'example' not in registry.comparable_engines()
    known = "Did you mean 'example'.*Known: example, learned, lingbot_world"
    with pytest.raises(SpecError, match=known):
        make_world('exmaple')


def test_its_parameters_are_those_of_others(folder, tmp_path):
    assert set(all_parameters()) - set(PARAMS) == {'example.tile_m'}
    assert read_assignments(['example.tile_m:=2']) == {'example.tile_m': 2.0}
    values = profile_values('default')
    assert engine_options({**values, 'engine': 'example'}) == {'tile_m': 0.5}
    assert engine_options({**values, 'engine': 'example', 'example.tile_m': 3.0}) == {
        'tile_m': 3.0}
    profile = tmp_path / 'mine.yaml'
    profile.write_text(f'{HEAD}    engine: example\n    example: {{tile_m: 0.25}}\n')
    assert load_profile(str(profile)) == {'engine': 'example', 'example.tile_m': 0.25}
    with pytest.raises(SpecError, match="Did you mean 'example.tile_m'"):
        read_assignments(['example.tile:=1'])
    with pytest.raises(SpecError, match='outside 0.05 to 10'):
        read_assignments(['example.tile_m:=11'])


def test_what_is_known_before_it_runs_is_what_it_is(folder):
    values = {**profile_values('default'), 'engine': 'example'}
    assert absent_topics(values) == [
        'depth', 'depth_camera_info', 'points', 'scan', 'map', 'bumper', 'wrist_image',
        'wrist_camera_info', 'robot_description']


def test_a_node_declares_the_parameters_of_the_engine_that_runs(folder):
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from lingbot_world_ros.nodes.parameters import as_overrides
    from lingbot_world_ros.nodes.world_model import WorldModelNode
    from ros_domain import Domain
    from ros_graph import Graph
    given = as_overrides({'engine': 'example', 'example.tile_m': 0.25,
                          'lingbot.precision': 'fp8'})  # as a profile for several engines has it
    with Domain() as domain, Graph(
            lambda: [WorldModelNode(parameter_overrides=given)], domain) as graph:
        node = graph.nodes[0]
        assert node.get_parameter('example.tile_m').value == 0.25
        assert not node.has_parameter('lingbot.precision')
        assert node.session.world._tile_m == 0.25
        graph.wait_for(lambda: node.session.status.step > 3, 'steps')


def test_it_runs_by_its_name(folder):
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from ros_domain import Domain
    from ros_graph import Graph
    from sensor_msgs.msg import Image
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get('PYTHONPATH'))))
    with Domain() as domain, Graph(lambda: [], domain) as graph:
        images = graph.listen(Image, '/camera/image_raw')
        process = subprocess.Popen(
            [sys.executable, '-m', 'lingbot_world_ros.cli', 'sim', '--engine', 'example',
             '--param', 'example.tile_m:=0.25', '--duration', '60'],
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONPATH': path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            graph.wait_for(lambda: len(images) > 5 or process.poll() is not None, 'images')
        finally:
            process.terminate()
            said = process.communicate(timeout=60)[0]
    assert len(images) > 5, said
    assert (images[0].width, images[0].height) == (160, 120)
    assert len(set(bytes(images[0].data))) > 3
    assert 'example (chequered floor)' in said


@pytest.fixture
def others(tmp_path, monkeypatch):
    """Install further packages; return the function that does."""
    def add(name, points, **modules):
        install(tmp_path / name, name, points, **modules)
        monkeypatch.syspath_prepend(tmp_path / name)
        registry._others.cache_clear()
    yield add
    registry._others.cache_clear()


ENTRY = 'from lingbot_world_ros.engines.registry import EngineEntry\n' \
        'from lingbot_world_ros.parameter import Param\n'


@pytest.mark.parametrize('point, text, words', [
    ({'broken': 'no_such_module:ENTRY'}, '', 'ModuleNotFoundError.*no_such_module'),
    ({'broken': 'mine_1:ENTRY'}, 'ENTRY = 1', 'it is a int, expected an EngineEntry'),
    ({'broken': 'mine_2:ENTRY'}, '1 / 0', 'ZeroDivisionError'),
    ({'broken': 'mine_3:NONE'}, '', 'AttributeError'),
    ({'broken': 'mine_4:ENTRY'}, f"{ENTRY}ENTRY = EngineEntry('other', 'mine_4:World', 'x')",
     "it calls itself 'other'"),
    ({'broken': 'mine_5:ENTRY'}, f"{ENTRY}ENTRY = EngineEntry('broken', 'mine_5', 'x')",
     "'mine_5' is no text like"),
    ({'broken': 'mine_6:ENTRY'}, f"{ENTRY}ENTRY = EngineEntry('broken', 'mine_6:W', 'x', "
     "takes=('wheels',))", 'Unknown argument in takes'),
    ({'broken': 'mine_7:ENTRY'}, f"{ENTRY}ENTRY = EngineEntry('broken', 'mine_7:W', 'x', "
     "parameters='mine_7:NO')", 'there is no NO in mine_7'),
    ({'broken': 'mine_8:ENTRY'}, f"{ENTRY}T = (Param('speed', float, 'x'),)\n"
     "ENTRY = EngineEntry('broken', 'mine_8:W', 'x', parameters='mine_8:T')",
     "'speed' is not called broken.something"),
    ({'broken': 'mine_9:ENTRY'}, f"{ENTRY}T = (Param('broken.speed', float, 'x', 0.0, 1.0),)\n"
     "ENTRY = EngineEntry('broken', 'mine_9:W', 'x', parameters='mine_9:T')",
     'its default: broken.speed=None is not a number'),
    ({'topics': 'mine_10:ENTRY'}, f"{ENTRY}ENTRY = EngineEntry('topics', 'mine_10:W', 'x')",
     "begin with 'topics' are those of others"),
    ({'room': 'mine_11:ENTRY'}, f"{ENTRY}ENTRY = EngineEntry('room', 'mine_11:W', 'x')",
     'there is another engine of this name'),
])
def test_what_is_wrong_is_told_by_package_and_others_run(folder, others, caplog, point, text,
                                                         words):
    name, where = *point, point[next(iter(point))]
    others('their-engine', point, **{where.partition(':')[0]: text} if text or 'mine' in where
           else {})
    assert list(registry.engines()) == [*SHIPPED, 'example']
    warning, = (record.getMessage() for record in caplog.records)
    assert f"Engine {name!r} of the Python package 'their-engine' ({where})" in warning
    assert re.search(words, warning) and '\n' not in warning
    make_world('example')
    if name in SHIPPED:
        assert registry.engine_entry(name) is SHIPPED[name]
    else:
        with pytest.raises(SpecError) as error:
            make_world(name)
        assert str(error.value) == warning


def test_of_two_with_one_name_the_first_counts(folder, others, caplog):
    others('a-floor', {'example': 'chequered_floor:ENTRY'})
    assert list(registry.engines()) == [*SHIPPED, 'example']
    warning, = (record.getMessage() for record in caplog.records)
    assert "'chequered-floor'" in warning and 'another engine of this name' in warning
    make_world('example')


def test_engine_without_its_package_or_class_says_so(folder, others):
    others('hungry', {'hungry': 'hungry:ENTRY', 'vain': 'hungry:VAIN'}, hungry=(
        f"{ENTRY}ENTRY = EngineEntry('hungry', 'hungry_world:World', 'x', packages=('rare',), "
        "install='conda install rare')\nVAIN = EngineEntry('vain', 'hungry:Nobody', 'x')"),
        hungry_world='import rare')
    with pytest.raises(SpecError, match="'hungry' needs the Python package 'rare': conda inst"):
        make_world('hungry')
    assert registry.engine_entry('hungry').missing() == ['rare']
    with pytest.raises(SpecError, match='there is no Nobody in hungry'):
        make_world('vain')


def test_rows_of_engines_are_checked_like_all_others():
    entry = EngineEntry('mine', 'a:B', 'x', parameters=f'{__name__}:ROWS')
    assert entry.table() == ROWS and entry.options({'mine.b': 2}) == {'a': 'x', 'b': 2}
    with pytest.raises(SpecError, match='mine.b is dynamic'):
        registry._registered('mine', entry)


ROWS = (Param('mine.a', str, 'text', default='x'),
        Param('mine.b', int, 'number', 0, 9, dynamic=True, default=1))


# The contract of all engines, once more for this one.

@pytest.fixture(scope='module', params=['example', 'isolated example'])
def sample(request, folder):
    """Return the sample that the contract is checked with."""
    make = partial(make_world, 'example')
    if request.param == 'example':
        return Sample(make, SCENE, has_batches=True, is_registered=True)
    return Sample(partial(_isolated, make), SCENE, has_batches=True, is_registered=True,
                  in_process=True)


made, world, other, batch, story, alone = (
    getattr(contract, name) for name in ('made', 'world', 'other', 'batch', 'story', 'alone'))
globals().update({name: test for name, test in vars(contract).items()
                  if name.startswith('test_') and 'registered' not in name})
