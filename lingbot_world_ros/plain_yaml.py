# SPDX-License-Identifier: Apache-2.0
"""
YAML of settings and world files: plain data, read in bounded time whoever wrote it.

No anchors, aliases and tags: few lines of them can stand for any amount.
"""
from typing import Any, Dict, Iterator, List, Optional, Union

from lingbot_world_ros.errors import quoted, shown, SpecError

MAX_DEPTH = 20
Tree = Union[str, List['Tree'], Dict[str, 'Tree']]


class YamlError(SpecError):
    """Text that is no plain YAML; ``problem`` says why, ``line`` where (from 1), if known."""

    def __init__(self, problem: str, line: Optional[int] = None) -> None:
        """Tell both in one text."""
        super().__init__(problem if line is None else f'{problem} (line {line})')
        self.problem, self.line = problem, line


def load_plain_yaml(text: str) -> Any:
    """
    Read YAML, numbers and dates as what they look like.

    :param text: YAML; who calls this limits its length
    :return: dict, list, str, int, float, bool, date or None
    :raises YamlError: not such YAML; names the line
    """
    import yaml
    for _ in _plain_events(text, MAX_DEPTH):
        pass
    try:
        return yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # no date, a number of pages
        raise _invalid(error) from error


def load_text_tree(text: str, max_depth: int, max_nodes: int) -> Tree:
    """
    Read YAML into str, list and dict: what a scalar means is up to who reads the tree.

    :param text: YAML; who calls this limits its length
    :param max_depth: of lists and mappings in each other
    :param max_nodes: scalars, lists and mappings in all
    :return: the tree, '' of an empty text
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
        value: Tree = (event.value if isinstance(event, yaml.ScalarEvent) else
                       {} if isinstance(event, yaml.MappingStartEvent) else [])
        problem = _attach(value, stack[-1] if stack else [roots, None])
        if problem:
            raise YamlError(problem, line)
        if not isinstance(event, yaml.ScalarEvent):
            stack.append([value, None])
    if len(roots) > 1:
        raise YamlError('more than one document')
    return roots[0] if roots else ''


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
        frame[1] = value
    return ''


def _plain_events(text: str, max_depth: int) -> Iterator[Any]:
    """Yield the events of YAML that has no anchors, aliases and tags and is not nested deeply."""
    import yaml
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_loader()):
            if getattr(event, 'anchor', None) or getattr(event, 'tag', None):
                raise YamlError('anchors, aliases and tags are not allowed', _line(event))
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
