# SPDX-License-Identifier: Apache-2.0
"""Page about what ships: engines, scenes, the robot, world files, start images."""
from lingbot_world_ros.engines.registry import LINGBOT_WORLD, SHIPPED
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.plain_yaml import read_yaml
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.worlds.definition import IMAGE_SCENE, VIEW
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
from lingbot_world_ros.worlds.start_images import start_images
from md import code, page, prose, table

INTRO = """
Values for the parameters `engine`, `scene` and `world` that need no file of your own. A
running world lists its scenes in `world_spec`, and `get_available_worlds` answers with all worlds
that it can load."""
ENGINES = """
Another Python package can add one: [Your own engine](../your_own_engine.md)."""
WORLD_FILES = """
In `config/worlds/`; the name is the value of `world` and the `uri` of LoadWorld. A file of your
own has the [same form](../simulation_interfaces.md#world-files)."""
IMAGES = f"""
In `config/worlds/images/`, pictures of the scenes for engines that start from an image:
`<scene>{VIEW}` as `scene`. The scene `{IMAGE_SCENE}` takes a picture of yours (`start_image`, or
`images` of a world file)."""


def pages() -> dict:
    """
    Make the page.

    :return: file name -> Markdown
    """
    return {'engines_and_worlds.md': page(
        'Engines, scenes and worlds', INTRO, '## Engines', _engines(), ENGINES,
        '## Scenes', _scenes(),
        '## Robot', *_robot(), '## World files', WORLD_FILES, _world_files(), '## Start images',
        IMAGES, _images())}


def _engines():
    scenes = ', '.join(map(code, SCENES))
    views = ', '.join(code(f'{name}{VIEW}') for name in start_images())
    rows = []
    for entry in SHIPPED.values():
        own = f'{views}, {code(IMAGE_SCENE)}' if entry is LINGBOT_WORLD else scenes
        link = entry.docs.replace('docs/', '../')
        rows.append((code(entry.name), f'[{entry.summary}]({link})',
                     ', '.join(map(code, entry.packages)), own))
    return table(('`engine`', 'is', 'Python packages', 'scenes'), rows)


def _scenes():
    rows = []
    for name in SCENES:
        scene = get_scene(name)
        size = ' x '.join(f'{side:g}' for side in scene.size_m)
        rows.append((code(name), size, ', '.join(code(m.name) for m in scene.movables)))
    return table(('`scene`', 'size [m]', 'movable objects'), rows)


def _robot():
    robot = load_robot()
    drive, camera = robot.drive, robot.camera
    yield (f'The robot of these scenes: a differential base ({drive.linear_low_mps:g} to '
           f'{drive.linear_high_mps:g} m/s, {drive.angular_max_radps:g} rad/s), an arm, and a '
           f'camera of {camera.width_px} x {camera.height_px} pixels at '
           f'{camera.position_m[2]:g} m over the floor. Its URDF is '
           '[`config/robots/room.urdf`](../../config/robots/room.urdf).')
    yield table(('joint', 'unit', 'least', 'largest', 'at the start', 'largest speed [unit/s]'), [
        (code(j.name), j.unit, f'{j.low:g}', f'{j.high:g}', f'{j.home:g}', f'{j.max_speed:g}')
        for j in robot.joints])


def _world_files():
    rows = []
    for path in sorted(share_path('config', 'worlds').glob('*.yaml')):
        world = read_yaml(path.read_text(encoding='utf-8'))
        poses = ', '.join(code(pose['name']) for pose in world.get('named_poses', ()))
        rows.append((code(path.stem), code(world['scene']), str(world.get('seed', '')),
                     prose(world['description']), poses))
    return table(('`world`', 'scene', 'seed', 'what', 'named poses'), rows)


def _images():
    return table(('`scene`', 'prompt that goes with it'),
                 [(code(f'{name}{VIEW}'), prose(words))
                  for name, (_, words) in start_images().items()])
