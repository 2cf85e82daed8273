# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world quantise``: a copy of a checkpoint's networks in 4 bits (NF4)."""
import argparse
from functools import partial
from pathlib import Path

from lingbot_world_ros.output import outlive_output

NAME = 'quantise'
HELP = 'write a copy of a LingBot-World network in 4 bits (NF4), a quarter of bfloat16'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('path', metavar='PATH', help='folder or file of a checkpoint')
    add('out', metavar='FOLDER', type=Path, help='folder of the copy; a base model gets a '
        'subfolder for each of its two networks')
    add('--expert', default='', help='high_noise, low_noise or causal (default: all)')
    add('--device', default='cpu', help='where to quantise; the result is the same, cuda is '
        'faster (default: cpu)')


def run(args: argparse.Namespace) -> int:
    """
    Write the copies, one tensor after another.

    :param args: parsed arguments
    :return: 0
    :raises SpecError: the checkpoint is incomplete, the device is not there, or the folder cannot
        be written
    """
    outlive_output()
    from lingbot_world_ros.models.wan.checkpoint import checked_expert, open_checkpoint
    from lingbot_world_ros.models.wan.nf4_file import FOLDERS, save_nf4
    from lingbot_world_ros.models.wan.releases_and_licences import CAUSAL
    from lingbot_world_ros.progress import Progress
    checkpoint = open_checkpoint(args.path)
    names = [args.expert] if args.expert else list(checkpoint.experts)
    for name in names:  # before any is written
        checked_expert(checkpoint, name)
    for name in names:
        folder = args.out if names == [CAUSAL] else args.out / FOLDERS[name]
        with Progress() as progress:
            path = save_nf4(checkpoint, folder, name, args.device,
                            partial(progress.show, name))
        print(f'Written: {path} ({path.stat().st_size / 1e9:.2f} GB)')
    return 0
