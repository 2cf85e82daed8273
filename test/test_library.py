# SPDX-License-Identifier: Apache-2.0
"""World files: what is read, what it means, what is refused and with which code."""
from dataclasses import replace
import math
import os
from pathlib import Path
import random

from lingbot_world_ros.actions.layout import robot_action_layout
from lingbot_world_ros.engines.interface import Capabilities, WorldSpec
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.definition import (MAX_PROMPT, MAX_SEED, NamedPose, WorldDefinition,
                                                 WorldError)
from lingbot_world_ros.worlds.library import WorldLibrary
from lingbot_world_ros.worlds.placement import MAX_COORDINATE, misplaced
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
from lingbot_world_ros.worlds.start_choice import started_from
from lingbot_world_ros.worlds.start_images import start_images
from lingbot_world_ros.worlds.world_file import MAX_BYTES
import pytest
from waiting import no_hang

ROBOT = load_robot()
SIZE_M = ROBOT.footprint.radius_m, ROBOT.footprint.height_m

SPEC = WorldSpec(engine='test', model='test 1', scenes=tuple(SCENES), robot=ROBOT,
                 action=robot_action_layout(ROBOT))
IMAGINES = replace(SPEC, can=Capabilities(take_prompts=True, take_images=True))
PNG = b'\x89PNG\r\n\x1a\n' + bytes(20)
FULL = """
name: rainy
scene: office
seed: 7
prompt: it rains
images: [first.png]
camera: {width_px: 832, height_px: 480, fx_px: 700.5, fy_px: 700.5, cx_px: 416, cy_px: 240}
start_pose: {x_m: 3.3, y_m: 2.5, yaw_rad: -0.5}
joints: {elbow_joint: 1.25}
named_poses:
  - {name: goal, description: there, tags: [spawn], pose: {x_m: 1, y_m: 2, z_m: 0.5, yaw_rad: 3}}
  - {name: other, pose: {x_m: 1e-1, y_m: 2., yaw_rad: 0}}
description: |
  Two lines
  of text.
tags: [indoor, rain]
"""


def code_of(library, uri='', text='', **options):
    """Load what cannot be loaded and return the code; the message must help."""
    with pytest.raises(WorldError) as error:
        library.load(uri, text, **options)
    assert len(str(error.value)) > 20
    return error.value.code


@pytest.fixture
def folder(tmp_path):
    """Make a folder of worlds beside a secret."""
    allowed = tmp_path / 'worlds'
    allowed.mkdir()
    (tmp_path / 'secret.yaml').write_text('scene: office\nname: secret\n')
    (allowed / 'rainy.yaml').write_text(FULL)
    (allowed / 'first.png').write_bytes(PNG)
    (allowed / 'plain.yml').write_text('scene: workshop\n')
    (allowed / 'params.yaml').write_text('/**:\n  ros__parameters: {a: 1}\n')
    return allowed


@pytest.fixture
def library(folder):
    """Open a library that may read that folder."""
    return WorldLibrary(SPEC, str(folder))


def test_every_field_arrives(folder):
    """A full world file, for an engine that can use all of it."""
    world = WorldLibrary(IMAGINES, str(folder)).load((folder / 'rainy.yaml').as_uri())
    assert world == WorldDefinition(
        name='rainy', scene='office', seed=7, prompt='it rains',
        images=(str(folder.resolve() / 'first.png'),),
        camera=PinholeCamera(832, 480, 700.5, 700.5, 416.0, 240.0),
        start_pose=(3.3, 2.5, -0.5),
        joints={'elbow_joint': 1.25},
        named_poses=(NamedPose('goal', 'there', ('spawn',), (1.0, 2.0, 0.5, 3.0)),
                     NamedPose('other', '', (), (0.1, 2.0, 0.0, 0.0))),
        description='Two lines\nof text.\n', tags=('indoor', 'rain'))
    assert world.uri == (folder / 'rainy.yaml').as_uri()


