# SPDX-License-Identifier: Apache-2.0
"""
World definitions and where they come from: names, package:// and file:// URIs, inline YAML.

A world is a scene plus what makes a start of it: seed, prompt, start images and their camera,
start pose, joints, named poses. What a file holds is data somebody sent: it is read with limits,
never executed, and only below folders that were allowed. No ROS; NumPy not needed.
"""
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
import math
import os
from pathlib import Path
import re
import stat
from typing import Dict, List, Optional, Tuple
import unicodedata
from urllib.parse import unquote

from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.paths import find_file, MAX_PATH, PACKAGE, share_path
from lingbot_world_ros.worlds.scenes import get_scene, SCENES
from lingbot_world_ros.worlds.start_images import start_images
import yaml

MAX_BYTES = 1 << 20  # of a world file
MAX_IMAGE_BYTES = 64 << 20
MAX_NODES = 10_000
MAX_DEPTH = 8
MAX_FILES = 1000  # looked at per folder
MAX_SEED = 2 ** 31 - 1
MAX_PROMPT = 10_000  # characters
IMAGE_SCENE = 'image'  # of engines that can start from any image
VIEW = '_view'  # ends the names of scenes that are pictures of one of ours
MAX_COORDINATE = 1e4  # metres or radians
CONTACT_TOLERANCE_M = 0.05  # a predicted contact may overlap by this much
SUFFIXES = ('.yaml', '.yml')
IMAGE_STARTS = {'.png': b'\x89PNG\r\n\x1a\n', '.jpg': b'\xff\xd8\xff', '.jpeg': b'\xff\xd8\xff'}
FOREIGN = ('<', '#usda', 'PXR-USDC')  # how SDF, URDF, MJCF and USD begin

# What can be wrong with a world; the first is for a name or file that is not there, the others
# are those of simulation_interfaces/LoadWorld.
NOT_FOUND, UNSUPPORTED_FORMAT, NO_RESOURCE, RESOURCE_PARSE_ERROR = (
    'NOT_FOUND', 'UNSUPPORTED_FORMAT', 'NO_RESOURCE', 'RESOURCE_PARSE_ERROR')
MISSING_ASSETS, UNSUPPORTED_ASSETS, UNSUPPORTED_ELEMENTS = (
    'MISSING_ASSETS', 'UNSUPPORTED_ASSETS', 'UNSUPPORTED_ELEMENTS')


class WorldError(SpecError):
    """A world that cannot be loaded; ``code`` is one of the names above."""

    def __init__(self, code: str, text: str):
        """Keep the code for those who answer with a number."""
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class NamedPose:
    """A place worth a name: ``pose`` is x, y, z [m], yaw [rad] in the scene frame."""

    name: str
    description: str
    tags: Tuple[str, ...]
    pose: Tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageCamera:
    """Pinhole camera that took the start images: size and intrinsics in pixels."""

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float


@dataclass(frozen=True)
class WorldDefinition:
    """
    A scene and how it starts.

    ``start_pose`` x, y [m], yaw [rad] in the scene frame, None for where the seed puts the robot;
    ``joints`` name -> rad or m, the others as the seed has them; ``images`` are absolute paths;
    ``uri`` finds it again, empty if it came inline.
    """

    name: str
    scene: str
    seed: int = 0
    prompt: str = ''
    images: Tuple[str, ...] = ()
    camera: Optional[ImageCamera] = None
    start_pose: Optional[Tuple[float, float, float]] = None
    joints: Dict[str, float] = field(default_factory=dict)
    named_poses: Tuple[NamedPose, ...] = ()
    description: str = ''
    tags: Tuple[str, ...] = ()
    uri: str = field(default='', compare=False)

    @property
    def text(self) -> str:
        """YAML that gives this definition again, the shortest there is."""
        entries = {'name': self.name, 'scene': self.scene, 'seed': self.seed,
                   'prompt': self.prompt, 'images': [Path(i).as_uri() for i in self.images],
                   'camera': vars(self.camera) if self.camera else None,
                   'start_pose': dict(zip(POSE_2D, self.start_pose or ())),
                   'joints': dict(self.joints),
                   'named_poses': [_sparse({'name': p.name, 'description': p.description,
                                            'tags': list(p.tags),
                                            'pose': dict(zip(POSE_3D, p.pose))})
                                   for p in self.named_poses],
                   'description': self.description, 'tags': list(self.tags)}
        return yaml.safe_dump(_sparse(entries), sort_keys=False, allow_unicode=True)


