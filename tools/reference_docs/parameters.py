# SPDX-License-Identifier: Apache-2.0
"""Pages about parameters: the tables of all nodes and engines, and what profiles change."""
from lingbot_world_ros.engines.registry import SHIPPED
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.settings import parameters as params
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile, profile_path
from md import code, page, prose, table

TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
HEAD = ('parameter', 'type', 'default', 'range', 'set while running', 'meaning')
INTRO = """
Every parameter of every node, as a running node declares it. Those of an engine are declared only
while it runs. A profile may contain those of other engines, except `lingbot.checkpoint`, which is
then refused. Defaults are those of
[`config/default.yaml`](../../config/default.yaml); a [profile](profiles.md) changes some. Set
them in a profile, with `--param NAME:=VALUE` of `lingbot-world sim`, as a [launch
argument](launch.md), or, where the table says so, with `ros2 param set` while the node runs. An
unknown name, a wrong type or a value outside the range is refused before anything starts.

On a command line and as a launch argument, type text as it is, quoted only for the shell:
`--param 'prompt:=[old town] a street: wet'`. In a profile it is YAML: `yes`, `12:30` and
`007` are text where text is expected, but text that contains `: ` or ` #`, or begins with one of
``[]{}*&!|>'"%@` ``, needs quotes. Numbers follow YAML 1.2, such as `1e-05`, `.5`,
`+1` and `0x1f`, without quotes; `1_000`, `12:30` and `007` are not numbers. ROS reads everything
after `--ros-args`; there `yes`, `007` and `1e-05` are text only with quotes:
`-p 'prompt:="yes"'`."""
PROFILES = """
What each parameter file in `config/` changes of
[`config/default.yaml`](../../config/default.yaml). What the names stand for:
[Simulator profiles](../simulators.md)."""


def tables() -> dict:
    """
    Find the table of each node; world_model has those of the engines, too.

    :return: name of the node -> its table
    """
    found = {node: getattr(params, node.upper()) for node in params.NODES}
    found['world_model'] += params.ENGINES
    return found


def pages() -> dict:
    """
    Make the pages.

    :return: file name -> Markdown
    """
    return {'parameters.md': _parameters(), 'profiles.md': _profiles()}


def _parameters():
    nodes_of = {}  # parameter -> the nodes that have it
    for node, own in tables().items():
        for param in own:
            nodes_of.setdefault(param.name, []).append(node)
    known = {param.name: param for own in tables().values() for param in own}
    groups = {}
    for name, nodes in nodes_of.items():
        groups.setdefault((tuple(nodes), _group(name)), []).append(known[name])
    defaults = load_profile(DEFAULT_PROFILE)
    blocks = [INTRO]
    for (nodes, group), own in sorted(groups.items(), key=lambda item: _order(*item[0])):
        blocks += [f'## {_title(nodes, group)}']
        blocks += [f'Of engine {code(name)}.' for name, entry in SHIPPED.items()
                   if group and entry.prefix == group]
        blocks += [table(HEAD, [_row(param, defaults[param.name]) for param in own])]
    return page('Parameters', *blocks)


def _group(name):
    """Return which groups of names have a table of their own."""
    first = name.partition('.')[0]
    return first if first in ('topics', 'lingbot') and '.' in name else ''


def _order(nodes, group):
    return bool(group), len(nodes) > 1, list(params.NODES).index(nodes[0]), group


def _title(nodes, group):
    who = ' and '.join(f'`{node}`' for node in nodes)
    return f'`{group}.*` of {who}' if group else who


def _row(param, default):
    return (code(param.name), TYPES[param.kind], code(_yaml(default)), _range(param),
            'yes' if param.dynamic else '', prose(param.description))


def _range(param):
    if param.choices:
        return ', '.join(map(code, param.choices))
    return '' if param.low is None else f'{_number(param.low)} to {_number(param.high)}'


def _number(value):
    return f'{value:.12g}'


def _yaml(value):
    """Write a value the way YAML has it, so that it can be copied."""
    if isinstance(value, bool):
        return str(value).lower()
    return "''" if value == '' else value


def _profiles():
    defaults, blocks = load_profile(DEFAULT_PROFILE), [PROFILES]
    for name in sorted(path.stem for path in share_path('config').glob('*.yaml')):
        if name == DEFAULT_PROFILE:
            continue
        values = load_profile(name)
        rows = [(code(key), code(_yaml(defaults[key])), code(_yaml(value)))
                for key, value in values.items() if value != defaults[key]]
        blocks += [f'## `{name}`', _head(name),
                   table(('parameter', 'default', code(name)), rows)]
    return page('Profiles', *blocks)


def _head(name):
    """Return the comment that a profile begins with."""
    lines = []
    for line in profile_path(name).read_text(encoding='utf-8').splitlines():
        if not line.startswith('#'):
            break
        lines.append(line.lstrip('# '))
    return prose(' '.join(lines))
