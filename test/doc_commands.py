# SPDX-License-Identifier: Apache-2.0
"""
Shell commands of the documentation: how a block falls into lines, and what can be wrong in one.

A command is checked against what it is for, without running it: launch files and their arguments,
the parsers of the verbs, parameters, topics, services and actions with their types and messages.
"""
import ast
from contextlib import redirect_stderr
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
import io
from pathlib import Path
import re
import shlex
import sys

from doc_pages import DOCS, ROOT
from lingbot_world_ros.cli.main import verb_names
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.settings.parameters import NODES, PARAMS
from lingbot_world_ros.settings.profiles import (DEFAULT_PROFILE, load_profile, profile_path,
                                                 read_assignments, ROS_PARAMETERS)
import yaml

sys.path.insert(0, str(ROOT / 'tools' / 'reference_docs'))
import command_line  # noqa: E402, I100
import launch_files  # noqa: E402, I100

PACKAGE = 'lingbot_world_ros'
OF_ROS = ('rosout', 'parameter_events')  # topics of every node
WITH_VALUE = {'-r', '--rate', '-p', '--print', '-t', '--times', '-n', '--node-name', '-w',
              '--wait-matching-subscriptions', '--qos-profile', '--qos-depth', '--window',
              '--qos-reliability', '--qos-durability', '--field', '--timeout', '--spin-time'}


class Wrong(Exception):
    """What is wrong with a command, in a sentence."""


def lines_of(text: str) -> list:
    """
    Split a block into commands.

    :param text: of the block
    :return: (command, comment behind it) pairs; here documents stay with their command
    """
    found, rest = [], text.splitlines()
    while rest:
        line = rest.pop(0)
        while line.rstrip().endswith('\\') and rest:
            line = f'{line.rstrip()[:-1]} {rest.pop(0).strip()}'
        here = re.search(r'<<-?\s*[\'"]?(\w+)', line)
        if here:
            end = rest.index(here[1]) + 1
            found.append(('\n'.join([line, *rest[:end]]), ''))
            rest = rest[end:]
            continue
        command, comment = _without_comment(line)
        if command:
            found.append((command, comment))
    return found


def _without_comment(line):
    """Cut what follows a # that begins a word outside of quotes."""
    quote = ''
    for index, char in enumerate(line):
        if char in '\'"' and quote in ('', char):
            quote = '' if quote else char
        if char == '#' and not quote and (
                index == 0 or line[index - 1] in ' \t'):
            return line[:index].strip(), line[index + 1:].strip()
    return line.strip(), ''


def check(command: str) -> None:
    """
    Look for mistakes in a command line.

    :param command: as it stands in a block
    :raises Wrong: something that it names is not there
    """
    for words in simple_commands(command):
        while words and re.match(r'\w+=', words[0]):
            words = words[1:]
        if words:
            checker = CHECKERS.get(words[0].rpartition('/')[2])
            if checker is not None:
                checker(words[1:])


