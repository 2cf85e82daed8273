# SPDX-License-Identifier: Apache-2.0
"""YAML of settings: plain data, read in bounded time whoever wrote it."""
from lingbot_world_ros.errors import SpecError

MAX_DEPTH = 20


def load_plain_yaml(text: str):
    """
    Read YAML without anchors, aliases and tags: few lines of them can stand for any amount.

    :param text: YAML; who calls this limits its length
    :return: dict, list, str, int, float, bool, date or None
    :raises SpecError: not such YAML; names the line
    """
    import yaml
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if getattr(event, 'anchor', None) or getattr(event, 'tag', None):
                raise SpecError('not valid YAML of settings, which has no anchors, aliases and '
                                f'tags (line {event.start_mark.line + 1})')
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise SpecError(f'not valid YAML of settings, nested deeper than {MAX_DEPTH} '
                                f'(line {event.start_mark.line + 1})')
        return yaml.load(text, Loader=loader)
    except SpecError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # no date, a number of pages
        line = getattr(getattr(error, 'problem_mark', None), 'line', None)
        where = '' if line is None else f' (line {line + 1})'
        raise SpecError(f'not valid YAML{where}') from error