POSE_2D = ('x_m', 'y_m', 'yaw_rad')
POSE_3D = ('x_m', 'y_m', 'z_m', 'yaw_rad')


def _sparse(entries):
    """Leave out what says nothing; numbers always say something."""
    return {key: value for key, value in entries.items()
            if type(value) in (int, float) or value}


class WorldLibrary:
    """
    Finds and reads worlds for one engine; safe from any thread.

    Names are the scenes of the engine and the files in ``config/worlds``, which may describe a
    scene of the same name further.
    """

    def __init__(self, spec: WorldSpec, world_path: str = ''):
        """
        Note which folders may be read.

        :param spec: of the engine, says what a world may ask for
        :param world_path: further folders of world files, separated by colons
        :raises SpecError: one of them is not a folder
        """
        self._spec = spec
        self._shipped = share_path('config', 'worlds').resolve()
        self._added = []
        for name in filter(None, world_path.split(':')):
            try:
                folder = Path(name).expanduser().resolve()
                is_folder = folder.is_dir()
            except (OSError, RuntimeError, ValueError):
                is_folder = False
            if not is_folder:
                raise SpecError(f'world_path: {name!r} is not a folder; give folders of world '
                                'files, separated by colons.')
            self._added.append(folder)

    def load(self, uri: str = '', text: str = '', *, seed: int = 0,
             fail_on_unsupported: bool = False, ignore_assets: bool = False) -> WorldDefinition:
        """
        Read a world.

        :param uri: name, ``package://<package>/<path>.yaml`` or ``file:///<path>.yaml``
        :param text: YAML, only looked at without a uri
        :param seed: for a world that does not name one
        :param fail_on_unsupported: refuse a prompt or a camera that the engine cannot use, rather
            than leave it out
        :param ignore_assets: leave out images that are missing or of no use to the engine
        :return: the definition, checked against the engine
        :raises WorldError: it cannot be loaded; ``code`` says in which way
        """
        if not uri and not text:
            raise WorldError(NO_RESOURCE, 'Both uri and resource_string are empty; give the name '
                             'of a world, a package:// or file:// URI, or YAML.')
        folder = None
        if '://' in uri:
            path = self._allowed_path(uri, SUFFIXES, 'world')
            text, folder, name = _read_world(path, uri), path.parent, path.stem
        elif uri:
            path = self._named(uri)
            if path is None:
                return self._with_words(WorldDefinition(uri, uri, seed, uri=uri))
            text, folder, name = _read_world(path, uri), path.parent, path.stem
            uri = _shipped_uri(path)
        else:
            name = ''
        reader = _Reader(self._spec, uri or 'resource_string', fail_on_unsupported, ignore_assets,
                         lambda image: self._image(image, folder))
        tree = _tree(text, uri or 'resource_string')
        return self._with_words(reader.definition(tree, name, seed, uri))

    def _with_words(self, definition):
        """Let a world that starts from the picture of its scene say the words that go with it."""
        if definition.prompt or definition.images or not self._spec.takes_text:
            return definition
        name = definition.scene.removesuffix(VIEW)
        _, words = start_images().get(name, ('', '')) if name != definition.scene else ('', '')
        return replace(definition, prompt=words)

    def available(self, seed: int = 0) -> Tuple[List[WorldDefinition], List[str]]:
        """
        List what can be loaded.

        :param seed: for worlds that do not name one
        :return: the worlds of scenes, shipped files and ``world_path``; and which of these
            folders could not be read
        """
        worlds, failed = [self.load(scene, seed=seed) for scene in self._spec.scenes], []
        for folder in (self._shipped, *self._added):
            try:
                worlds += [world for world in self._in_folder(folder, seed)
                           if world.uri not in {w.uri for w in worlds}]
            except OSError as error:
                failed.append(f'{folder} ({error.strerror})')
        return worlds, failed

    def find(self, source: str, seed: int = 0) -> List[WorldDefinition]:
        """
        List the worlds of one more source.

        :param source: URI of a world file, or of a folder of them
        :param seed: for worlds that do not name one
        :return: what can be loaded of it
        :raises WorldError: not there, not allowed, or the file is no world
        """
        if '://' in source and not source.endswith(SUFFIXES):
            folder = self._allowed_path(source, (), 'folder of worlds')
            try:
                return self._in_folder(folder, seed)
            except OSError as error:
                raise self._not_found(source, 'folder of worlds') from error
        return [self.load(source, seed=seed)]

    def _in_folder(self, folder, seed):
        """Load what is a world; a folder may hold other files too."""
        names = sorted(os.listdir(folder))[:MAX_FILES]
        worlds = []
        for path in (folder / name for name in names if name.endswith(SUFFIXES)):
            try:
                shipped = folder == self._shipped
                worlds.append(self.load(_shipped_uri(path) if shipped else path.as_uri(),
                                        seed=seed))
            except WorldError:
                continue
        return worlds

    def _named(self, name) -> Optional[Path]:
        """Return the shipped file of a name, None for a scene that has none."""
        known = {path.stem: path for path in self._shipped.glob('*.yaml')}
        if name in known:
            return known[name]
        if name in self._spec.scenes:
            return None
        names = sorted({*known, *self._spec.scenes})
        if '/' in name or name.endswith(SUFFIXES):
            raise WorldError(UNSUPPORTED_FORMAT, f'World {quoted(name)} is neither a name nor a '
                             'URI; write file:///<path> or package://<package>/<path>.')
        raise WorldError(NOT_FOUND, f'Unknown world {quoted(name)}.{_hint(name, names)} Known: '
                         f'{", ".join(names)}.')

    def _allowed_path(self, uri, suffixes, what) -> Path:
        """Resolve a URI, links included, and only then look whether it may be read."""
        match = re.fullmatch(r'(\w+)://([^/?#]*)((?:/[^?#]*)?)', uri)
        if match is None or match[1] not in ('file', 'package'):
            raise WorldError(UNSUPPORTED_FORMAT, f'{quoted(uri)} is neither file:///<path> nor '
                             'package://<package>/<path>.')
        folders = list(self._added)
        try:
            below = unquote(match[3], errors='strict')
            if match[1] == 'package':
                folders.append(_package_share(match[2]))
                path = folders[-1] / below.lstrip('/')
            elif match[2] in ('', 'localhost'):
                folders.append(_package_share(PACKAGE))
                path = Path(below)
            else:
                raise LookupError(match[2])
            _check_suffix(path, suffixes, uri, what)
            if len(uri) > MAX_PATH:
                raise LookupError(uri)
            path = path.resolve(strict=True)
        except (OSError, LookupError, RuntimeError, ValueError) as error:
            if isinstance(error, WorldError):
                raise
            raise self._not_found(uri, what) from error
        if not any(path == folder or folder in path.parents for folder in folders):
            raise self._not_found(uri, what)
        _check_suffix(path, suffixes, uri, what)
        return path

    def _not_found(self, uri, what) -> WorldError:
        """One answer for what is missing and for what is none of the asker's business."""
        return WorldError(NOT_FOUND, f'There is no {what} {quoted(uri)} in the folders that may '
                          'be read: those of installed ROS packages for package://, of this '
                          'package and of the parameter world_path for file:// (for example '
                          'world_path:=$PWD).')

    def _image(self, entry, folder) -> str:
        """Find a start image; relative names are beside the world file."""
        try:
            if '://' not in entry:
                if folder is None:
                    raise WorldError(NOT_FOUND, f'Image {quoted(entry)} is beside no file; give '
                                     'a file:// or package:// URI.')
                entry = (folder / entry).as_uri()
            path = self._allowed_path(entry, tuple(IMAGE_STARTS), 'image')
            start = _read(path, MAX_IMAGE_BYTES, len(IMAGE_STARTS['.png']))
        except (OSError, ValueError) as error:
            missing = getattr(error, 'code', NOT_FOUND) == NOT_FOUND
            raise WorldError(MISSING_ASSETS if missing else UNSUPPORTED_ASSETS,
                             str(error)) from error
        if not start.startswith(IMAGE_STARTS[path.suffix]):
            raise WorldError(UNSUPPORTED_ASSETS, f'Image {quoted(entry)} is not what its name '
                             'says; convert it to PNG or JPEG.')
        return str(path)