def test_text_gives_the_same_world_again(folder):
    """The canonical text of whatever was loaded loads as the same definition."""
    library = WorldLibrary(IMAGINES, str(folder))
    worlds, failed = library.available()
    assert failed == [] and len(worlds) >= 6
    for world in worlds:
        again = library.load(text=world.text)
        assert again == world and again.text == world.text


def test_text_survives_odd_characters(library):
    """Names and descriptions that YAML would like to read as something else."""
    rng = random.Random(1)
    alphabet = 'a:#-{}[]&*!|>%@`"\'\\, \n\t~=nyNull0.\u00e9\u2028\U0001f916'
    for _ in range(300):
        text = ''.join(rng.choice(alphabet) for _ in range(rng.randrange(1, 12)))
        world = WorldDefinition(name=text, scene='office', description=text, tags=(text,))
        assert library.load(text=world.text) == world


def test_names_are_scenes_and_shipped_files(library):
    """A scene's shipped file describes it further; the seed is the caller's unless named."""
    for scene in SCENES:
        world = library.load(scene, seed=5)
        assert (world.name, world.scene, world.seed) == (scene, scene, 5)
        assert world.named_poses and world.tags
    assert library.load('office_doorway', seed=5).seed == 3
    assert WorldLibrary(replace(SPEC, scenes=('mars',))).load('mars') == \
        WorldDefinition('mars', 'mars')


def test_shipped_worlds_leave_room_for_the_robot():
    """Every named pose on the floor is a place where the robot can stand."""
    for world in WorldLibrary(SPEC).available()[0]:
        assert world.description and world.tags
        for pose in world.named_poses:
            x_m, y_m, z_m, _ = pose.pose
            assert z_m > 0 or misplaced(world.scene, x_m, y_m, *SIZE_M) == '', pose


def test_shipped_starts_are_clear_of_the_objects_of_their_seed():
    """A start pose moves the robot only; the seed has put the objects without knowing of it."""
    for world in WorldLibrary(SPEC).available()[0]:
        if world.start_pose is None:
            continue
        scene = get_scene(world.scene)
        start = scene.start_state(world.seed, ROBOT)
        for movable, pose in zip(scene.movables, start.object_pose):
            distance_m = math.dist(pose[:2], world.start_pose[:2])
            assert distance_m > SIZE_M[0] + movable.radius_m, (world.name, movable.name)


def test_shipped_files_have_the_name_of_their_world():
    """They are looked up by file name."""
    for path in share_path('config', 'worlds').glob('*.yaml'):
        world = WorldLibrary(SPEC).load(path.stem)
        assert world.name == path.stem
        assert world.uri == f'package://lingbot_world_ros/config/worlds/{path.name}'
        assert WorldLibrary(SPEC).load(world.uri) == world


def test_unknown_name_names_the_nearest(library):
    """A typing mistake is answered with what was meant."""
    with pytest.raises(WorldError, match="'office'") as error:
        library.load('ofice')
    assert error.value.code == 'NOT_FOUND'


@pytest.mark.parametrize('uri', [
    'http://example.org/a.yaml', 'file:///a/b.sdf', 'file:///a/b.pkl', 'file:///etc/passwd',
    'ftp://a/b.yaml', 'package://lingbot_world_ros/package.xml', '/a/b.yaml', 'b.yaml',
    '../b.yaml', 'file:///a.yaml?x=1', 'file:///a.yaml#x', 'FILE:///a.yaml', '://a.yaml',
    'file:///a/b.yaml\n'])
def test_other_formats_are_unsupported(library, uri):
    """Scheme and suffix say what a world is; nothing is opened to find out."""
    assert code_of(library, uri) == 'UNSUPPORTED_FORMAT'


@pytest.mark.parametrize('uri', [
    'kitchen', 'file:///nowhere/a.yaml', 'file://host/a.yaml', 'package://no_such/a.yaml',
    'package:///a.yaml', 'package://../a.yaml', 'package://lingbot_world_ros/nope.yaml',
    'package://lingbot_world_ros/../../../etc/a.yaml',
    'package://lingbot_world_ros/%2e%2e/%2e%2e/etc/a.yaml', 'file:///a%00b.yaml',
    'file:///%ff.yaml', f'file:///{"a" * 5000}.yaml', f'file:///{"a/" * 5000}b.yaml'])
