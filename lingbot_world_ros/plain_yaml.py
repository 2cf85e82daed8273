# SPDX-License-Identifier: Apache-2.0
"""
Texts and numbers that users give: what a word means, on a command line and in YAML.

Text is what was typed. What is a number, ``true`` or a list depends on what is wanted, never on
what the text looks like. YAML is read in bounded time whoever wrote it: without anchors, aliases
and tags, few lines of which can stand for any amount.
"""
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from lingbot_world_ros.errors import quoted, shown, SpecError

MAX_DEPTH = 20
MAX_NODES = 10_000
MAX_DIGITS = 39  # of a number; to read one takes time that grows with their square
# The numbers of YAML 1.2, but not 007: it is 7 to some programs, octal to others, as to ROS.
WHOLE = re.compile(r'[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+')
NUMBER = re.compile(r'[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?')
ZEROS_FIRST = re.compile(r'[-+]?0[0-9]+')
UNBOUNDED = re.compile(r'[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)')
# Where one of both is wanted no other word can be meant; these are what ROS takes.
TRUE, FALSE = (frozenset(form for word in words.split()
                         for form in (word, word.capitalize(), word.upper()))
               for words in ('true yes on y', 'false no off n'))
Tree = Union[str, List['Tree'], Dict[str, 'Tree']]


class Quoted(str):
    """Text that stood in quotes, or in a block, in YAML: it can be no number."""

    __slots__ = ()


class YamlError(SpecError):
    """Text that is no plain YAML; ``problem`` says why, ``line`` where (from 1), if known."""

    def __init__(self, problem: str, line: Optional[int] = None) -> None:
        """Tell both in one text."""
        super().__init__(problem if line is None else f'{problem} (line {line})')
        self.problem, self.line = problem, line


def read_whole(given: Tree) -> Optional[int]:
    """Return a whole number, ``0x1f`` too; None where it is none."""
    text = _plain(given)
    return int(text, 0) if WHOLE.fullmatch(text) else None


def read_number(given: Tree) -> Optional[float]:
    """Return a number, ``1e-05`` and ``.inf`` too; None where it is none, as ``12:30``."""
    text, whole = _plain(given), read_whole(given)
    if whole is not None:
        return float(whole)
    if UNBOUNDED.fullmatch(text):
        return float(text.replace('.', ''))
    if not NUMBER.fullmatch(text) or ZEROS_FIRST.fullmatch(text):
        return None
    number = float(text)
    return number if abs(number) != float('inf') else None  # larger than any that there is


def read_bool(given: Tree) -> Optional[bool]:
    """Return whether it is true, ``yes`` or ``on``; None where it is neither that nor false."""
    text = _plain(given)
    return True if text in TRUE else False if text in FALSE else None


def read_string(given: Tree) -> Optional[str]:
    """Return text as it is; None for a list or a mapping."""
    return str(given) if isinstance(given, str) else None


def _plain(given: Tree) -> str:
    """Return what may be a number or true or false; '' for all that cannot be one."""
    if not isinstance(given, str) or isinstance(given, Quoted) or len(given) > MAX_DIGITS:
        return ''
    return given.strip(' ')


def as_text(value: Union[str, bool, int, float]) -> str:
    """
    Write a value so that who wants one of its type reads the same again.

    :param value: of a parameter
    :return: as it is typed on a command line
    """
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, float) and abs(value) == float('inf'):
        return '.inf' if value > 0.0 else '-.inf'
    return '.nan' if value != value else str(value)


def as_yaml(value: Union[str, bool, int, float]) -> str:
    """
    Write a value so that every reader of YAML takes it for what it is.

    :param value: of a parameter; text of characters that UTF-8 has
    :return: one line; text stands in quotes
    """
    import yaml
    if not isinstance(value, str):
        return as_text(value)
    return yaml.safe_dump(str(value), default_style='"', allow_unicode=True,
                          width=float('inf')).rstrip('\n')


