# SPDX-License-Identifier: Apache-2.0
"""
Which engines there are, what each needs and takes, and how one is made by name.

Four ship. Another package adds one by an entry point of the group ``lingbot_world_ros.engines``
that names its ``EngineEntry``: docs/your_own_engine.md. Nothing here loads an engine before it is
made, and an engine of others that is broken stands in nobody's way.
"""
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
import logging
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Tuple, TYPE_CHECKING

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.parameter import KINDS, Param
from lingbot_world_ros.paths import pip_install

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    # it imports NumPy, and command lines read this file
    from lingbot_world_ros.engines.interface import WorldModel
    from lingbot_world_ros.robots.robot import Robot

LOG = logging.getLogger(__name__)
GROUP = 'lingbot_world_ros.engines'  # of entry points
NAME = re.compile(r'[a-z][a-z0-9_]*')
WHERE = re.compile(r'\w+(\.\w+)*:\w+')
TAKES = ('robot', 'robot_description', 'on_progress', 'world')
# First parts of names that all worlds have.
RESERVED = ('constraints', 'frames', 'limits', 'topics', 'view')


@dataclass(frozen=True)
class EngineEntry:
    """
    One engine, as it is known before it is loaded.

    Texts like ``'package.module:NAME'`` are imported when they are needed. ``engine`` is the
    class, a ``WorldModel``, or a function that makes one; it takes ``batch_size``, each parameter
    of the table without its prefix, and what ``takes`` names: ``robot`` (a ``Robot``) and
    ``robot_description``
    (URDF as XML), if the user gave one, ``on_progress`` (called with what is done and the total
    while it loads), and ``world`` (the folder of a learned world, without which it is not made).
    """

    name: str  # value of the parameter ``engine``
    engine: str
    summary: str  # what it is, part of a sentence
    packages: Tuple[str, ...] = ()  # that have to be importable
    install: str = ''  # command that installs them; '': pip, by the same names
    parameters: str = ''  # its table: a tuple of ``Param``; the module may import nothing slow
    prefix: str = ''  # of their names, before the dot; '': the name of the engine
    key: str = ''  # the parameter without which it cannot be made; no other engine may be given it
    takes: Tuple[str, ...] = ()
    robot: str = ''  # that it shows, of config/robots; '': told by no file
    has_depth: bool = False
    draws: str = ''  # says why not in this size: function of a camera, width, height; '': one size
    docs: str = ''  # page about it
    checkup: str = ''  # function that returns, as text, what it would run with here
    # Arguments that make it faster where nobody needs the same bytes in any batch.
    quick: Tuple[Tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be registered."""
        if not NAME.fullmatch(self.name):
            raise SpecError(f'its name {self.name!r} is not made of a-z, 0-9 and _.')
        for where in (self.engine, *filter(None, (self.parameters, self.checkup, self.draws))):
            if not WHERE.fullmatch(where):
                raise SpecError(f"{where!r} is no text like 'package.module:NAME'.")
        for name in self.takes:
            if name not in TAKES:
                raise unknown_name('argument in takes', name, TAKES)

    def table(self) -> Tuple[Param, ...]:
        """Return its own parameters."""
        return _table(self)

    def options(self, values: Mapping[str, Any]) -> Dict[str, Any]:
        """
        Return what its constructor is to take of the values of parameters.

        :param values: by name; a parameter that is not there has its default
        :return: by name without prefix
        """
        return {row.name.partition('.')[2]: values.get(row.name, row.default)
                for row in self.table()}

    def robot_in_size(self, robot: 'Robot', width_px: int, height_px: int) -> 'Robot':
        """
        Let an engine draw pictures of another size.

        :param robot: whose camera it is
        :param width_px: of the pictures
        :param height_px: of the pictures
        :return: the same robot with the same camera in that size, for its constructor
        :raises SpecError: the engine cannot draw in this size; says why
        """
        problem = (_loaded(self.draws)(robot.camera, width_px, height_px) if self.draws else
                   f'pictures of {width_px}x{height_px}: the engine {self.name!r} has those of '
                   'one size.')
        if problem:
            raise SpecError(problem)
        return robot.with_camera(robot.camera.resized(width_px, height_px))

    def told(self) -> str:
        """Return what it would run with here; '' where it does not say."""
        return _loaded(self.checkup)() if self.checkup else ''

    def missing(self) -> List[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


ROOM = EngineEntry(
    'room', 'lingbot_world_ros.engines.room.engine:RoomWorld',
    'the embedded world: learned, on one CPU core', ('openvino', 'safetensors'), takes=('robot',),
    robot='room', has_depth=True, draws='lingbot_world_ros.models.room.lens:why_not_drawn',
    docs='docs/training.md', quick=(('exact', False),))
REFERENCE = EngineEntry(
    'reference', 'lingbot_world_ros.engines.reference.engine:ReferenceWorld',
    'the MuJoCo reference world of the same rooms and robot', ('mujoco',), takes=('robot',),
    robot='room', has_depth=True, draws='lingbot_world_ros.geometry.camera:why_not_square',
    docs='docs/evaluation.md')
LINGBOT_WORLD = EngineEntry(
    'lingbot_world', 'lingbot_world_ros.engines.lingbot_world.engine:LingBotWorld',
    'LingBot-World from a checkpoint of yours, on a GPU',
    ('torch', 'transformers', 'tokenizers', 'sentencepiece', 'ftfy'),
    parameters='lingbot_world_ros.engines.lingbot_world.parameters:TABLE', prefix='lingbot',
    key='lingbot.checkpoint', takes=('robot', 'robot_description', 'on_progress'),
    docs='docs/lingbot_world.md',
    checkup='lingbot_world_ros.engines.lingbot_world.checkup:checkup')
LEARNED = EngineEntry(
    'learned', 'lingbot_world_ros.engines.learned.load:learned_world',
    'a world of your own, from recordings', ('openvino', 'safetensors'), takes=('world',),
    has_depth=True, docs='docs/learn.md')

SHIPPED = {entry.name: entry for entry in (ROOM, REFERENCE, LINGBOT_WORLD, LEARNED)}
DEFAULT_ENGINE = ROOM.name  # needs no GPU and no download
TRUTH_ENGINE = REFERENCE.name  # that others are compared with; its topics go by its name
KEYS = tuple(entry.key for entry in SHIPPED.values() if entry.key)
CAMERA_SCALE = 'lingbot.metres_per_world_unit'  # by which camera paths without a scale go, too


def make_world(engine: str, batch_size: int = 1, **options: Any) -> 'WorldModel':
    """
    Build an engine by name.

    :param engine: name of a registered engine: ``'room'`` (the embedded world), ``'reference'``
        (MuJoCo), ``'lingbot_world'``, or one of another package
    :param batch_size: worlds side by side
    :param options: what the engine's constructor takes beyond that
    :return: the engine, not yet reset
    :raises SpecError: unknown engine, or its Python packages are not installed
    """
    entry = engine_entry(engine)
    try:
        return _loaded(entry.engine)(batch_size=batch_size, **options)
    except ImportError as error:
        package = error.name or next(iter(entry.packages), engine)
        raise SpecError(f'Engine {engine!r} needs the Python package {package!r}: '
                        f'{entry.install or pip_install(package)}.') from error


def engine_entry(name: str) -> EngineEntry:
    """
    Find an engine.

    :param name: of a registered engine
    :return: what is known of it
    :raises SpecError: there is none of this name, or the package that has it is broken
    """
    if name in SHIPPED:
        return SHIPPED[name]
    others = _others()
    if name in others.problems:
        raise SpecError(others.problems[name])
    if name not in others.entries:
        raise unknown_name('engine', name, engines())
    return others.entries[name]


def engines() -> Dict[str, EngineEntry]:
    """Return all engines that can be made here, by name: those that ship, then others."""
    return {**SHIPPED, **_others().entries}


def comparable_engines() -> List[str]:
    """Return the names of the engines that show the rooms and the robot of the truth."""
    robot = SHIPPED[TRUTH_ENGINE].robot
    return [name for name, entry in engines().items() if entry.robot == robot]


class _Others(NamedTuple):
    """Engines that other packages register, and why some of them are not there, by name."""

    entries: Dict[str, EngineEntry]
    problems: Dict[str, str]


@lru_cache(maxsize=1)
def _others() -> _Others:
    from importlib.metadata import entry_points  # slow, and most worlds need none of it
    found = _Others({}, {})
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, _owner(p))):
        try:
            if point.name in SHIPPED or point.name in found.entries:
                raise SpecError('there is another engine of this name.')
            found.entries[point.name] = _registered(point.name, point.load())
        except Exception as error:  # a stranger's module may fail in any way
            text = str(error) if isinstance(error, SpecError) else (
                f'{type(error).__name__}: {error}')
            problem = (f'Engine {point.name!r} of the Python package {_owner(point)!r} '
                       f'({point.value}) cannot be used: {text}')
            LOG.warning('%s', problem)
            if point.name not in found.entries:
                found.problems[point.name] = problem
    return found


def _owner(point: 'EntryPoint') -> str:
    """Return the Python package that an entry point is of."""
    return point.dist.name if point.dist else ''


def _registered(name: str, entry: Any) -> EngineEntry:
    """Check what an entry point names."""
    if not isinstance(entry, EngineEntry):
        raise SpecError(f'it is a {type(entry).__name__}, expected an EngineEntry.')
    if entry.name != name:
        raise SpecError(f'it calls itself {entry.name!r}; give both the same name.')
    prefix = entry.prefix or name
    if prefix in (*RESERVED, *(other.prefix or other.name for other in SHIPPED.values())):
        raise SpecError(f'parameters that begin with {prefix!r} are those of others; choose '
                        'another prefix.')
    for row in entry.table():
        if not isinstance(row, Param) or row.kind not in KINDS:
            raise SpecError(f'its table holds {row!r}, expected rows of Param.')
        if not re.fullmatch(rf'{prefix}\.\w+', row.name):
            raise SpecError(f'parameter {row.name!r} is not called {prefix}.something.')
        if row.dynamic:
            raise SpecError(f'{row.name} is dynamic; engines are told of values only when made.')
        row.check(row.default, 'its default')
    return entry


@lru_cache(maxsize=None)
def _table(entry: EngineEntry) -> Tuple[Param, ...]:
    rows: Iterable[Param] = _loaded(entry.parameters) if entry.parameters else ()
    return tuple(rows)


def _loaded(where: str) -> Any:
    """Import what a text like ``'package.module:NAME'`` names."""
    module, _, name = where.partition(':')
    found = vars(import_module(module))
    if name not in found:
        raise SpecError(f'{where}: there is no {name} in {module}.')
    return found[name]