def test_what_is_not_there_is_not_found(library, uri):
    """Missing files, unknown packages, ways out of a package."""
    assert code_of(library, uri) == 'NOT_FOUND'


def test_files_outside_the_folders_are_as_good_as_missing(library, folder):
    """The answer to a file that exists elsewhere is that to one that does not exist."""
    secret, missing = folder.parent / 'secret.yaml', folder.parent / 'nobody.yaml'
    for path in (secret, folder / '..' / 'secret.yaml'):
        assert code_of(library, f'file://{path}') == 'NOT_FOUND'
    texts = []
    for path in (secret, missing):
        with pytest.raises(WorldError) as error:
            library.load(path.as_uri())
        texts.append(str(error.value).replace(path.name, ''))
    assert texts[0] == texts[1]


def test_links_are_followed_before_the_check(library, folder):
    """A link out of the folder is refused, one within is fine, a loop is no world."""
    (folder / 'out.yaml').symlink_to(folder.parent / 'secret.yaml')
    (folder / 'up').symlink_to(folder.parent)
    (folder / 'in.yaml').symlink_to(folder / 'plain.yml')
    (folder / 'loop.yaml').symlink_to(folder / 'loop.yaml')
    (folder / 'image.yaml').symlink_to(folder / 'first.png')
    assert code_of(library, (folder / 'out.yaml').as_uri()) == 'NOT_FOUND'
    assert code_of(library, (folder / 'up' / 'secret.yaml').as_uri()) == 'NOT_FOUND'
    assert code_of(library, (folder / 'loop.yaml').as_uri()) == 'NOT_FOUND'
    assert code_of(library, (folder / 'image.yaml').as_uri()) == 'UNSUPPORTED_FORMAT'
    assert library.load((folder / 'in.yaml').as_uri()).scene == 'workshop'


def test_package_of_links_needs_its_sources_in_world_path(folder, tmp_path, monkeypatch):
    """As colcon installs with --symlink-install: share holds links into the source folder."""
    pytest.importorskip('ament_index_python')
    for below in ('their_robot', 'ament_index/resource_index/packages'):
        (tmp_path / 'share' / below).mkdir(parents=True)
    (tmp_path / 'share/ament_index/resource_index/packages/their_robot').touch()
    (tmp_path / 'share/their_robot/linked.yaml').symlink_to(folder / 'plain.yml')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    uri = 'package://their_robot/linked.yaml'
    assert code_of(WorldLibrary(SPEC), uri) == 'NOT_FOUND'
    assert WorldLibrary(SPEC, str(folder)).load(uri).scene == 'workshop'


def test_only_regular_files_are_opened(library, folder):
    """A folder, a pipe and a device in the place of a world; none is waited for."""
    (folder / 'folder.yaml').mkdir()
    os.mkfifo(folder / 'pipe.yaml')
    (folder / 'zero.yaml').symlink_to('/dev/zero')
    for name in ('folder', 'pipe', 'zero'):
        assert code_of(library, (folder / f'{name}.yaml').as_uri()) == 'NOT_FOUND'
    worlds, failed = library.available()
    assert failed == [] and 'plain' in {world.name for world in worlds}


@pytest.mark.parametrize('content', [b'\xff\xfe\x00', b'scene: off\x00ice', b'\x80\x04\x95', b'',
                                     b'scene: office\n' + b'#' * MAX_BYTES])
def test_files_that_are_no_text_or_too_large_do_not_parse(library, folder, content):
    """Binary, pickled, empty and huge files."""
    (folder / 'bad.yaml').write_bytes(content)
    assert code_of(library, (folder / 'bad.yaml').as_uri()) == 'RESOURCE_PARSE_ERROR'


