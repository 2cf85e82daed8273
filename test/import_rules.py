# SPDX-License-Identifier: Apache-2.0
"""
Which folder of the package ("room") may import what, told from the sources alone.

A room is a folder of the package. It imports only from rooms above it, no two files import each
other in a ring, and some names stay in their rooms: rclpy, message types, engines. Imports inside
functions count, so do those for a type checker and modules that are named by a string.
"""
import ast
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Dict, Iterator, List, Optional, Set, Tuple

PACKAGE = 'lingbot_world_ros'
HELPERS = ''  # the files beside the rooms
ROOMS = (HELPERS, 'geometry', 'robots', 'actions', 'worlds', 'models', 'engines', 'session',
         'messages', 'recording', 'view', 'settings', 'nodes', 'envs', 'policies', 'evaluation',
         'training', 'report', 'cli')
REGISTRY = 'engines/registry.py'
ROS_ROOMS = ('nodes',)
MESSAGE_ROOMS = ('messages', 'nodes')
# One engine's weights are made from another one's frames, so this room knows both.
ENGINE_ROOMS = ('engines', 'training')
ROS_PACKAGES = ('rclpy', 'rosidl_runtime_py', 'launch', 'launch_ros')
MESSAGE_PACKAGES = re.compile(r'\w+_msgs|std_srvs|\w+_interfaces')
MESSAGE_MODULES = ('msg', 'srv', 'action')


@dataclass(frozen=True, order=True)
class Finding:
    """One broken rule: which, in which file (relative to the package), at which line, by what."""

    rule: str
    file: str
    line: int
    what: str

    def __str__(self):
        """Tell it as compilers do."""
        return f'{self.file}:{self.line}: {self.rule}: {self.what}'


@dataclass(frozen=True)
class Import:
    """A module that a file names: dotted and absolute; ``name`` is what it is called there."""

    module: str
    line: int
    name: str = ''


def check_imports(folder: Path, package: str = PACKAGE) -> List[Finding]:
    """
    Find what breaks the rules.

    :param folder: of the package's sources
    :param package: name that it is imported by
    :return: all broken rules, sorted
    """
    files = {path.relative_to(folder).as_posix(): ast.parse(path.read_text())
             for path in sorted(folder.rglob('*.py'))}
    modules = {_module(package, file): file for file in files}
    engines = {Path(file).parts[1] for file in files if re.match('engines/[^/]+/', file)}
    imports = {file: list(_imports(tree, file, package, modules)) for file, tree in files.items()}
    arrows = {file: [(modules[found.module], found.line) for found in named
                     if found.module in modules] for file, named in imports.items()}
    findings = list(_rings(arrows))
    for file, tree in files.items():
        findings += _arrows(file, arrows[file])
        findings += _foreign(file, imports[file])
        findings += _made_messages(file, tree, imports[file])
        findings += _engine_names(file, tree, arrows[file], engines)
    return sorted(set(findings))


def room_of(file: str) -> str:
    """Return the room a file is in, '' for the helpers beside the rooms."""
    return file.partition('/')[0] if '/' in file else HELPERS


def _module(package: str, file: str) -> str:
    parts = [package, *Path(file).with_suffix('').parts]
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def _imports(tree: ast.AST, file: str, package: str, modules: Dict[str, str]) -> Iterator[Import]:
    """Yield every module a file names, wherever in it; of a package the part that is used."""
    docstrings = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, alias.asname or alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, file, package)
            for alias in node.names:
                whole = f'{base}.{alias.name}'
                named = whole if whole in modules or alias.name in MESSAGE_MODULES else base
                yield Import(named, node.lineno, alias.asname or alias.name)
        elif isinstance(node, ast.Constant) and node not in docstrings:
            # importlib's argument, an entry of a registry ('package.module:name'), python -m
            if isinstance(node.value, str) and re.fullmatch(r'[\w.]+(:\w+)?', node.value):
                named = node.value.partition(':')[0]
                if named in modules and '.' in named:
                    yield Import(named, node.lineno)
        if isinstance(node, ast.Call) and node.args and _called(node) in ('import_module',
                                                                          '__import__'):
            text = node.args[0]
            if isinstance(text, ast.JoinedStr):
                text = text.values[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield Import(text.value.rstrip('.'), node.lineno)


def _absolute(node: ast.ImportFrom, file: str, package: str) -> str:
    if not node.level:
        return node.module
    above = [package, *Path(file).parts[:-1]]
    above = above[:len(above) + 1 - node.level]
    return '.'.join(above + ([node.module] if node.module else []))


def _called(node: ast.Call) -> str:
    return getattr(node.func, 'attr', None) or getattr(node.func, 'id', '')


def _docstrings(tree: ast.AST) -> Set[ast.AST]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _arrows(file: str, arrows: List[Tuple[str, int]]) -> Iterator[Finding]:
    room = room_of(file)
    if room not in ROOMS:
        yield Finding('room', file, 1, f'{room}/ is not in the list of folders (ROOMS)')
        return
    for other, line in arrows:
        if ROOMS.index(room_of(other) if room_of(other) in ROOMS else room) > ROOMS.index(room):
            yield Finding('upward', file, line, other)


def _rings(arrows: Dict[str, List[Tuple[str, int]]]) -> Iterator[Finding]:
    """Name each import that closes a ring: the file it names reaches back."""
    reached = {file: _reach(file, arrows) for file in arrows}
    for file, named in arrows.items():
        for other, line in named:
            if file in reached[other]:
                yield Finding('ring', file, line, other)


def _reach(start: str, arrows: Dict[str, List[Tuple[str, int]]]) -> Set[str]:
    found, waiting = {start}, [start]
    while waiting:
        for other, _ in arrows[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _is_message(module: str) -> bool:
    """Tell whether a module holds message types."""
    first, _, rest = module.partition('.')
    return (MESSAGE_PACKAGES.fullmatch(first) is not None or
            first not in ROS_PACKAGES and rest.split('.')[0] in MESSAGE_MODULES)


def _foreign(file: str, imports: List[Import]) -> Iterator[Finding]:
    for found in imports:
        if found.module.split('.')[0] in ROS_PACKAGES and room_of(file) not in ROS_ROOMS:
            yield Finding('rclpy', file, found.line, found.module)
        if _is_message(found.module) and room_of(file) not in MESSAGE_ROOMS:
            yield Finding('message', file, found.line, found.module)


def _made_messages(file: str, tree: ast.AST, imports: List[Import]) -> Iterator[Finding]:
    """
    In nodes a message type is named, not filled: that is what messages/ is for.

    A request that says nothing, ``Trigger.Request()``, is no conversion.
    """
    if room_of(file) in ROS_ROOMS:
        types = {found.name for found in imports if _is_message(found.module)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (node.args or node.keywords or
                                               _called(node) != 'Request'):
                made = _first_name(node.func)
                if made in types:
                    yield Finding('message made', file, node.lineno, made)


def _first_name(node: ast.AST) -> Optional[str]:
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, 'id', None)


def _engine_names(file: str, tree: ast.AST, arrows: List[Tuple[str, int]],
                  engines: Set[str]) -> Iterator[Finding]:
    if file == REGISTRY:
        return
    own = Path(file).parts[1] if re.match('engines/[^/]+/', file) else None
    docstrings = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in docstrings and \
                node.value in engines - {own}:
            yield Finding('engine', file, node.lineno, repr(node.value))
    for other, line in arrows:
        named = re.match('engines/([^/]+)/', other)
        if named and named.group(1) != own and room_of(file) not in ENGINE_ROOMS:
            yield Finding('engine', file, line, other)
