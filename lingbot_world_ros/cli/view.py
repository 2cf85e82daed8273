# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world view``: serve the operator's page of a running world."""
import argparse
import os
import sys
from typing import Any, Dict, Mapping

from lingbot_world_ros.output import outlive_output

NAME = 'view'
HELP = 'serve a page that shows a running world and drives it'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    parser.add_argument('--profile', default='default', metavar='NAME|FILE',
                        help='parameter file of the world or simulator: a name from config/ or a '
                        'path (default: default)')
    parser.add_argument('--namespace', default='', help='namespace of the world')
    parser.add_argument('--host', help='address to listen on; any except loopback needs a '
                        'token (default: 127.0.0.1)')
    parser.add_argument('--port', help='TCP port (default: the first free one from '
                        '8420 on)')
    parser.add_argument('--token', help='text needed to open the page; generated if '
                        'needed and not given')
    parser.add_argument('--open', action='store_true',
                        help='open the page in a browser if there is a screen')
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='any other parameter; may be repeated')


def run(args: argparse.Namespace) -> int:
    """
    Serve until it is asked to end.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: profile, parameter, address or ROS domain cannot be used
    """
    outlive_output()
    import asyncio
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        from lingbot_world_ros.errors import SpecError
        from lingbot_world_ros.paths import pip_install
        raise SpecError('The page needs the Python package aiohttp: '
                        f'{pip_install("aiohttp")} (or apt install python3-aiohttp).') from error
    from lingbot_world_ros.nodes.parameters import as_overrides
    from lingbot_world_ros.nodes.ros_environment import node_args
    from lingbot_world_ros.nodes.ros_process import end_ros, start_ros
    from lingbot_world_ros.nodes.spinner import Spinner
    from lingbot_world_ros.nodes.view import serve, ViewNode
    from lingbot_world_ros.settings.profiles import load_profile, params_file
    overrides = _overrides(args, load_profile(args.profile))
    with params_file(args.profile) as file:
        start_ros(node_args(file, args.namespace, args.ros_args))
    try:
        with Spinner() as spinner:
            node = spinner.add(ViewNode(parameter_overrides=as_overrides(overrides)))
            asyncio.run(serve(node, spinner, lambda url: _announce(url, args.open)))
    finally:
        end_ros()
    return 0


def _overrides(args: argparse.Namespace, profile: Mapping[str, Any]) -> Dict[str, Any]:
    """Check parameters given on the command line, and see to a token where one is needed."""
    from lingbot_world_ros.settings.parameters import PARAMS
    from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile, read_assignments
    from lingbot_world_ros.view.server import is_local
    import secrets
    given = {'view.host': args.host, 'view.port': args.port, 'view.token': args.token}
    values = {**{name: PARAMS[name].read(text, 'command line')
                 for name, text in given.items() if text is not None},
              **read_assignments(args.param)}
    known = {**load_profile(DEFAULT_PROFILE), **profile, **values}
    if not is_local(known['view.host']) and not known['view.token']:
        values['view.token'] = secrets.token_urlsafe(16)
    return values


def _announce(url: str, opens: bool) -> None:
    """Say where the page is; show it where there is a screen."""
    print(f'Page       {url}', flush=True)
    if sys.stdin.isatty():  # else somebody else started it, who says so
        print('Ctrl-C ends.', flush=True)
    if opens and (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        import webbrowser
        webbrowser.open(url)