@pytest.mark.parametrize('text', [
    'office', '- scene: office', '{}', 'scene: [office', 'scene: office\nscene: office',
    'a: &x 1\nscene: office', 'scene: office\ntags: *x', 'scene: !!python/object:os.system office',
    '!!python/object/apply:os.system [ls]', 'scene: office\n---\nscene: office',
    '? [a, b]\n: 1', 'scene: office\n<<: {name: x}', 'a: ' + '[' * 5000, '[' * 100_000,
    'scene: office\ntags: [' + 'a, ' * 20_000 + ']', 'x' * (MAX_BYTES + 1), 'scene: \x07',
    '"scene": "\\ud800"', 'scene: office\nname: "a\\0b"', ' \n',
    'scene: office\nseed: -1', 'scene: office\nseed: 1.5', 'scene: office\nseed: 2147483648',
    'scene: office\nseed: 1:30', f'scene: office\nseed: {"9" * 5000}', 'scene: office\nseed: []',
    'scene: office\nstart_pose: {x_m: .nan, y_m: 2.5, yaw_rad: 0}',
    'scene: office\nstart_pose: {x_m: inf, y_m: 2.5, yaw_rad: 0}',
    'scene: office\nstart_pose: {x_m: 1e999, y_m: 2.5, yaw_rad: 0}',
    'scene: office\nstart_pose: {x_m: 1, y_m: 2}', 'scene: office\nstart_pose: [1, 2, 3]',
    'scene: office\nstart_pose: {x_m: -1, y_m: 2.5, yaw_rad: 0}',
    'scene: office\nstart_pose: {x_m: 0.5, y_m: 1.5, yaw_rad: 0}',  # in the desk
    'scene: office\njoints: {elbow_joint: 9}', 'scene: office\njoints: {elbow: 1}',
    'scene: office\njoints: {elbow_joint: soft}', 'scene: office\njoints: 3',
    'scene: office\nnamed_poses: [{name: a}]', 'scene: office\nnamed_poses: [a]',
    'scene: office\nnamed_poses: [{pose: {x_m: 1, y_m: 1, yaw_rad: 0}}]',
    'scene: office\nnamed_poses:\n' + '- {name: a, pose: {x_m: 1, y_m: 1, yaw_rad: 0}}\n' * 2,
    'scene: office\ntags: indoor', 'scene: office\ntags: [[a]]', 'scene: office\nname: {a: b}',
    f'scene: office\nname: {"a" * 101}', 'scene: office\ncamera: {width_px: 0}', 'name: nowhere'])
def test_what_is_no_world_does_not_parse(library, text):
    """Bad YAML, wrong types, numbers out of range; none keeps the reader busy for ever."""
    with no_hang():
        assert code_of(library, text=text) == 'RESOURCE_PARSE_ERROR'


CAMERA = {'width_px': 64, 'height_px': 48, 'fx_px': 50, 'fy_px': 50, 'cx_px': 32, 'cy_px': 24}
POSE = '{x_m: 1, y_m: 2, yaw_rad: 0}'


def camera_text(**changes):
    """Write a camera of a world."""
    entries = ', '.join(f'{key}: {value}' for key, value in {**CAMERA, **changes}.items())
    return f'camera: {{{entries}}}'


def pose_text(name='a', **entries):
    """Write a named pose."""
    more = ''.join(f', {key}: {value}' for key, value in entries.items())
    return f'named_poses: [{{name: {name}, pose: {POSE}{more}}}]'


@pytest.mark.parametrize('taken, refused', [
    (f'name: {"a" * 100}', f'name: {"a" * 101}'),
    (f'description: {"a" * 2000}', f'description: {"a" * 2001}'),
    (f'prompt: {"a" * MAX_PROMPT}', f'prompt: {"a" * (MAX_PROMPT + 1)}'),
    (f'tags: [{"a, " * 64}]', f'tags: [{"a, " * 65}]'),
    (f'tags: [{"a" * 100}]', f'tags: [{"a" * 101}]'),
    (f'images: [{"first.png, " * 64}]', f'images: [{"first.png, " * 65}]'),
    (pose_text('a' * 100), pose_text('a' * 101)),
    (pose_text(description='a' * 2000), pose_text(description='a' * 2001)),
    (pose_text(tags=f'[{"a" * 100}]'), pose_text(tags=f'[{"a" * 101}]')),
    (pose_text().replace('y_m: 2', f'y_m: {-MAX_COORDINATE}'),
     pose_text().replace('y_m: 2', f'y_m: {-1.001 * MAX_COORDINATE}')),
    (pose_text().replace('x_m: 1', f'x_m: 1.{"0" * 37}'),
     pose_text().replace('x_m: 1', f'x_m: 1.{"0" * 38}')),
    ('seed: 0', 'seed: 00000000000'), (f'seed: {MAX_SEED}', f'seed: {MAX_SEED + 1}'),
    (camera_text(width_px=1), camera_text(width_px=0)),
    (camera_text(height_px=16384), camera_text(height_px=16385)),
    (camera_text(fx_px=10), camera_text(fx_px=9.9)), (camera_text(fy_px=10), camera_text(fy_px=1)),
    (camera_text(cx_px=0), camera_text(cy_px=-0.001)),
    (camera_text(fy_px=100000), camera_text(fy_px=100001))])
