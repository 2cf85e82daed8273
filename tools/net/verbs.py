# SPDX-License-Identifier: Apache-2.0
"""Verbs of the command line that make files: what is in them."""
from contextlib import ExitStack
import json
from pathlib import Path
import time

from client import World
from interface import texts
import numpy as np
from record_of import digest_of
from ros_domain import Domain
from scenarios import base_commands, picture, scenario, sim_command
from sim import verb_command

SIZE = '64x96'
IMAGINE = {'--prompt': 'a quiet street', '--size': SIZE, '--device': 'cpu', '--precision': 'fp32'}


def picture_of(path) -> str:
    """Return digest, shape and mean of a picture's pixels."""
    from PIL import Image
    rgb = np.asarray(Image.open(path))
    return f'{path.name} {digest_of(rgb.tobytes())} {rgb.shape} mean={rgb.mean():.6f}'


def folder_of(path: Path) -> list:
    """Return what the pictures of a folder are."""
    return [picture_of(file) for file in sorted(path.glob('*.png'))]


def clips(stage, checkpoint, runs) -> dict:
    """
    Imagine clips into folders of pictures.

    :param checkpoint: name of a tiny checkpoint
    :param runs: label -> arguments
    :return: the record
    """
    from PIL import Image
    Image.fromarray(picture(90, 160)).save(stage.work / 'start.png')
    told = {}
    for label, arguments in runs.items():
        options = [part for pair in IMAGINE.items() for part in pair]
        told[label] = texts(stage, {label: [
            'imagine', '--checkpoint', stage.checkpoint(checkpoint), '--image',
            stage.work / 'start.png', '--cache-dir', stage.work / 'cache', '--out',
            stage.work / label, *options, *arguments]}, 300.0)[label]
        told[label] = [line for line in told[label] if 'Written' in line or 'code' in line
                       or 'error' in line]
        told[f'{label}: frames'] = folder_of(stage.work / label)
    return {'texts': told}


@scenario('verbs/imagine_base', needs=('base',))
def verbs_imagine_base(stage):
    """Whole clips of the base model."""
    return clips(stage, 'base', {
        'one clip': ['--steps', '4', '--frames', '13', '--keys', 'w-6,wl-4,none-2'],
        'two clips': ['--steps', '2', '--frames', '17', '--clip-frames', '9', '--offload',
                      '--seed', '2', '--guidance', '2.5', '--negative-prompt', 'rain'],
        'causal': ['--mode', 'causal']})


@scenario('verbs/imagine_causal', needs=('causal',))
def verbs_imagine_causal(stage):
    """A clip of the fast model."""
    return clips(stage, 'causal', {
        'keys': ['--frames', '25', '--keys', 'w-10,ja-14'],
        'useless': ['--steps', '4']})


@scenario('verbs/checkpoints', needs=('causal', 'causal_v2', 'base'))
def verbs_checkpoints(stage):
    """What is told of checkpoints, and a copy in 4 bits."""
    told = texts(stage, {
        **{f'inspect {name}': ['inspect', stage.checkpoint(name)]
           for name in ('causal', 'causal_v2', 'base')},
        'inspect, JSON': ['inspect', stage.checkpoint('causal'), '--json', '--height', '352',
                          '--width', '640', '--window', '9', '--cache-in-8-bits',
                          '--no-keep-films', '--tiny-decoder', '--text-on-device'],
        'quantise': ['quantise', stage.checkpoint('base'), stage.work / 'nf4'],
        'quantise one': ['quantise', stage.checkpoint('base'), stage.work / 'one', '--expert',
                         'low_noise'],
        'inspect NF4': ['inspect', stage.work / 'nf4']}, 300.0)
    for label in told:  # how long it took, and what this machine has
        told[label] = [line for line in told[label]
                       if not line.startswith(('This machine', 'Written in'))]
    for path in sorted((stage.work / 'nf4').rglob('*')):
        if path.suffix == '.safetensors':
            told[str(path.relative_to(stage.work))] = tensors_of(path)
        elif path.suffix == '.json':
            told[str(path.relative_to(stage.work))] = path.read_text().splitlines()
    return {'texts': told}