def check_prompt(spec: WorldSpec, text: str, source: str = 'prompt') -> None:
    """
    Look whether a text can be the prompt of a world.

    :param spec: of the engine
    :param text: the prompt; '' is none
    :param source: where it came from, for the message
    :raises SpecError: the engine takes none, it is too long or holds control characters
    """
    if not spec.takes_text:
        raise SpecError(f'{source}: refused, engine {spec.engine!r} takes no text; choose one of '
                        f'its scenes ({", ".join(spec.scenes)}) by parameter.')
    expected = _expected_text(text, MAX_PROMPT)
    if expected:
        raise SpecError(f'{source}: refused, {quoted(text)} is not {expected}.')


def started_from(definition: WorldDefinition, spec: WorldSpec, *, start_image: str = '',
                 prompt: str = '') -> WorldDefinition:
    """
    Let a world start from something else than it says itself.

    :param definition: the world
    :param spec: of the engine
    :param start_image: path or URL of a PNG or JPEG, from whoever starts the engine and may read
        any file; '' leaves the images of the world
    :param prompt: '' leaves that of the world
    :return: the world
    :raises SpecError: the engine has no use for it, or it cannot be used
    """
    if prompt:
        check_prompt(spec, prompt)
        definition = replace(definition, prompt=prompt)
    if start_image:
        if not spec.takes_images:
            raise SpecError(f'start_image: engine {spec.engine!r} starts from its scenes '
                            f'({", ".join(spec.scenes)}), not from images; leave it empty.')
        definition = replace(definition, images=(find_start_image(start_image),), camera=None)
    return definition


