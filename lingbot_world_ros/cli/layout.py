# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world layout``: a ready layout for RViz 2 or Foxglove, with the names of a profile."""
import argparse

from lingbot_world_ros.output import outlive_output
from lingbot_world_ros.settings.layouts import profile_values, render_layout, SHIPPED, write_layout
from lingbot_world_ros.settings.parameters import PARAMS
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE

NAME = 'layout'
HELP = 'write an RViz 2 or Foxglove layout with the names of a profile and namespace'
OPEN = {'rviz': 'rviz2 -d {path} --ros-args -p use_sim_time:=true',
        'foxglove': 'Foxglove: Layouts, "Import from file...", {path}'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('tool', choices=sorted(SHIPPED), help='tool to write it for')
    add('--profile', default=DEFAULT_PROFILE, metavar='NAME|FILE',
        help='parameter file whose topic and frame names to use (default: %(default)s)')
    add('--namespace', default='', metavar='NAME',
        help='namespace of the nodes, for example world_0')
    add('--frame-prefix', metavar='TEXT', help="prefix of all frames (default: the profile's)")
    add('-o', '--output', metavar='FILE', help='file to write (default: print the layout)')


def run(args: argparse.Namespace) -> int:
    """
    Write the layout, or print it.

    :param args: parsed arguments
    :return: 0
    :raises SpecError: a profile, namespace, prefix or file that cannot be used
    """
    values = profile_values(args.profile)
    if args.frame_prefix is not None:
        values['frame_prefix'] = PARAMS['frame_prefix'].check(args.frame_prefix, 'command line')
    if args.output is None:
        print(render_layout(args.tool, values, args.namespace), end='')
        return 0
    outlive_output()
    path = write_layout(args.tool, values, args.namespace, args.output)
    print(OPEN[args.tool].format(path=path))
    return 0