def tensors_of(path) -> list:
    """Return digest, type and shape of each tensor of a file."""
    from safetensors.torch import load_file
    import torch
    return [f'{name} {digest_of(tensor.contiguous().view(torch.uint8).numpy().tobytes())} '
            f'{tensor.dtype} {tuple(tensor.shape)}'
            for name, tensor in sorted(load_file(path).items())]


@scenario('verbs/record')
def verbs_record(stage):
    """A world is recorded, the recording replayed, and a report made of it."""
    command = sim_command('--scene', 'office', '--seed', '3')
    told = {}
    with Domain() as stage.domain, stage.program(command) as program:
        world = World(stage.domain)
        try:
            world.begin(program)
            recorder = stage.program(verb_command('record', '-o', str(stage.work / 'bag'),
                                                  '--images', 'compressed', '--reset'))
            with recorder:
                count = world.streams['world_spec'].count
                world.wait(lambda: world.streams['world_spec'].count > count, 'the reset')
                world.quiet(1.0)
                world.sim_ns = world.period_ns
                base_commands(world)
                world.quiet(1.0)
                told['record: exit code'] = [str(recorder.end())]
        finally:
            world.close()
    told.update(texts(stage, {'verify': ['replay', stage.work / 'bag', '--verify'],
                              'report': ['report', stage.work / 'bag', '--engine', 'none', '-o',
                                         stage.work / 'report.html']}, 300.0))
    told['verify'] = [line for line in told['verify'] if 'same' in line or 'code' in line]
    told['report'] = [line for line in told['report'] if 'code' in line or 'error' in line]
    told['bag'] = bag_of(stage.work / 'bag')
    return {'texts': told}


def bag_of(folder) -> list:
    """Return the topics of a recording, their types and how many messages there are of each."""
    from rosbags.highlevel import AnyReader
    with AnyReader([folder]) as reader:
        found = [f'{c.topic} {c.msgtype}' + (
            f' {c.msgcount}' if c.topic.endswith(('odom', 'compressed', 'joint_states')) else '')
            for c in reader.connections]
    return sorted(found)


@scenario('verbs/evaluate')
def verbs_evaluate(stage):
    """A small evaluation of the engine room."""
    out = stage.work / 'evaluation'
    told = texts(stage, {'evaluate': ['evaluate', '--quick', '--sequences', '3', '--trials', '2',
                                      '--horizons', '1', '5', '--out', out]}, 500.0)
    values = json.loads((out / 'evaluation.json').read_text())
    for key in ('seconds', 'made_by'):
        values.pop(key, None)
    told['evaluate'] = [line for line in told['evaluate'] if 'code' in line]
    return {'texts': told, 'values': values}


@scenario('verbs/follow')
def verbs_follow(stage):
    """The engine room follows the reference world under another name."""
    from nav_msgs.msg import Odometry
    from sensor_msgs.msg import Image
    begin_s = time.monotonic()
    with Domain() as stage.domain, \
            stage.program(sim_command('--engine', 'reference')) as program, ExitStack() as stack:
        world = World(stage.domain, folders=stage.folders)
        world.listen('copy_odom', Odometry, 'copy/odom')
        world.listen('copy_image', Image, 'copy/camera/image_raw')
        try:
            world.begin(program)
            follower = stack.enter_context(stage.program(verb_command(
                'follow', '--engine', 'room', '--as', 'copy', '--reset')))
            world.wait(lambda: world.streams['copy_image'].count or follower.code is not None,
                       f'the copy, after {time.monotonic() - begin_s:.0f} s: {follower.lines}')
            world.quiet(1.0)
            for stream in world.streams.values():
                stream.forget()
            world.sim_ns = world.streams['odom'].stamp
            for n in range(6):
                world.twist(0.3, 0.2 * n)
                world.step()
                world.wait(lambda: world.streams['copy_image'].stamp == world.sim_ns, 'the copy')
            record = world.end()
        finally:
            world.close()
        record['exit code'] = [follower.end(), program.end()]
    return record