def find_start_image(url: str) -> str:
    """
    Find the image to start from.

    :param url: path or URL of a PNG or JPEG
    :return: absolute path
    :raises SpecError: there is none
    """
    path = find_file(url, 'start_image')
    _check_image(path, url, 'start_image')
    return str(path)


def _check_image(path, given, what):
    """Look at how a file begins; what else is in it the engine will see."""
    wanted = IMAGE_STARTS.get(path.suffix.lower())
    try:
        is_image = wanted and _read(path, MAX_IMAGE_BYTES, len(wanted)) == wanted
    except OSError as error:
        raise SpecError(f'{what}: {quoted(given)} cannot be read ({error.strerror}).') from error
    if not is_image:
        raise SpecError(f'{what}: {quoted(given)} is no PNG or JPEG by name and content; convert '
                        'it.')


def _expected_text(value, limit) -> str:
    """Return what a text should be and is not, '' if all is well."""
    if not isinstance(value, str) or len(value) > limit:
        return f'text of at most {limit} characters'
    if any(unicodedata.category(c) in ('Cc', 'Cs') and c not in '\n\t' for c in value):
        return 'text without control characters'
    return ''


def misplaced(scene: str, x_m: float, y_m: float, radius_m: float) -> str:
    """
    Say why something cannot stand somewhere.

    :param scene: name; of an unknown one only the numbers are checked
    :param x_m: centre, scene frame
    :param y_m: centre, scene frame
    :param radius_m: of its vertical cylinder
    :return: the reason in words, '' if it can
    """
    if not (abs(x_m) <= MAX_COORDINATE and abs(y_m) <= MAX_COORDINATE):
        return f'({x_m:g}, {y_m:g}) m is beyond every room.'
    if scene not in SCENES:
        return ''
    room = get_scene(scene)
    if float(room.clearance_m((x_m, y_m))) >= radius_m - CONTACT_TOLERANCE_M:
        return ''
    return (f'({x_m:g}, {y_m:g}) m is closer than {radius_m:g} m to a wall or to furniture of '
            f'{scene}, whose floor is {room.size_m[0]:g} x {room.size_m[1]:g} m.')