def test_what_a_world_may_say_has_bounds(folder, taken, refused):
    """The longest and the largest that are taken, and what is just beyond."""
    library = WorldLibrary(IMAGINES, str(folder))
    where = folder / 'bounds.yaml'
    where.write_text(f'scene: office\n{taken}\n')
    assert library.load(where.as_uri()).scene == 'office'
    where.write_text(f'scene: office\n{refused}\n')
    assert code_of(library, where.as_uri()) == 'RESOURCE_PARSE_ERROR'


def test_a_camera_in_image_widths_is_told_from_one_in_pixels(folder):
    library = WorldLibrary(IMAGINES, str(folder))
    with pytest.raises(WorldError, match='camera: focal lengths of 0.78 and 1.04 are not in pix'):
        library.load(text=f'scene: office\n{camera_text(fx_px=0.78, fy_px=1.04)}')


def test_name_of_an_image_may_be_as_long_as_a_path(folder):
    """4096 characters; the file of that name is not there."""
    library = WorldLibrary(IMAGINES, str(folder))
    for length, code in ((4096, 'MISSING_ASSETS'), (4097, 'RESOURCE_PARSE_ERROR')):
        (folder / 'long.yaml').write_text(f'scene: office\nimages: [{"a" * (length - 4)}.png]')
        assert code_of(library, (folder / 'long.yaml').as_uri()) == code


def test_bad_yaml_is_told_with_its_line(library):
    """Counted from 1."""
    with pytest.raises(WorldError, match=', line 2: '):
        library.load(text='scene: office\nname: *x')


def test_unknown_key_names_the_nearest(library):
    """A key with a typing mistake is no element to be ignored."""
    with pytest.raises(WorldError, match="'seed'") as error:
        library.load(text='scene: office\nsede: 3')
    assert error.value.code == 'RESOURCE_PARSE_ERROR'


@pytest.mark.parametrize('text', ['<sdf version="1.9"/>', '  <?xml version="1.0"?><mujoco/>',
                                  '\ufeff<sdf version="1.9"/>', '#usda 1.0\ndef Xform "a" {}'])
def test_worlds_of_other_simulators_are_unsupported(library, text):
    """SDF, URDF, MJCF and USD are recognised by how they begin."""
    assert code_of(library, text=text) == 'UNSUPPORTED_FORMAT'


def test_nothing_is_no_resource(library):
    """Neither uri nor text; with both the uri counts."""
    assert code_of(library) == 'NO_RESOURCE'
    assert library.load('office', text='nonsense: [').scene == 'office'


def test_scene_of_another_engine_is_a_missing_asset(library):
    """The file is fine, what it builds on is not there."""
    assert code_of(library, text='scene: kitchen') == 'MISSING_ASSETS'
    assert code_of(library, text='scene: kitchen', ignore_assets=True) == 'MISSING_ASSETS'


