# SPDX-License-Identifier: Apache-2.0
"""
From the text of a world file to a world definition, checked against the engine.

What a file holds is data somebody sent: it is read with limits and never executed. Files are
found elsewhere.
"""
import math
from typing import Callable, Dict, List, Optional, Tuple, TypeVar

from lingbot_world_ros.errors import did_you_mean, quoted, SpecError, unknown_name
from lingbot_world_ros.geometry.camera import PinholeCamera, require_pixels
from lingbot_world_ros.plain_yaml import (read_number, read_string, read_whole, read_yaml, Tree,
                                          YamlError)
from lingbot_world_ros.robots.urdf import from_first_tag
from lingbot_world_ros.worlds.definition import (CAMERA, EngineTraits, expected_text, MAX_PROMPT,
                                                 MAX_SEED, MISSING_ASSETS, NamedPose, POSE_2D,
                                                 POSE_3D, RESOURCE_PARSE_ERROR, UNSUPPORTED_ASSETS,
                                                 UNSUPPORTED_ELEMENTS, UNSUPPORTED_FORMAT,
                                                 WorldDefinition, WorldError)
from lingbot_world_ros.worlds.placement import MAX_COORDINATE, misplaced

MAX_BYTES = 1 << 20  # of a world file
MAX_NODES = 10_000
MAX_DEPTH = 8
FOREIGN = ('<', '#usda', 'PXR-USDC')  # how SDF, URDF, MJCF and USD begin
Value = TypeVar('Value')


def _tree(text: str, source: str) -> Dict[str, Tree]:
    """Parse YAML into str, list and dict; what a scalar means is up to who reads it."""
    def refuse(problem: str) -> WorldError:
        return WorldError(RESOURCE_PARSE_ERROR, f'{quoted(source)}{problem}')

    if from_first_tag(text).startswith(FOREIGN):
        raise WorldError(UNSUPPORTED_FORMAT, f'{quoted(source)} is not YAML; worlds of other '
                         'simulators cannot be imagined.')
    if len(text.encode(errors='replace')) > MAX_BYTES:
        raise refuse(f': larger than {MAX_BYTES} bytes.')
    try:
        tree = read_yaml(text, MAX_DEPTH, MAX_NODES)
    except YamlError as error:
        where = '' if error.line is None else f', line {error.line}'
        raise refuse(f'{where}: {error.problem}.') from error
    if not isinstance(tree, dict):
        raise refuse(': a world is one mapping, for example "scene: office"; the name of a world '
                     'goes into uri.')
    return tree


