# SPDX-License-Identifier: Apache-2.0
"""
Where worlds come from: names, package:// and file:// URIs, inline YAML.

Only files below folders that were allowed are read. No ROS; NumPy not needed.
"""
from dataclasses import replace
import os
from pathlib import Path
from typing import List, Optional, Tuple

from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.paths import (is_uri, PACKAGE, package_share, read_regular, resolved,
                                     share_path, split_uri, TooLarge, uri_path)
from lingbot_world_ros.worlds.definition import (EngineTraits, MISSING_ASSETS, NO_RESOURCE,
                                                 NOT_FOUND, RESOURCE_PARSE_ERROR,
                                                 UNSUPPORTED_ASSETS, UNSUPPORTED_FORMAT, VIEW,
                                                 WorldDefinition, WorldError)
from lingbot_world_ros.worlds.start_images import begins_as_image, IMAGE_STARTS, start_images
from lingbot_world_ros.worlds.world_file import MAX_BYTES, WorldFileReader

MAX_FILES = 1000  # looked at per folder
SUFFIXES = ('.yaml', '.yml')


class WorldLibrary:
    """
    Finds and reads worlds for one engine; safe from any thread.

    Names are the scenes of the engine and the files in ``config/worlds``, which may describe a
    scene of the same name further.
    """

    def __init__(self, spec: EngineTraits, world_path: str = '') -> None:
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
                folder = resolved(name)
                is_folder = folder.is_dir()
            except OSError:
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
        folder: Optional[Path] = None
        if is_uri(uri):
            path = self._allowed_path(uri, SUFFIXES, 'world')
            text, folder, name = _read_world(path, uri), path.parent, path.stem
        elif uri:
            shipped = self._named(uri)
            if shipped is None:
                return self._with_words(WorldDefinition(uri, uri, seed, uri=uri))
            text, folder, name = _read_world(shipped, uri), shipped.parent, shipped.stem
            uri = _shipped_uri(shipped)
        else:
            name = ''
        reader = WorldFileReader(self._spec, uri or 'resource_string',
                                 fail_on_unsupported=fail_on_unsupported,
                                 ignore_assets=ignore_assets,
                                 find_image=lambda image: self._image(image, folder))
        return self._with_words(reader.read(text, name=name, seed=seed, uri=uri))

    def _with_words(self, definition: WorldDefinition) -> WorldDefinition:
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
        if is_uri(source) and not source.endswith(SUFFIXES):
            folder = self._allowed_path(source, (), 'folder of worlds')
            try:
                return self._in_folder(folder, seed)
            except OSError as error:
                raise self._not_found(source, 'folder of worlds') from error
        return [self.load(source, seed=seed)]

    def _in_folder(self, folder: Path, seed: int) -> List[WorldDefinition]:
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

    def _named(self, name: str) -> Optional[Path]:
        """Return the shipped file of a name, None for a scene that has none."""
        known = {path.stem: path for path in self._shipped.glob('*.yaml')}
        if name in known:
            return known[name]
        if name in self._spec.scenes:
            return None
        names = {*known, *self._spec.scenes}
        if '/' in name or name.endswith(SUFFIXES):
            raise WorldError(UNSUPPORTED_FORMAT, f'World {quoted(name)} is neither a name nor a '
                             'URI, nor the folder of a learned world; write file:///<path> or '
                             'package://<package>/<path>.')
        raise WorldError(NOT_FOUND, str(unknown_name('world', name, names)))

    def _allowed_path(self, uri: str, suffixes: Tuple[str, ...], what: str) -> Path:
        """Resolve a URI, links included, and only then look whether it may be read."""
        parts = split_uri(uri)
        if parts is None:
            raise WorldError(UNSUPPORTED_FORMAT, f'{quoted(uri)} is neither file:///<path> nor '
                             'package://<package>/<path>.')
        scheme, package, _ = parts
        try:
            folders = [*self._added, package_share(package if scheme == 'package' else PACKAGE)]
            path = uri_path(uri)
            _check_suffix(path, suffixes, uri, what)
            path = resolved(path, strict=True)
        except (OSError, LookupError, ValueError) as error:
            if isinstance(error, WorldError):
                raise
            raise self._not_found(uri, what) from error
        if not any(path == folder or folder in path.parents for folder in folders):
            raise self._not_found(uri, what)
        _check_suffix(path, suffixes, uri, what)
        return path

    def _not_found(self, uri: str, what: str) -> WorldError:
        """One answer for what is missing and for what is none of the asker's business."""
        return WorldError(NOT_FOUND, f'There is no {what} {quoted(uri)} in the folders that may '
                          'be read: those of installed ROS packages for package://, of this '
                          'package and of the parameter world_path for file:// (for example '
                          'world_path:=$PWD).')

    def _image(self, entry: str, folder: Optional[Path]) -> str:
        """Find a start image; relative names are beside the world file."""
        try:
            if not is_uri(entry):
                if folder is None:
                    raise WorldError(NOT_FOUND, f'Image {quoted(entry)} is relative, but there is '
                                     'no world file; give a file:// or package:// URI.')
                entry = (folder / entry).as_uri()
            path = self._allowed_path(entry, tuple(IMAGE_STARTS), 'image')
            is_image = begins_as_image(path)
        except TooLarge as error:
            raise WorldError(UNSUPPORTED_ASSETS, f'{path.name} is {error.strerror}.') from error
        except (OSError, ValueError) as error:
            missing = getattr(error, 'code', NOT_FOUND) == NOT_FOUND
            raise WorldError(MISSING_ASSETS if missing else UNSUPPORTED_ASSETS,
                             str(error)) from error
        if not is_image:
            raise WorldError(UNSUPPORTED_ASSETS, f'Image {quoted(entry)} is not what its name '
                             'says; convert it to PNG or JPEG.')
        return str(path)


def _read_world(path: Path, uri: str) -> str:
    try:
        return read_regular(path, MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise WorldError(RESOURCE_PARSE_ERROR, f'{quoted(uri)} is not UTF-8 text.') from error
    except TooLarge as error:
        raise WorldError(RESOURCE_PARSE_ERROR, f'{path.name} is {error.strerror}.') from error
    except OSError as error:
        raise WorldError(NOT_FOUND, f'{quoted(uri)} cannot be read ({error.strerror}).') from error


def _check_suffix(path: Path, suffixes: Tuple[str, ...], uri: str, what: str) -> None:
    if suffixes and path.suffix not in suffixes:
        raise WorldError(UNSUPPORTED_FORMAT, f'{quoted(uri)} is no {what}: it does not end in '
                         f'{" or ".join(suffixes)}.')


def _shipped_uri(path: Path) -> str:
    return f'package://{PACKAGE}/config/worlds/{path.name}'