@pytest.mark.parametrize('image, code', [
    ('none.png', 'MISSING_ASSETS'), ('../secret.png', 'MISSING_ASSETS'),
    ('/etc/none.png', 'MISSING_ASSETS'), ('file:///etc/none.png', 'MISSING_ASSETS'),
    ('package://no_such/a.png', 'MISSING_ASSETS'), ('pipe.png', 'MISSING_ASSETS'),
    ('"a\\tb.png"', 'MISSING_ASSETS'), ('rainy.yaml', 'UNSUPPORTED_ASSETS'),
    ('weights.pkl', 'UNSUPPORTED_ASSETS'), ('fake.png', 'UNSUPPORTED_ASSETS'),
    ('http://a/b.png', 'UNSUPPORTED_ASSETS')])
def test_images_that_cannot_be_used(folder, image, code):
    """Refused with a code of their own, or left out where that was asked for."""
    (folder.parent / 'secret.png').write_bytes(PNG)
    (folder / 'fake.png').write_bytes(b'GIF89a')
    os.mkfifo(folder / 'pipe.png')
    (folder / 'bad.yaml').write_text(f'scene: office\nimages: [first.png, {image}]')
    library, uri = WorldLibrary(IMAGINES, str(folder)), (folder / 'bad.yaml').as_uri()
    assert code_of(library, uri) == code
    kept = library.load(uri, ignore_assets=True).images
    assert kept == (str(folder.resolve() / 'first.png'),)


def test_image_of_an_inline_world_needs_a_uri(folder):
    """Text has no folder that a relative name could start from."""
    library = WorldLibrary(IMAGINES, str(folder))
    assert code_of(library, text='scene: office\nimages: [first.png]') == 'MISSING_ASSETS'
    uri = (folder / 'first.png').as_uri()
    assert library.load(text=f'scene: office\nimages: ["{uri}"]').images


def test_engine_without_text_and_images_leaves_them_out_or_refuses(library):
    """Prompt and camera are elements, images are assets; each has its own flag and code."""
    camera = FULL[FULL.index('camera'):FULL.index('start_pose')]
    for element in ('prompt: it rains', camera):
        text = f'scene: office\n{element}'
        assert library.load(text=text) == WorldDefinition('office', 'office')
        assert code_of(library, text=text, fail_on_unsupported=True) == 'UNSUPPORTED_ELEMENTS'
    text = 'scene: office\nimages: [first.png]'
    assert code_of(library, text=text) == 'UNSUPPORTED_ASSETS'
    assert library.load(text=text, ignore_assets=True) == WorldDefinition('office', 'office')


def test_available_worlds_leave_out_what_is_none(library, folder):
    """Other YAML files and worlds that this engine cannot run do not appear."""
    names = [world.name for world in library.available()[0]]
    assert 'plain' in names and 'params' not in names and 'rainy' not in names
    assert len(names) == len(set(names))
    other = WorldLibrary(replace(SPEC, scenes=('office',))).available()[0]
    assert {world.scene for world in other} == {'office'}


