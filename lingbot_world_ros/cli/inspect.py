# SPDX-License-Identifier: Apache-2.0
"""
``lingbot-world inspect``: what is in a checkpoint or in a recording.

Of a checkpoint it tells whether it is whole and what it needs to run, of a recording what can be
learned from it and what is missing.
"""
import argparse
import json
import os
from pathlib import Path
from typing import Any, Dict, List, TYPE_CHECKING

from lingbot_world_ros.errors import shown, SpecError

if TYPE_CHECKING:
    from lingbot_world_ros.models.wan.checkpoint import Checkpoint, Expert

NAME = 'inspect'
HELP = ('show what a recording holds and what can be learned from it; or what a LingBot-World '
        'checkpoint is, what is missing, and the memory it needs')
ROLES = {  # of topics in a recording that may be chosen
    'image': 'topic of the images', 'depth': 'topic of the depth over them',
    'camera_info': 'topic of their intrinsics', 'command': 'topic of velocity commands',
    'joint_command': 'topic of joint commands', 'odometry': 'topic of the odometry',
    'joint_states': 'topic of the joint states', 'scan': 'topic of the laser scan'}
GPU_DECODER = 'fp16'  # as the engine decodes on a GPU
CLIP_LATENTS = 21  # 81 frames
WEIGHTS = '.safetensors', '.pt', '.pth', '.bin', '.index.json'
SHOWN_PRECISIONS = ('bf16', 'fp8', 'nf4')
PART_NAMES = {'weights': 'weights', 'kv_cache': 'cache of keys and values',
              'text_cache': 'cache of the prompt', 'camera_cache': 'cache of the camera',
              'vae': 'autoencoder', 'vae_work': 'autoencoder at work (estimate)',
              'work': 'network at work (estimate)', 'text_encoder': 'text encoder'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('path', metavar='PATH', help='bag (rosbag2 folder, .mcap, .db3), Donkey tub or LeRobot '
        'data set; or folder or file of a checkpoint, of which only headers are read')
    for role, text in ROLES.items():
        add(f'--{role.replace("_", "-")}', metavar='TOPIC', help=f'of a recording: {text}')
    add('--height', type=int, default=464, metavar='PX', help='height of the video (default: 464)')
    add('--width', type=int, default=832, metavar='PX', help='width of the video (default: 832)')
    add('--window', type=int, default=0, metavar='LATENTS',
        help="visible latent frames in total (default: the checkpoint's own)")
    add('--chunk', type=int, default=0, metavar='LATENTS',
        help="latent frames per step (default: the checkpoint's own)")
    add('--cache-in-8-bits', action='store_true', help='with keys and values in 8 bits')
    add('--keep-films', action=argparse.BooleanOptionalAction, default=True,
        help="keep the camera's part of every block, or recompute it in every pass")
    add('--tiny-decoder', action='store_true', help='with the small video decoder')
    add('--text-on-device', action='store_true', help='with the text encoder on the GPU')
    add('--json', action='store_true', help='print JSON')


def run(args: argparse.Namespace) -> int:
    """
    Look at headers and print.

    :param args: parsed arguments
    :return: 1 if weights are missing or damaged, or nothing can be learned from a recording, else
        0; missing companions are only told
    :raises SpecError: the path holds neither, a size cannot be used, or a topic is not there
    """
    from lingbot_world_ros.recording.sources import is_recording
    if is_recording(args.path):
        return _recording(args)
    from lingbot_world_ros.worlds.learned import learned_folder
    folder = learned_folder(args.path)
    if folder is not None:
        return _learned(folder, args)
    from lingbot_world_ros.models.wan.checkpoint import open_checkpoint
    path = os.path.expanduser(args.path)
    if args.path and not os.path.exists(path):
        raise SpecError(f'There is no such file or folder: {shown(args.path)}.')
    try:
        checkpoint = open_checkpoint(args.path)
    except SpecError as error:
        if not args.path:
            raise
        if os.path.isdir(path) and _has_weights(path):
            raise SpecError(f'{error} Nor is it a recording.') from error
        raise SpecError(
            f'{shown(args.path)} is no recording (a rosbag2 folder, an .mcap or .db3 file, a '
            'Donkey tub or a LeRobot data set), no learned world and no LingBot-World '
            'checkpoint.') from error
    report = describe(checkpoint, args)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0 if report['complete'] else 1


def _has_weights(folder: str) -> bool:
    """Tell whether a folder looks like a checkpoint that is not whole."""
    return any(name.endswith(WEIGHTS) or name == 'config.json' or name.endswith('_noise_model')
               for name in os.listdir(folder))


def _learned(folder: Path, args: argparse.Namespace) -> int:
    """Tell about a world of the user's own."""
    from lingbot_world_ros.worlds.learned import read_learned
    about = read_learned(folder, verify=True)
    if args.json:
        print(json.dumps({'path': str(folder), **about}, indent=2, default=str))
        return 0
    data = about.get('data') or {}
    print(f'{shown(args.path)} is a learned world: {about["name"]}, {about["kind"]}, '
          f'{about.get("rate_hz", 0):g} frames a second, from {data.get("recording", "?")}; its '
          'files are whole.')
    card = folder / 'README.md'
    print(f'\n{card.read_text().strip()}' if card.is_file() else '')
    return 0


def _recording(args: argparse.Namespace) -> int:
    from lingbot_world_ros.recording.bag import require_rosbags
    from lingbot_world_ros.recording import inspection
    require_rosbags()
    named = {role: getattr(args, role) for role in ROLES if getattr(args, role)}
    report = inspection.inspect_recording(args.path, named)
    print(json.dumps(report, indent=2) if args.json else inspection.as_text(report))
    return 0 if report['learn'] != inspection.NOTHING else 1


def describe(checkpoint: 'Checkpoint', args: argparse.Namespace) -> Dict[str, Any]:
    """
    Collect everything as plain data.

    :param checkpoint: opened
    :param args: parsed arguments, the sizes to compute memory for
    :return: what ``--json`` prints
    """
    experts = [_expert(expert) for expert in checkpoint.experts.values()]
    companions = {name: path and str(path) for name, path in vars(checkpoint.companions).items()}
    own = checkpoint.defaults
    return {
        'path': str(checkpoint.path), 'title': checkpoint.release.title, 'kind': checkpoint.kind,
        'layout': checkpoint.layout, 'control': checkpoint.control,
        'licence': checkpoint.release.licence, 'repository': checkpoint.release.repo,
        'complete': not any(e['missing_files'] or e['problems'] for e in experts),
        'experts': experts, 'companions': companions,
        'missing': [{'what': m.what, 'remedy': m.remedy} for m in checkpoint.missing],
        'stream': {**vars(own), 'step_indices': list(own.step_indices)}
        if 'causal' in checkpoint.kind else None,
        'memory': _memory(checkpoint, args)}


def _expert(expert: 'Expert') -> Dict[str, Any]:
    spec = expert.spec
    return {'name': expert.name, 'storage': expert.storage, 'num_tensors': expert.num_tensors,
            'num_quantised': len(expert.quantised), 'num_parameters': expert.num_parameters,
            'num_bytes': expert.num_bytes, 'num_files': len(expert.files),
            'missing_files': list(expert.missing_files),
            'problems': [] if expert.missing_files else expert.problems(),
            'spec': {name: getattr(spec, name) for name in spec.__dataclass_fields__}}


def _memory(checkpoint: 'Checkpoint', args: argparse.Namespace) -> Dict[str, Any]:
    """Of one stream; of a base model's clip of 81 frames, with one of its networks at a time."""
    from lingbot_world_ros.models.wan import memory
    from lingbot_world_ros.models.wan.spec import VideoSize
    streams = 'causal' in checkpoint.kind
    spec = checkpoint.expert('causal' if streams else next(iter(checkpoint.experts))).spec
    own = checkpoint.defaults
    sizes: Dict[str, Any] = {
        'size': VideoSize(args.height, args.width),
        'chunk_latents': (args.chunk or own.chunk_latents) if streams else CLIP_LATENTS,
        'window_latents': (args.window or own.window_latents) if streams else 0}
    _check(sizes, streams)
    by_precision = {}
    for precision in SHOWN_PRECISIONS:
        parts = memory.estimate(memory.Preset(
            spec, **sizes, precision=precision, vae=GPU_DECODER,
            keep_films=streams and args.keep_films,
            tiny_decoder=args.tiny_decoder, text_on_device=args.text_on_device,
            cache_in_8_bits=args.cache_in_8_bits))
        total = sum(parts.values())
        by_precision[precision] = {**parts, 'total': total, 'gpu': memory.smallest_gpu(total)}
    return {'height_px': args.height, 'width_px': args.width, 'streams': streams,
            'chunk_latents': sizes['chunk_latents'], 'window_latents': sizes['window_latents'],
            'text_encoder_bytes': memory.text_encoder_bytes(), 'bytes': by_precision}


def _check(sizes: Dict[str, Any], streams: bool) -> None:
    chunk, window = sizes['chunk_latents'], sizes['window_latents']
    if chunk < 1 or streams and window < chunk:
        raise SpecError(f'chunk {chunk} and window {window}: a chunk has at least one latent '
                        'frame, and the window holds the chunk too.')


def as_text(report: Dict[str, Any]) -> str:
    """
    Write the report for a person.

    :param report: from ``describe``
    :return: lines
    """
    control = {'none': 'no camera'}.get(report['control'], f'{report["control"]} control')
    lines = [f'{report["title"]} ({report["kind"]}, {control})', f'  path        {report["path"]}',
             f'  layout      {report["layout"]}', f'  repository  {report["repository"]}',
             f'  licence     {report["licence"]}', '', 'Networks']
    for expert in report['experts']:
        lines += _expert_lines(expert)
    if report['stream']:
        own = report['stream']
        steps = ', '.join(map(str, own['step_indices']))
        lines += ['', f'Streams in chunks of {own["chunk_latents"]} latent frames, window '
                  f'{own["window_latents"]} of which {own["sink_latents"]} stay, steps {steps}, '
                  f'shift {own["shift"]:g}']
    lines += ['', 'Beside it'] + [f'  {name.replace("_", " "):13s} {path or "not found"}'
                                  for name, path in report['companions'].items()]
    if report['missing']:
        lines += ['', 'Missing'] + [line for m in report['missing']
                                    for line in (f'  {m["what"]}', f'      -> {m["remedy"]}')]
    return '\n'.join(lines + _memory_lines(report['memory']))


def _expert_lines(expert: Dict[str, Any]) -> List[str]:
    spec = expert['spec']
    quantised = f', {expert["num_quantised"]} quantised' if expert['num_quantised'] else ''
    lines = [f'  {expert["name"]}: {expert["num_parameters"] / 1e9:.3f} B parameters, '
             f'{expert["num_tensors"]} tensors{quantised}, {expert["storage"]}, '
             f'{expert["num_bytes"] / 1e9:.2f} GB in {expert["num_files"]} files',
             f'      width {spec["dim"]}, {spec["num_layers"]} blocks, {spec["num_heads"]} heads']
    lines += [f'      {text}' for text in expert['problems']]
    if expert['missing_files']:
        lines.append(f'      {len(expert["missing_files"])} files are missing, see below')
    return lines


def _memory_lines(memory: Dict[str, Any]) -> List[str]:
    what = (f'chunk {memory["chunk_latents"]}, window {memory["window_latents"]} latent frames'
            if memory['streams'] else '81 frames, one network at a time')
    columns = memory['bytes']
    lines = ['', f'Memory on the GPU at {memory["width_px"]} x {memory["height_px"]}, {what} [GB]',
             f'  {"":32s}' + ''.join(f'{precision:>8s}' for precision in columns)]
    for part, name in {**PART_NAMES, 'total': 'together'}.items():
        values = [column[part] for column in columns.values()]
        if any(values):
            lines.append(f'  {name:32s}' + ''.join(f'{value / 1e9:8.2f}' for value in values))
    lines += [f'  {precision} fits a GPU of: {column["gpu"]}'
              for precision, column in columns.items()]
    if not columns['bf16']['text_encoder']:
        lines.append(f'  the text encoder takes {memory["text_encoder_bytes"] / 1e9:.2f} GB of '
                     'RAM while a new prompt is read')
    return lines
