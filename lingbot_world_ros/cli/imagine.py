# SPDX-License-Identifier: Apache-2.0
"""``lingbot-world imagine``: a video from an image, a prompt and a camera path, offline."""
import argparse
import sys
from typing import Any, Callable, Iterator, Optional, TYPE_CHECKING

from lingbot_world_ros.output import outlive_output

if TYPE_CHECKING:
    from lingbot_world_ros.actions.camera_path import CameraPath
    from lingbot_world_ros.models.wan.offline import VideoRequest
    from lingbot_world_ros.models.wan.schedule import BaseRecipe
    import numpy as np

NAME = 'imagine'
HELP = 'render a video with LingBot-World offline, without ROS'
DEFAULT_FRAMES = 81
ANY_VIEW_DEG = 90.0  # what is cut out of an image whose camera is not known does not depend on it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the arguments.

    :param parser: argparse parser of this verb
    """
    add = parser.add_argument
    add('--checkpoint', required=True, metavar='PATH',
        help='folder or file of a LingBot-World checkpoint, base or causal')
    add('--image', required=True, metavar='FILE', help='start image, PNG or JPEG')
    add('--prompt', required=True, metavar='TEXT', help='what the world looks like')
    add('--out', required=True, metavar='FILE',
        help='name of an .mp4 file, or of a folder for PNG pictures')
    path = parser.add_mutually_exclusive_group()
    path.add_argument('--poses', metavar='FOLDER', help='camera path: folder with poses.npy '
                      '(n, 4, 4), camera-to-world, and optionally intrinsics.npy')
    path.add_argument('--keys', metavar='TEXT', help='camera path by keys: w a s d move, i j k l '
                      "turn, for so many frames each, for example 'w-20,wl-10,none-5'")
    add('--mode', default='auto', help='base: whole clips, slow; causal: a stream; auto: causal '
        'if the checkpoint has it (default: auto)')
    add('--frames', type=int, metavar='N', help=f'frames at 16 Hz (default: {DEFAULT_FRAMES}, or '
        'the length of the camera path if that is shorter)')
    add('--seed', type=int, default=0, help='seed of the noise (default: 0)')
    add('--size', default='480p', help='480p or 720p in the aspect ratio of the image, or '
        'HEIGHTxWIDTH, to which the image is cropped (default: 480p)')
    _add_base_arguments(parser.add_argument_group('base mode').add_argument)
    _add_model_arguments(parser.add_argument_group('models').add_argument)


def _add_base_arguments(add: Callable[..., Any]) -> None:
    add('--steps', type=int, help='denoising steps (default: 70)')
    add('--guidance', type=float, help='weight of the prompt (default: 5)')
    add('--negative-prompt', metavar='TEXT', help='what to avoid (default: a list of '
        'flaws, which also names people and cars: give another one if you want them)')
    add('--clip-frames', type=int, default=0, metavar='N', help='make the video from clips of N '
        'frames, each beginning with the last frame of the previous one (default: one clip)')
    add('--offload', action='store_true', default=None,
        help='keep one of the two networks in memory at a time (default: if both do not fit)')


def _add_model_arguments(add: Callable[..., Any]) -> None:
    add('--device', default='auto', help='cuda, cuda:1, cpu, or auto: cuda (default: auto)')
    add('--precision', default='bf16', help='bf16, fp8, nf4 or fp32 (default: bf16)')
    add('--attention', default='auto', help='attention back end (default: auto)')
    add('--vae', default='', metavar='FILE', help='default: beside the checkpoint')
    add('--tiny-decoder', default='', metavar='FILE',
        help='TAEHV weights that decode instead of the VAE, faster and softer (default: none)')
    add('--text-encoder', default='', metavar='FILE', help='default: beside the checkpoint')
    add('--tokenizer', default='', metavar='FOLDER', help='default: beside the checkpoint')
    add('--t5-device', default='cpu', help='where the text encoder runs (default: cpu)')
    add('--cache-dir', default='', metavar='FOLDER', help='where encoded prompts are kept '
        '(default: ~/.cache/lingbot_world_ros)')


def run(args: argparse.Namespace) -> int:
    """
    Imagine the video and write it.

    :param args: parsed arguments
    :return: exit code
    :raises SpecError: for arguments, files or a machine that cannot be used
    """
    outlive_output()
    from lingbot_world_ros.actions.camera_path import FRAME_RATE_HZ
    from lingbot_world_ros.models.wan.clip_file import check_target, write_clip
    from lingbot_world_ros.progress import Progress
    out = check_target(args.out)
    with Progress() as progress:
        written = write_clip(out, _frames(args, progress.show), FRAME_RATE_HZ)
    if written.is_folder and out.suffix:
        print(f'OpenCV cannot write {out.suffix} here, so the frames are written as pictures.',
              file=sys.stderr)
    print(f'Written: {written.path} ({written.num_frames} frames at {FRAME_RATE_HZ:g} Hz)')
    return 0


def _frames(args: argparse.Namespace, show: Callable[..., None]) -> Iterator['np.ndarray']:
    """Return a generator of frames, after a look at everything that may be wrong."""
    _require_packages()
    from lingbot_world_ros.models.wan.build import ModelOptions
    from lingbot_world_ros.models.wan.checkpoint import open_checkpoint
    from lingbot_world_ros.models.wan.offline import choose_mode, imagine
    options = ModelOptions(**{name: getattr(args, name) for name in (
        'checkpoint', 'vae', 'text_encoder', 'tokenizer', 'tiny_decoder', 'device', 't5_device',
        'precision', 'attention', 'cache_dir')})
    request, recipe = _request(args), _recipe(args)
    checkpoint = open_checkpoint(args.checkpoint)
    mode = choose_mode(checkpoint, args.mode)
    _check_mode(args, mode)
    return imagine(checkpoint, options, request, mode, show, recipe, args.offload)


def _request(args: argparse.Namespace) -> 'VideoRequest':
    from lingbot_world_ros.models.wan.camera_image import read_image, seen_by, stream_camera
    from lingbot_world_ros.models.wan.offline import (AREAS_PX, parse_size, usable_frames,
                                                      VideoRequest)
    path = _path(args)
    rgb = read_image(args.image)
    size = parse_size(args.size, rgb)
    if args.size not in AREAS_PX:
        rgb = seen_by(stream_camera(size, ANY_VIEW_DEG), rgb)
    frames = args.frames if args.frames is not None else DEFAULT_FRAMES
    if args.frames is None and path is not None:
        frames = min(frames, usable_frames(path))
    return VideoRequest(rgb, args.prompt, size, frames, path, args.seed, args.clip_frames)


def _path(args: argparse.Namespace) -> Optional['CameraPath']:
    from lingbot_world_ros.actions.camera_path import keys_to_path, read_camera_path
    if args.keys is not None:
        return keys_to_path(args.keys)
    return None if args.poses is None else read_camera_path(args.poses)


def _recipe(args: argparse.Namespace) -> 'BaseRecipe':
    """Arguments given win over the defaults of the recipe."""
    from lingbot_world_ros.models.wan.schedule import BaseRecipe
    given = {'num_steps': args.steps, 'guidance_high': args.guidance,
             'guidance_low': args.guidance, 'negative_prompt': args.negative_prompt}
    return BaseRecipe(**{name: value for name, value in given.items() if value is not None})


def _check_mode(args: argparse.Namespace, mode: str) -> None:
    """Refuse arguments that would have no effect."""
    from lingbot_world_ros.errors import SpecError
    if mode == 'base':
        return
    given = {'--steps': args.steps, '--guidance': args.guidance,
             '--negative-prompt': args.negative_prompt, '--clip-frames': args.clip_frames or None,
             '--offload': args.offload}
    useless = [name for name, value in given.items() if value is not None]
    if useless:
        raise SpecError(f'{", ".join(useless)} {"has" if len(useless) == 1 else "have"} no effect '
                        'in causal mode; leave out, or choose --mode base.')


def _require_packages() -> None:
    """Say what to install before anything is imported that needs it."""
    from importlib.util import find_spec
    from lingbot_world_ros.errors import SpecError
    from lingbot_world_ros.paths import pip_install
    missing = [name for name in ('torch', 'safetensors', 'cv2', 'tqdm') if find_spec(name) is None]
    if missing:
        raise SpecError(f'imagine needs {", ".join(missing)}; install what '
                        'requirements/lingbot.txt lists: '
                        f'{pip_install("-r requirements/lingbot.txt")}')