def test_folder_that_went_away_is_told(library, folder):
    """The worlds of the others are still listed."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    worlds, failed = library.available()
    assert {world.name for world in worlds} >= set(SCENES)
    assert len(failed) == 1 and str(folder.resolve()) in failed[0]


def test_further_sources_are_folders_or_files(library, folder):
    """A folder lists its worlds; a file that is none is an error."""
    (folder / 'more').mkdir()
    (folder / 'more' / 'extra.yaml').write_text('scene: office')
    assert [w.name for w in library.find((folder / 'more').as_uri())] == ['extra']
    assert [w.name for w in library.find((folder / 'plain.yml').as_uri())] == ['plain']
    assert len(library.find('package://lingbot_world_ros/config/worlds')) >= 6
    for source in (folder.parent.as_uri(), (folder / 'none').as_uri(), 'nonsense', '',
                   (folder / 'params.yaml').as_uri(), (folder / 'first.png').as_uri(),
                   'package://no_such', 'package://lingbot_world_ros/..'):
        with pytest.raises(WorldError):
            library.find(source)


def test_world_path_must_be_folders(folder):
    """A typing mistake in the parameter is told at the start."""
    for wrong in (f'{folder}/none', str(folder / 'rainy.yaml'), f'{folder}:/nowhere', 'a\0b'):
        with pytest.raises(SpecError, match='world_path'):
            WorldLibrary(SPEC, wrong)
    assert WorldLibrary(SPEC, f'{folder}:{folder.parent}').load(
        (folder.parent / 'secret.yaml').as_uri()).name == 'secret'


def test_misplaced_knows_walls_and_furniture():
    """Free floor is fine; a predicted contact may overlap a little; outside is out."""
    size = get_scene('office').size_m
    assert misplaced('office', 3.3, 2.5, *SIZE_M) == ''
    assert misplaced('office', SIZE_M[0] - 0.03, 3.0, *SIZE_M) == ''
    for x_m, y_m in ((-1.0, 2.0), (size[0] + 0.1, 2.0), (0.5, 1.5), (float('nan'), 2.0),
                     (2.0, float('nan')), (float('inf'), 2.0), (1e300, 0.0)):
        assert misplaced('office', x_m, y_m, *SIZE_M)
    assert misplaced('mars', 100.0, -100.0, *SIZE_M) == ''
    assert misplaced('mars', 1e9, 0.0, *SIZE_M)
    assert Path(share_path('config', 'worlds')).is_dir()


def test_a_scene_without_words_has_those_of_its_picture():
    words = start_images()['office'][1]
    library = WorldLibrary(replace(IMAGINES, scenes=('office', 'office_view', 'image')))
    for world in (library.load('office_view'), library.load(text='scene: office_view')):
        assert world.prompt == words and not world.images
        assert library.load(text=world.text) == world
    assert library.load(text='scene: office_view\nprompt: rain').prompt == 'rain'
    assert [library.load(text=f'scene: {name}').prompt for name in ('office', 'image')] == ['', '']


def test_a_start_pose_is_of_no_use_where_nothing_can_be_moved():
    text, spec = 'scene: office\nstart_pose: {x_m: 3.3, y_m: 2.5, yaw_rad: 0}', replace(
        SPEC, can=Capabilities(take_poses=False))
    assert WorldLibrary(spec).load(text=text).start_pose is None
    assert code_of(WorldLibrary(spec), text=text, fail_on_unsupported=True) \
        == 'UNSUPPORTED_ELEMENTS'


def test_start_image_and_prompt_take_the_place_of_those_of_a_world(folder):
    world = WorldLibrary(IMAGINES, str(folder)).load((folder / 'rainy.yaml').as_uri())
    other = folder.parent / 'other.PNG'
    other.write_bytes(PNG)
    for given in (str(other), other.as_uri()):
        led = started_from(world, IMAGINES, start_image=given, prompt='it snows')
        assert (led.images, led.prompt, led.camera) == ((str(other),), 'it snows', None)
    assert led.scene == world.scene and 'it snows' in led.text
    assert started_from(world, IMAGINES) == world
    kept = started_from(world, IMAGINES, prompt='it snows')
    assert (kept.images, kept.camera) == (world.images, world.camera)


@pytest.mark.parametrize('spec, changes, words', [
    (SPEC, dict(prompt='x'), "engine 'test' takes no text"),
    (SPEC, dict(start_image='a.png'), "start_image: engine 'test' starts from its scenes"),
    (IMAGINES, dict(prompt='x' * 10_001), 'at most 10000'),
    (IMAGINES, dict(prompt='a\x1b[2J'), 'control characters'),
    (IMAGINES, dict(start_image='/no/where.png'), 'start_image: /no/where.png is not a file'),
    (IMAGINES, dict(start_image='package://lingbot_world_ros/config/default.yaml'), 'no PNG'),
])
def test_starts_that_cannot_be_are_refused_in_words(spec, changes, words):
    with pytest.raises(SpecError, match=words) as error:
        started_from(WorldDefinition('office', 'office'), spec, **changes)
    assert '\n' not in str(error.value) and '\x1b' not in str(error.value)


def test_a_picture_that_is_none_is_refused(tmp_path):
    path = tmp_path / 'fake.png'
    path.write_bytes(b'GIF89a')
    with pytest.raises(SpecError, match='no PNG or JPEG'):
        started_from(WorldDefinition('office', 'office'), IMAGINES, start_image=str(path))