class WorldFileReader:
    """Turns a world file into a definition, field by field, for one engine."""

    def __init__(self, traits: EngineTraits, source: str, *, fail_on_unsupported: bool,
                 ignore_assets: bool, find_image: Callable[[str], str]) -> None:
        """
        Note what is asked for.

        :param traits: of the engine
        :param source: what the text is called in errors
        :param fail_on_unsupported: refuse what the engine cannot use, rather than leave it out
        :param ignore_assets: leave out images that are missing or of no use to the engine
        :param find_image: absolute path of an image that the file names; raises WorldError
        """
        self._spec, self._source = traits, source
        self._fail_on_unsupported, self._ignore_assets = fail_on_unsupported, ignore_assets
        self._find_image = find_image

    def read(self, text: str, *, name: str, seed: int, uri: str) -> WorldDefinition:
        """
        Read the whole.

        :param text: YAML
        :param name: for a world that names none
        :param seed: for a world that names none
        :param uri: where it was found, '' if it came inline
        :return: the definition, checked against the engine
        :raises WorldError: it cannot be used; ``code`` says in which way
        """
        spec, tree = self._spec, _tree(text, self._source)
        self._known_keys('', tree, ('name', 'scene', 'seed', 'prompt', 'images', 'camera',
                                    'start_pose', 'joints', 'named_poses', 'description', 'tags'))
        scene = self._text('scene', tree.get('scene', ''), 100)
        if not scene:
            raise self._wrong('scene', '', 'the name of a scene: ' + ', '.join(spec.scenes))
        if scene not in spec.scenes:
            hint = did_you_mean(scene, spec.scenes)
            raise WorldError(MISSING_ASSETS, f'{quoted(self._source)}: engine {spec.engine!r} has '
                             f'no scene {quoted(scene)}.{hint} It has: {", ".join(spec.scenes)}.')
        camera = self._camera(tree.get('camera', {}))
        prompt = self._text('prompt', tree.get('prompt', ''), MAX_PROMPT)
        return WorldDefinition(
            name=self._text('name', tree.get('name', ''), 100) or name or scene,
            scene=scene,
            seed=self._integer('seed', tree.get('seed', str(seed)), 0, MAX_SEED),
            prompt=self._supported('prompt', prompt, spec.takes_text, ''),
            images=self._images(tree.get('images', [])),
            camera=self._supported('camera', camera, spec.takes_images, None),
            start_pose=self._supported('start_pose',
                                       self._start_pose(scene, tree.get('start_pose', {})),
                                       spec.takes_poses, None),
            joints=self._joints(tree.get('joints', {})),
            named_poses=self._named_poses(tree.get('named_poses', [])),
            description=self._text('description', tree.get('description', ''), 2000),
            tags=self._tags('tags', tree.get('tags', [])), uri=uri)

    def _images(self, entries: Tree) -> Tuple[str, ...]:
        found = []
        for entry in self._list('images', entries, 64):
            try:
                if not self._spec.takes_images:
                    raise WorldError(UNSUPPORTED_ASSETS, f'Engine {self._spec.engine!r} starts '
                                     'from its scenes, not from images; leave out "images".')
                found.append(self._find_image(self._text('images', entry, 4096)))
            except WorldError as error:
                if error.code == RESOURCE_PARSE_ERROR or not self._ignore_assets:
                    raise
        return tuple(found)

    def _camera(self, entry: Tree) -> Optional[PinholeCamera]:
        if not entry:
            return None
        values = self._exactly('camera', entry, CAMERA)
        width_px, height_px = (self._integer(f'camera.{n}', values[n], 1, 16384)
                               for n in CAMERA[:2])
        fx_px, fy_px, cx_px, cy_px = (self._number(f'camera.{n}', values[n], 0.0, 1e5)
                                      for n in CAMERA[2:])
        try:
            require_pixels(fx_px, fy_px, f'{quoted(self._source)}: camera')
        except SpecError as error:
            raise WorldError(RESOURCE_PARSE_ERROR, str(error)) from error
        return PinholeCamera(width_px, height_px, fx_px, fy_px, cx_px, cy_px)

    def _start_pose(self, scene: str, entry: Tree) -> Optional[Tuple[float, float, float]]:
        if not entry:
            return None
        x_m, y_m, yaw_rad = self._pose('start_pose', entry, POSE_2D)
        footprint = self._spec.robot.footprint
        problem = misplaced(scene, x_m, y_m, footprint.radius_m, footprint.height_m)
        if problem:
            why = problem.rstrip('.')
            raise self._wrong('start_pose', '', f'a free place on the floor: {why}')
        return x_m, y_m, yaw_rad

    def _joints(self, entry: Tree) -> Dict[str, float]:
        joints = {joint.name: joint for joint in self._spec.joints}
        values = self._known_keys('joints', entry, tuple(joints))
        return {name: self._number(f'joints.{name}', value, joints[name].low, joints[name].high)
                for name, value in values.items()}

    def _named_poses(self, entries: Tree) -> Tuple[NamedPose, ...]:
        poses: List[NamedPose] = []
        for entry in self._list('named_poses', entries, 1000):
            values = self._known_keys('named_poses', entry,
                                      ('name', 'description', 'tags', 'pose'))
            name = self._text('named_poses.name', values.get('name', ''), 100)
            if not name or name in {pose.name for pose in poses}:
                raise self._wrong('named_poses.name', name, 'a name that no other pose has')
            where = f'named_poses.{name}'
            description = self._text(f'{where}.description', values.get('description', ''), 2000)
            tags = self._tags(f'{where}.tags', values.get('tags', []))
            x_m, y_m, z_m, yaw_rad = self._pose(f'{where}.pose', values.get('pose', {}), POSE_3D)
            poses.append(NamedPose(name, description, tags, (x_m, y_m, z_m, yaw_rad)))
        return tuple(poses)

    def _pose(self, where: str, entry: Tree, names: Tuple[str, ...]) -> Tuple[float, ...]:
        entry = {'z_m': '0', **entry} if isinstance(entry, dict) and 'z_m' in names else entry
        values = self._exactly(where, entry, names)
        return tuple(self._number(f'{where}.{name}', values[name], -MAX_COORDINATE, MAX_COORDINATE)
                     for name in names)

    def _tags(self, where: str, entries: Tree) -> Tuple[str, ...]:
        return tuple(self._text(where, tag, 100) for tag in self._list(where, entries, 64))

    def _supported(self, where: str, value: Value, is_supported: bool, otherwise: Value) -> Value:
        """Leave out what the engine cannot use, or refuse it where that was asked for."""
        if not value or is_supported:
            return value
        if self._fail_on_unsupported:
            raise WorldError(UNSUPPORTED_ELEMENTS, f'{quoted(self._source)}: engine '
                             f'{self._spec.engine!r} has no use for {where!r}; leave it out.')
        return otherwise

    def _known_keys(self, where: str, entry: Tree, known: Tuple[str, ...]) -> Dict[str, Tree]:
        if not isinstance(entry, dict):
            raise self._wrong(where, entry, f'a mapping with {", ".join(known)}')
        for key in entry:
            if key not in known:
                problem = unknown_name(f'key of {where}' if where else 'key', key, known)
                raise WorldError(RESOURCE_PARSE_ERROR, f'{quoted(self._source)}: {problem}')
        return entry

    def _exactly(self, where: str, entry: Tree, names: Tuple[str, ...]) -> Dict[str, Tree]:
        values = self._known_keys(where, entry, names)
        missing = [name for name in names if name not in values]
        if missing:
            raise self._wrong(where, '', f'also {", ".join(missing)}')
        return values

    def _list(self, where: str, entries: Tree, limit: int) -> List[Tree]:
        if not isinstance(entries, list) or len(entries) > limit:
            raise self._wrong(where, entries, f'a list of at most {limit} entries')
        return entries

    def _text(self, where: str, given: Tree, limit: int) -> str:
        value, expected = read_string(given), expected_text(given, limit)
        if expected or value is None:
            raise self._wrong(where, given, expected)
        return value

    def _integer(self, where: str, given: Tree, low: int, high: int) -> int:
        value = read_whole(given)
        if value is None or not low <= value <= high:
            raise self._wrong(where, given, f'a whole number from {low} to {high}')
        return value

    def _number(self, where: str, given: Tree, low: float, high: float) -> float:
        value = read_number(given)
        if value is None or not low <= value <= high or not math.isfinite(value):
            raise self._wrong(where, given, f'a number from {low:g} to {high:g}')
        return value

    def _wrong(self, where: str, value: Tree, expected: str) -> WorldError:
        got = f'={quoted(value)} is not' if isinstance(value, str) and value else ' needs'
        return WorldError(RESOURCE_PARSE_ERROR,
                          f'{quoted(self._source)}: {where or "the world"}{got} {expected}.')
