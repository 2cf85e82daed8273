# SPDX-License-Identifier: Apache-2.0
"""
Page about the launch files: the arguments they declare.

The files are run with stand-ins for ``launch``, which note what is declared and start nothing, so
that the page is the same with and without a ROS distribution.
"""
import ast
from contextlib import contextmanager
import importlib.util
from pathlib import Path
import sys
from unittest.mock import MagicMock

from md import code, page, prose, table

FOLDER = Path(__file__).resolve().parent.parent.parent / 'launch'
STOOD_IN_FOR = ('launch', 'launch_ros', 'launch_xml', 'launch_yaml', 'ament_index_python')
INTRO = """
`ros2 launch lingbot_world_ros FILE NAME:=VALUE ...`; `--show-args` prints the same. An empty
argument takes the profile's value. [Parameters](parameters.md) with a dot in their
name, such as `lingbot.precision:=fp8`, are also arguments of `sim.launch.py` and
`lingbot_world.launch.py`. Launch ends with its worlds, with an error code if one of them
failed."""


class Argument:
    """Stands in for ``DeclareLaunchArgument``."""

    def __init__(self, name, *, default_value='', description='', choices=None, **_):
        """Note what is declared."""
        self.name, self.description = name, description
        self.default, self.choices = default_value, tuple(choices or ())


class Source:
    """Stands in for the source of an included launch file."""

    def __init__(self, path):
        """Note the path, as it was given."""
        self.path = path


class Include:
    """Stands in for ``IncludeLaunchDescription``."""

    def __init__(self, source, **_):
        """Note the source."""
        self.path = str(getattr(source, 'path', source))


class Description:
    """Stands in for ``LaunchDescription``."""

    def __init__(self, entities=()):
        """Note the entities."""
        self.entities = list(entities)

    def add_action(self, action):
        """Note one more."""
        self.entities.append(action)


@contextmanager
def stand_ins():
    """Put the stand-ins where ``import`` looks, and take them away again."""
    found = {name: module for name, module in sys.modules.items()
             if name.partition('.')[0] in STOOD_IN_FOR}
    for name in found:
        del sys.modules[name]
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition('.')[0] in STOOD_IN_FOR]:
            del sys.modules[name]
        sys.modules.update(found)


class _Finder:
    """Finds a module in which everything exists and does nothing."""

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in STOOD_IN_FOR:
            return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec):
        module = MagicMock(__path__=[], __spec__=spec)
        module.DeclareLaunchArgument, module.IncludeLaunchDescription = Argument, Include
        module.LaunchDescription, module.PythonLaunchDescriptionSource = Description, Source
        return module

    def exec_module(self, module):
        pass


def described(path: Path) -> list:
    """
    Run a launch file.

    :param path: of the file
    :return: the entities of its description, stand-ins and others
    """
    spec = importlib.util.spec_from_file_location('described', path)
    module = importlib.util.module_from_spec(spec)
    with stand_ins():
        spec.loader.exec_module(module)
        return module.generate_launch_description().entities


def included(path: Path) -> list:
    """
    Look which launch files of this package a launch file includes.

    :param path: of the file
    :return: their paths
    """
    names = [Path(entity.path).name for entity in described(path) if isinstance(entity, Include)]
    return [FOLDER / name for name in names if (FOLDER / name).is_file()]


def arguments(path: Path) -> dict:
    """
    Look what a launch file takes.

    :param path: of the file
    :return: name -> Argument, its own before those of the files it includes
    """
    own = {entity.name: entity for entity in described(path) if isinstance(entity, Argument)}
    for other in included(path):
        own = {**arguments(other), **own}
    return own


def pages() -> dict:
    """
    Make the page.

    :return: file name -> Markdown
    """
    blocks = [INTRO]
    for path in sorted(FOLDER.glob('*.launch.py')):
        summary = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
        rows = [(code(a.name), code(a.default), ', '.join(code(c) for c in a.choices if c),
                 prose(a.description)) for a in described(path) if isinstance(a, Argument)]
        others = ' and '.join(f'[`{o.name}`](#{o.name.replace(".", "")})' for o in included(path))
        blocks += [f'## {path.name}', prose(summary.split('\n\n')[0].replace('``', '`')),
                   f'Takes the arguments of {others}, and of its own:' if others else '',
                   table(('argument', 'default', 'choices', 'meaning'), rows)]
    return {'launch.md': page('Launch files', *blocks)}
