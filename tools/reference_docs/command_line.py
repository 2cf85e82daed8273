# SPDX-License-Identifier: Apache-2.0
"""Page about the verbs of ``lingbot-world``, from the argument parsers they really use."""
import argparse
from importlib import import_module

from lingbot_world_ros import cli
from lingbot_world_ros.cli.main import verb_names
from md import code, page, prose, table

INTRO = """
`lingbot-world VERB --help` prints the same. In a ROS workspace type `ros2 run lingbot_world_ros
lingbot-world VERB`. Arguments after `--ros-args` go to ROS. `lingbot-world --version` prints the
version. Exit codes: 0 success, 2 an error that the user can fix (explained in one line), 130
interrupted; commands that only print also return 141 when their reader has ended, and 1 when
their output cannot be written."""
HEAD = ('argument', 'choices or default', 'meaning')


def parser_of(verb: str) -> argparse.ArgumentParser:
    """
    Make the parser of a verb.

    :param verb: name of its module
    :return: the parser, with the help of the verb as its description
    """
    module = import_module(f"{cli.__name__}.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f'lingbot-world {module.NAME}',
                                     description=module.HELP)
    module.add_arguments(parser)
    return parser


def pages() -> dict:
    """
    Make the page.

    :return: file name -> Markdown
    """
    blocks = [INTRO]
    for verb in verb_names():
        parser = parser_of(verb)
        told = parser.description
        blocks += [f'## {parser.prog}', f'{prose(told[0].upper() + told[1:])}.',
                   table(HEAD, [_row(action) for action in parser._actions
                                if not isinstance(action, argparse._HelpAction)])]
    return {'command_line.md': page('Command line', *blocks)}


def _row(action):
    """Describe one argument; ``_actions`` is what argparse prints its own help from."""
    needed = action.required and action.option_strings
    return (code(_form(action)), 'required' if needed else _limits(action),
            prose((action.help or '') % {**vars(action), 'prog': ''}))


def _form(action):
    """Return how an argument is written: all its names and what follows them."""
    if not action.option_strings:
        return action.metavar or action.dest
    names = ', '.join(action.option_strings)
    if action.nargs == 0:
        return names
    value = action.metavar or action.dest.upper()
    return f'{names} {value}' + (' ...' if action.nargs == '+' else '')


def _limits(action):
    if action.choices:
        return ', '.join(code(choice) for choice in action.choices)
    shown = action.default not in (None, '', False, []) and action.default is not argparse.SUPPRESS
    told = 'default' in (action.help or '')  # in words
    return code(action.default) if shown and not told and action.nargs != 0 else ''