def read_yaml(text: str, max_depth: int = MAX_DEPTH, max_nodes: int = MAX_NODES) -> Tree:
    """
    Read YAML into str, list and dict: what a scalar means is up to who reads the tree.

    :param text: YAML; who calls this limits its length
    :param max_depth: of lists and mappings in each other
    :param max_nodes: scalars, lists and mappings in all
    :return: the tree, '' of an empty text; what stood in quotes is ``Quoted``
    :raises YamlError: not such YAML, a key twice, several documents; names the line
    """
    import yaml
    roots: List[Tree] = []
    stack: List[List[Any]] = []  # [container, key that waits for its value]
    num_nodes = 0
    for event in _plain_events(text, max_depth):
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        line, num_nodes = _line(event), num_nodes + 1
        if num_nodes > max_nodes:
            raise YamlError(f'more than {max_nodes} entries', line)
        value: Tree = (_scalar(event) if isinstance(event, yaml.ScalarEvent) else
                       {} if isinstance(event, yaml.MappingStartEvent) else [])
        problem = _attach(value, stack[-1] if stack else [roots, None])
        if problem:
            raise YamlError(problem, line)
        if not isinstance(event, yaml.ScalarEvent):
            stack.append([value, None])
    if len(roots) > 1:
        raise YamlError('more than one document')
    return roots[0] if roots else ''


def key_paths(text: str, max_depth: int = MAX_DEPTH) -> Iterator[Tuple[str, ...]]:
    """
    Tell which names a file gives values to that another parser has taken already.

    Keys given twice, tags, anchors and further documents are no matter here.

    :param text: YAML; who calls this limits its length
    :param max_depth: of mappings in each other
    :return: the keys that lead to each value that is no mapping
    :raises YamlError: not YAML
    """
    import yaml
    keys: List[Optional[str]] = []  # of the mappings around; None where a key comes next
    in_list = 0
    try:
        for event in yaml.parse(text, Loader=_loader()):
            if isinstance(event, yaml.CollectionEndEvent):
                if in_list:
                    in_list -= 1
                    continue
                keys.pop()
            elif not isinstance(event, yaml.NodeEvent):
                continue
            elif in_list:
                in_list += isinstance(event, yaml.CollectionStartEvent)
                continue
            elif isinstance(event, yaml.MappingStartEvent):
                if len(keys) == max_depth:
                    raise YamlError(f'nested deeper than {max_depth}', _line(event))
                keys.append(None)
                continue
            elif keys and keys[-1] is None:
                keys[-1] = str(getattr(event, 'value', ''))
                continue
            else:
                yield tuple(key or '' for key in keys)
                in_list = int(isinstance(event, yaml.SequenceStartEvent))
            if keys:
                keys[-1] = None
    except (yaml.YAMLError, UnicodeError) as error:
        raise _invalid(error) from error


def _scalar(event: Any) -> str:
    return Quoted(event.value) if event.style else str(event.value)


def _attach(value: Tree, frame: List[Any]) -> str:
    """Put a node into its container; return what is wrong with that."""
    container, key = frame
    if isinstance(container, list):
        container.append(value)
    elif key is not None:
        container[key], frame[1] = value, None
    elif not isinstance(value, str):
        return 'a key must be text'
    elif value in container:
        return f'{quoted(value)} is given twice'
    else:
        frame[1] = str(value)
    return ''


def _plain_events(text: str, max_depth: int) -> Iterator[Any]:
    """Yield the events of YAML that has no anchors, aliases and tags and is not nested deeply."""
    import yaml
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_loader()):
            if getattr(event, 'anchor', None) or getattr(event, 'tag', None):
                raise YamlError('anchors, aliases and tags are not allowed; put text that begins '
                                'with &, * or ! in quotes', _line(event))
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > max_depth:
                raise YamlError(f'nested deeper than {max_depth}', _line(event))
            yield event
    except (yaml.YAMLError, UnicodeError) as error:
        raise _invalid(error) from error


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _invalid(error: Exception) -> YamlError:
    mark = getattr(error, 'problem_mark', None)
    problem = getattr(error, 'problem', None)
    return YamlError(f'not valid YAML: {shown(problem)}' if problem else 'not valid YAML',
                     None if mark is None else mark.line + 1)


def _loader() -> type:
    import yaml
    return getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