def _read_world(path, uri) -> str:
    try:
        return _read(path, MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise WorldError(RESOURCE_PARSE_ERROR, f'{quoted(uri)} is not UTF-8 text.') from error
    except OSError as error:
        raise WorldError(NOT_FOUND, f'{quoted(uri)} cannot be read ({error.strerror}).') from error


def _read(path, limit, num_bytes=None) -> bytes:
    """Read a regular file of limited size; never wait for a pipe, never follow a new link."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(0, 'not a regular file')
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, 'rb') as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, 'not a regular file')
        if about.st_size > limit:
            raise WorldError(RESOURCE_PARSE_ERROR, f'{path.name} is larger than {limit} bytes.')
        return file.read(num_bytes or limit)


def _check_suffix(path, suffixes, uri, what):
    if suffixes and path.suffix not in suffixes:
        raise WorldError(UNSUPPORTED_FORMAT, f'{quoted(uri)} is no {what}: it does not end in '
                         f'{" or ".join(suffixes)}.')


def _package_share(package) -> Path:
    if package == PACKAGE:
        return share_path('config').parent.resolve()
    if not re.fullmatch(r'[A-Za-z]\w*', package):
        raise LookupError(package)
    try:
        from ament_index_python.packages import get_package_share_directory
    except ImportError as error:
        raise LookupError(package) from error
    return Path(get_package_share_directory(package)).resolve()


def _shipped_uri(path) -> str:
    return f'package://{PACKAGE}/config/worlds/{path.name}'


def _tree(text, source):
    """
    Parse YAML into str, list and dict; what a scalar means is up to who reads it.

    Anchors, tags, repeated keys and endless nesting are refused while parsing.
    """
    def refuse(problem, mark=None):
        where = '' if mark is None else f', line {mark.line + 1}'
        return WorldError(RESOURCE_PARSE_ERROR, f'{quoted(source)}{where}: {problem}')

    if text.lstrip().startswith(FOREIGN):
        raise WorldError(UNSUPPORTED_FORMAT, f'{quoted(source)} is not YAML; worlds of other '
                         'simulators cannot be imagined.')
    if len(text.encode(errors='replace')) > MAX_BYTES:
        raise refuse(f'larger than {MAX_BYTES} bytes.')
    roots, stack, num_nodes = [], [], 0  # stack: [container, key that waits for its value]
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                stack.pop()
                continue
            if not isinstance(event, yaml.NodeEvent):
                continue
            num_nodes += 1
            if event.anchor is not None or getattr(event, 'tag', None) is not None:
                raise refuse('anchors, aliases and tags are not allowed in a world.',
                             event.start_mark)
            if len(stack) > MAX_DEPTH or num_nodes > MAX_NODES:
                raise refuse('too much of it, or too deeply nested, for a world.',
                             event.start_mark)
            scalar = isinstance(event, yaml.ScalarEvent)
            value = (event.value if scalar else
                     {} if isinstance(event, yaml.MappingStartEvent) else [])
            problem = _attach(value, stack[-1] if stack else [roots, None])
            if problem:
                raise refuse(problem, event.start_mark)
            if not scalar:
                stack.append([value, None])
    except (yaml.YAMLError, UnicodeError) as error:
        problem = getattr(error, 'problem', None) or 'it holds characters YAML has not'
        raise refuse(f'not valid YAML ({problem}).',
                     getattr(error, 'problem_mark', None)) from error
    if len(roots) != 1 or not isinstance(roots[0], dict):
        raise refuse('a world is one mapping, for example "scene: office"; the name of a world '
                     'goes into uri.')
    return roots[0]


def _attach(value, frame) -> str:
    """Put a node into its container; return what is wrong with that."""
    container, key = frame
    if isinstance(container, list):
        container.append(value)
    elif key is not None:
        container[key], frame[1] = value, None
    elif not isinstance(value, str):
        return 'a key must be text.'
    elif value in container:
        return f'{quoted(value)} is given twice.'
    else:
        frame[1] = value
    return ''


class _Reader:
    """Turns the tree of a world file into a definition, field by field."""

    def __init__(self, spec, source, fail_on_unsupported, ignore_assets, find_image):
        self._spec, self._source = spec, source
        self._fail_on_unsupported, self._ignore_assets = fail_on_unsupported, ignore_assets
        self._find_image = find_image

    def definition(self, tree, name, seed, uri) -> WorldDefinition:
        """Read the whole; defaults for what a file may leave out are name and seed."""
        spec = self._spec
        self._known_keys('', tree, ('name', 'scene', 'seed', 'prompt', 'images', 'camera',
                                    'start_pose', 'joints', 'named_poses', 'description', 'tags'))
        scene = self._text('scene', tree.get('scene', ''), 100)
        if not scene:
            raise self._wrong('scene', '', 'the name of a scene: ' + ', '.join(spec.scenes))
        if scene not in spec.scenes:
            raise WorldError(MISSING_ASSETS, f'{quoted(self._source)}: engine {spec.engine!r} has '
                             f'no scene {quoted(scene)}.{_hint(scene, spec.scenes)} It has: '
                             f'{", ".join(spec.scenes)}.')
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

    def _images(self, entries):
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

    def _camera(self, entry):
        if not entry:
            return None
        names = tuple(ImageCamera.__dataclass_fields__)
        self._exactly('camera', entry, names)
        sizes = [self._integer(f'camera.{n}', entry[n], 1, 16384) for n in names[:2]]
        return ImageCamera(*sizes, *(self._number(f'camera.{n}', entry[n], 0.0, 1e5)
                                     for n in names[2:]))

    def _start_pose(self, scene, entry):
        if not entry:
            return None
        pose = self._pose('start_pose', entry, POSE_2D)
        problem = misplaced(scene, *pose[:2], self._spec.robot.base_radius_m)
        if problem:
            why = problem.rstrip('.')
            raise self._wrong('start_pose', '', f'a free place on the floor: {why}')
        return pose

    def _joints(self, entry):
        joints = {joint.name: joint for joint in self._spec.joints}
        self._known_keys('joints', entry, tuple(joints))
        return {name: self._number(f'joints.{name}', value, joints[name].low, joints[name].high)
                for name, value in entry.items()}

    def _named_poses(self, entries):
        poses = []
        for entry in self._list('named_poses', entries, 1000):
            self._known_keys('named_poses', entry, ('name', 'description', 'tags', 'pose'))
            name = self._text('named_poses.name', entry.get('name', ''), 100)
            if not name or name in {pose.name for pose in poses}:
                raise self._wrong('named_poses.name', name, 'a name that no other pose has')
            where = f'named_poses.{name}'
            poses.append(NamedPose(
                name, self._text(f'{where}.description', entry.get('description', ''), 2000),
                self._tags(f'{where}.tags', entry.get('tags', [])),
                self._pose(f'{where}.pose', entry.get('pose', {}), POSE_3D)))
        return tuple(poses)

    def _pose(self, where, entry, names):
        entry = {'z_m': '0', **entry} if isinstance(entry, dict) and 'z_m' in names else entry
        self._exactly(where, entry, names)
        return tuple(self._number(f'{where}.{name}', entry[name], -MAX_COORDINATE, MAX_COORDINATE)
                     for name in names)

    def _tags(self, where, entries):
        return tuple(self._text(where, tag, 100) for tag in self._list(where, entries, 64))

    def _supported(self, where, value, is_supported, otherwise):
        """Leave out what the engine cannot use, or refuse it where that was asked for."""
        if not value or is_supported:
            return value
        if self._fail_on_unsupported:
            raise WorldError(UNSUPPORTED_ELEMENTS, f'{quoted(self._source)}: engine '
                             f'{self._spec.engine!r} has no use for {where!r}; leave it out.')
        return otherwise

    def _known_keys(self, where, entry, known):
        if not isinstance(entry, dict):
            raise self._wrong(where, entry, f'a mapping with {", ".join(known)}')
        for key in entry:
            if key not in known:
                dotted = f'{where}.{key}' if where else key
                raise WorldError(RESOURCE_PARSE_ERROR, f'{quoted(self._source)}: unknown key '
                                 f'{quoted(dotted)}.{_hint(key, known)} Known: '
                                 f'{", ".join(known)}.')

    def _exactly(self, where, entry, names):
        self._known_keys(where, entry, names)
        missing = [name for name in names if name not in entry]
        if missing:
            raise self._wrong(where, '', f'also {", ".join(missing)}')

    def _list(self, where, entries, limit):
        if not isinstance(entries, list) or len(entries) > limit:
            raise self._wrong(where, entries, f'a list of at most {limit} entries')
        return entries

    def _text(self, where, value, limit):
        expected = _expected_text(value, limit)
        if expected:
            raise self._wrong(where, value, expected)
        return value

    def _integer(self, where, value, low, high):
        if not isinstance(value, str) or not re.fullmatch('[0-9]{1,10}', value) \
                or not low <= int(value) <= high:
            raise self._wrong(where, value, f'a whole number from {low} to {high}')
        return int(value)

    def _number(self, where, value, low, high):
        pattern = r'[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?'
        is_number = isinstance(value, str) and len(value) < 40 and re.fullmatch(pattern, value)
        if not is_number or not low <= float(value) <= high or not math.isfinite(float(value)):
            raise self._wrong(where, value, f'a number from {low:g} to {high:g}')
        return float(value)

    def _wrong(self, where, value, expected) -> WorldError:
        got = f'={quoted(value)} is not' if isinstance(value, str) and value else ' needs'
        return WorldError(RESOURCE_PARSE_ERROR,
                          f'{quoted(self._source)}: {where or "the world"}{got} {expected}.')


def _hint(name, known) -> str:
    near = get_close_matches(name[:100], list(known), n=1, cutoff=0.5)
    return f' Did you mean {near[0]!r}?' if near else ''