def check_python(text: str) -> None:
    """
    Look for mistakes in Python: syntax, imports of this package, arguments of its launch files.

    :param text: of a block
    :raises Wrong: something that it names is not there
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise Wrong(str(error)) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition('.')[0] == PACKAGE:
            module = import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    raise Wrong(f'{node.module} has no {name.name}')
    for name in re.findall(r"'(\w+\.launch\.py)'", text):
        given = re.search(r'launch_arguments=(\{[^}]*\})', text)
        values = ast.literal_eval(given[1]) if given else {}
        _launch([PACKAGE, name, *(f'{key}:={value}' for key, value in values.items())])


def simple_commands(command: str) -> list:
    """
    Split a command line at &&, ; and |, and drop redirections.

    :param command: as it stands in a block
    :return: lists of words
    """
    lexer = shlex.shlex(command.partition('<<')[0], posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ''
    found, skip = [[]], False
    for word in lexer:
        if set(word) <= set('&|;()'):
            found.append([])
        elif set(word) <= set('<>&'):
            skip = True
        elif skip:
            skip = False
        else:
            found[-1].append(word)
    return [words for words in found if words]


def _make(words):
    targets = re.findall(r'(?m)^([a-z]+):', (ROOT / 'Makefile').read_text())
    for word in words:
        if '=' not in word and not word.startswith('-') and word not in targets:
            raise Wrong(f'make has no target {word!r}')
    given = dict(word.split('=', 1) for word in words if '=' in word)
    verb = words[0]
    if 'ARGS' in given:
        if verb in verb_names():
            _lingbot_world([verb, *shlex.split(given['ARGS'])])
        elif verb in ('bench', 'soak'):
            _python(['-m', {'bench': 'bench', 'soak': 'bench.soak'}[verb],
                     *shlex.split(given['ARGS'])])


def _lingbot_world(words):
    cut = words.index('--ros-args') if '--ros-args' in words else len(words)
    _ros_args(words[cut:])
    words = words[:cut]
    if words in (['--help'], ['-h']):
        return
    if not words or words[0] not in verb_names():
        raise Wrong(f'lingbot-world has no verb {" ".join(words[:1])!r}')
    if '--help' in words:
        return
    heard = io.StringIO()
    with redirect_stderr(heard):
        try:
            args = command_line.parser_of(words[0]).parse_args(words[1:])
        except SystemExit:
            raise Wrong(heard.getvalue().strip().splitlines()[-1]) from None
    _profile(getattr(args, 'profile', None) or DEFAULT_PROFILE)
    try:
        read_assignments(getattr(args, 'param', None) or [])
    except SpecError as error:
        raise Wrong(str(error)) from None


def _profile(name):
    if name.endswith('.yaml'):
        return  # of the reader's own
    try:
        profile_path(name)
    except SpecError as error:
        raise Wrong(str(error)) from None


def _python(words):
    """Look whether a module exists and has the options."""
    if words[:1] != ['-m']:
        return
    module = words[1]
    if module in ('pip', 'venv', 'pytest', 'sphinx', 'http.server'):
        return
    try:
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f'{module}.__main__')
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise Wrong(f'there is no module {module}')
    known = options_in(Path(spec.origin))
    for word in words[2:]:
        option = word.partition('=')[0]
        if option.startswith('--') and option not in known | {'--help'}:
            raise Wrong(f'python -m {module} has no option {option}')


@lru_cache(maxsize=None)
def options_in(path: Path) -> frozenset:
    """
    Collect the options that a module and those of its own folder that it imports declare.

    :param path: of the module
    :return: names with dashes
    """
    tree, found = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and re.fullmatch(r'--[a-z][\w-]*', str(node.value)):
            found.add(node.value)
        if isinstance(node, ast.ImportFrom) and node.module:
            beside = path.with_name(f'{node.module.rpartition(".")[2]}.py')
            if beside != path and beside.is_file() and PACKAGE in node.module:
                found |= options_in(beside)
    return frozenset(found)


def _ros2(words):
    checker = {'launch': _launch, 'run': _run, 'topic': _topic, 'service': _service,
               'action': _service, 'param': _param, 'lifecycle': _lifecycle,
               'interface': _interface, 'node': _node}.get(words[0])
    if checker is not None:
        checker([word for word in words[1:]])


def _launch(words):
    if words[0] != PACKAGE:
        return
    path = share_path('launch') / words[1]
    if not path.is_file():
        raise Wrong(f'there is no launch file {words[1]}')
    known = launch_files.arguments(path)
    for word in words[2:]:
        name, assigned, value = word.partition(':=')
        if not assigned:
            if word.startswith('-'):
                continue
            raise Wrong(f'{word!r} is no launch argument')
        if '.' in name and name in PARAMS:
            _value(name, value)
        elif name not in known:
            raise Wrong(f'{words[1]} has no argument {name!r}')
        elif known[name].choices and value not in known[name].choices:
            raise Wrong(f'{name}:={value} is not one of {known[name].choices}')
        elif name in PARAMS and value:
            _value(name, value)
        if name == 'profile':
            _profile(value)


def _value(name, text):
    if text.startswith('$'):
        return
    try:
        PARAMS[name].read(text, name)
    except SpecError as error:
        raise Wrong(str(error)) from None


def _run(words):
    if words[0] != PACKAGE:
        return
    program = words[1]
    if not (ROOT / 'scripts' / program).is_file():
        raise Wrong(f'the package has no executable {program!r}')
    if program == 'lingbot-world':
        _lingbot_world(words[2:])
    elif program in verb_names():
        _lingbot_world([program, *words[2:]])
    else:
        _ros_args(words[2:])


def _ros_args(words):
    for option, word in zip(words, words[1:]):
        name = word.partition(':=')[0]
        if option in ('-p', '--param') and name not in PARAMS and name not in ROS_PARAMETERS:
            raise Wrong(f'there is no parameter {name!r}')


def _arguments(words):
    """Drop options and their values."""
    found, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word.startswith('-'):
            skip = word in WITH_VALUE
        else:
            found.append(word)
    return found


def _topic(words):
    verb, *names = _arguments(words)
    if verb in ('list', 'find') or not names:
        return
    if verb == 'echo' and '--qos-durability' in words and '--qos-reliability' not in words:
        # With one policy given, echo no longer looks at the publishers and takes best effort,
        # which gets nothing that was sent before.
        raise Wrong('--qos-durability gets what is latched with --qos-reliability reliable only')
    types = _known(names[0], topics())
    if types is None:
        if names[0].strip('/') not in OF_ROS:
            raise Wrong(f'there is no topic {names[0]}')
    elif verb == 'pub':
        _typed(names, types)
        _payload(_interface_class(names[1]), names[2:])
    elif len(names) > 1:
        _typed(names, types)


def _service(words):
    verb, *names = _arguments(words)
    if verb not in ('call', 'send_goal', 'type', 'info') or not names:
        return
    types = _known(names[0], services())
    if types is None:
        raise Wrong(f'there is no service or action {names[0]}')
    if verb in ('call', 'send_goal'):
        _typed(names, types)
        interface = _interface_class(names[1])
        _payload(interface and (interface.Goal if verb == 'send_goal' else interface.Request),
                 names[2:])


def _typed(names, types):
    if len(names) < 2 or names[1].replace('/msg/', '/').replace('/srv/', '/') not in {
            kind.replace('/msg/', '/').replace('/srv/', '/') for kind in types}:
        raise Wrong(f'{names[0]} is of type {" or ".join(sorted(types))}')


def _known(name, known):
    """Look a name up, with and without namespaces before it."""
    parts = name.strip('/').split('/')
    for index in range(len(parts)):
        types = known.get('/'.join(parts[index:]))
        if types is not None:
            return types
    return None


@lru_cache(maxsize=1)
def topics() -> dict:
    """
    Read the page about topics, and what profiles make of it.

    :return: name without a slash before it -> types
    """
    known, text = {}, (DOCS / 'reference' / 'topics.md').read_text()
    profiles = [load_profile(path.stem) for path in share_path('config').glob('*.yaml')]
    for name, types, parameter in re.findall(
            r'(?m)^\| `([^`]+)` \| (.*?) \| .* \| [^|]* \| `?([^`|]*?)`? ?\|$', text):
        names = {name, *(values.get(parameter, name) for values in profiles)}
        for one in names:
            known.setdefault(one.strip('/'), set()).update(re.findall(r'`([^`]+)`', types))
    return known


@lru_cache(maxsize=1)
def services() -> dict:
    """
    Read the page about services and actions.

    :return: name without a slash before it -> types
    """
    text = (DOCS / 'reference' / 'services.md').read_text()
    return {name.replace('~', 'world_model').strip('/'): {kind} for name, kind in re.findall(
        r'(?m)^\| \w+ \| `([^`]+)` \| `([^`]+)` \|', text)}


def _interface_class(name):
    """Return a message, service or action type; None where its package is not installed."""
    package, *kind, short = name.split('/')
    try:
        module = import_module(f'{package}.{kind[0] if kind else "msg"}')
    except ImportError:
        return None
    found = getattr(module, short, None)
    if found is None:
        raise Wrong(f'there is no type {name}')
    return found


def _payload(kind, texts):
    if texts and kind is not None:
        _fields(kind, yaml.safe_load(texts[0]))


def _fields(kind, values):
    """Compare the keys of YAML with the fields of a message, and with those of its parts."""
    known = kind.get_fields_and_field_types()
    for key, value in (values or {}).items():
        if key not in known:
            raise Wrong(f'{kind.__name__} has no field {key!r}')
        inner = re.search(r'(\w+)/(\w+)', known[key])
        if inner:
            part = getattr(import_module(f'{inner[1]}.msg'), inner[2])
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    _fields(part, one)


def _param(words):
    verb, *names = _arguments(words)
    if verb in ('list', 'dump', 'load') or not names:
        return
    _node(['info', names[0]])
    if len(names) > 1:
        param = PARAMS.get(names[1])
        if param is None and names[1] not in ROS_PARAMETERS:
            raise Wrong(f'there is no parameter {names[1]!r}')
        if verb == 'set' and param is not None:
            if not param.dynamic:
                raise Wrong(f'{param.name} cannot be set while the node runs')
            _value(param.name, names[2])


def _lifecycle(words):
    verb, *names = _arguments(words)
    if verb in ('set', 'get', 'list') and names:
        _node(['info', names[0]])
        if verb == 'set' and names[1] not in ('configure', 'activate', 'deactivate', 'cleanup',
                                              'shutdown'):
            raise Wrong(f'there is no transition {names[1]!r}')


def _node(words):
    verb, *names = _arguments(words)
    known = (*NODES, 'follower', 'teleop')
    if verb == 'info' and names and names[0].rpartition('/')[2] not in known:
        raise Wrong(f'there is no node {names[0]}')


def _interface(words):
    verb, *names = _arguments(words)
    if verb == 'show' and names:
        _interface_class(names[0])


CHECKERS = {'make': _make, 'lingbot-world': _lingbot_world, 'python': _python,
            'python3': _python, 'ros2': _ros2}
