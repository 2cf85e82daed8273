# SPDX-License-Identifier: Apache-2.0
"""
Videos offline, from files to frames, with either kind of checkpoint.

Base checkpoints make whole clips, causal ones a stream. Translations of a camera path are scaled
so that the longest between latent frames is 1, as in training; the path's unit does not matter.
"""
from dataclasses import dataclass
import re
from typing import Callable, Iterator, Optional

from lingbot_world_ros.actions.camera_path import (CameraPath, FRAMES_PER_LATENT, MAX_FRAMES,
                                                   video_camera)
from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.attention import resolve
from lingbot_world_ros.models.wan.base import BaseClips, ClipRequest, Experts
from lingbot_world_ros.models.wan.build import (check_memory, companion, load_models, load_network,
                                                load_text, ModelOptions)
from lingbot_world_ros.models.wan.camera import clip_keys, clip_steps
from lingbot_world_ros.models.wan.checkpoint import checked_expert, Checkpoint
from lingbot_world_ros.models.wan.condition import resize_image
from lingbot_world_ros.models.wan.device import torch_device
from lingbot_world_ros.models.wan.dit import WanDiT
from lingbot_world_ros.models.wan.kv_cache import WindowSpec
from lingbot_world_ros.models.wan.memory import check_room, dit_bytes, estimate, free_bytes, Preset
from lingbot_world_ros.models.wan.releases_and_licences import CAUSAL, HIGH, LOW
from lingbot_world_ros.models.wan.schedule import BaseRecipe, FewStepSchedule
from lingbot_world_ros.models.wan.spec import num_latents, size_for_image, VideoSize
from lingbot_world_ros.models.wan.stream import CausalStream, StreamSpec
from lingbot_world_ros.models.wan.tiny_vae import load_tiny_vae
from lingbot_world_ros.models.wan.vae_file import load_vae
import numpy as np
import torch
from torch import Tensor

MODES = ('auto', 'base', 'causal')
SEEDS = 2 ** 31
AREAS_PX = {'480p': 480 * 832, '720p': 720 * 1280}
Show = Callable[[str, int, int], None]  # what is done, done, of how many


@dataclass(frozen=True)
class VideoRequest:
    """
    What is to be imagined.

    ``rgb`` (H, W, 3) uint8 is the start image, ``path`` the camera's at 16 Hz, None stays where it
    is. ``clip_frames`` (4n + 1, base only) are the frames of one clip, 0 makes a single one.
    """

    rgb: np.ndarray
    prompt: str
    size: VideoSize
    num_frames: int
    path: Optional[CameraPath] = None
    seed: int = 0
    clip_frames: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no video has."""
        if not 1 <= self.num_frames <= MAX_FRAMES:
            raise SpecError(f'{self.num_frames} frames: use at least 1 and at most {MAX_FRAMES}.')
        if not 0 <= self.seed < SEEDS:
            raise SpecError(f'seed {self.seed}: use 0 to {SEEDS - 1}.')
        if self.clip_frames and num_latents(self.clip_frames) < 2:
            raise SpecError(f'clips of {self.clip_frames} frames cannot follow each other; use at '
                            'least 5.')

    @property
    def camera(self) -> PinholeCamera:
        """Return the camera whose image the video is."""
        intrinsics = None if self.path is None else self.path.intrinsics
        return video_camera(intrinsics, self.size.width_px, self.size.height_px)

    def steps(self, latents: int) -> np.ndarray:
        """
        Return the camera's pose in each latent frame seen from the one before.

        :param latents: f; the camera rests after the end of its path
        :return: (f, 4, 4) float64, world units
        """
        steps = np.tile(np.eye(4), (latents, 1, 1))
        if self.path is not None:
            frames = min(FRAMES_PER_LATENT * (latents - 1) + 1, usable_frames(self.path))
            found = clip_steps(self.path, frames)
            steps[:len(found)] = found
        return steps


def usable_frames(path: CameraPath) -> int:
    """Return the largest 4n + 1 that a path has frames for."""
    return len(path) - (len(path) - 1) % FRAMES_PER_LATENT


def parse_size(text: str, rgb: np.ndarray) -> VideoSize:
    """
    Understand the size a user asks for.

    :param text: ``480p`` or ``720p``, the area in the image's shape, or ``464x832``, height and
        width
    :param rgb: (H, W, 3) start image
    :return: size of the video
    :raises SpecError: none of these
    """
    if text in AREAS_PX:
        height, width = rgb.shape[:2]
        return size_for_image(height, width, AREAS_PX[text])
    sides = re.fullmatch('([0-9]{1,5})x([0-9]{1,5})', text)
    if not sides:
        raise SpecError(f'size {quoted(text)} is neither {" nor ".join(AREAS_PX)} nor '
                        'HEIGHTxWIDTH in pixels, for example 464x832.')
    return VideoSize(*map(int, sides.groups()))


def choose_mode(checkpoint: Checkpoint, mode: str = 'auto') -> str:
    """
    Decide what kind of video a checkpoint makes.

    :param checkpoint: opened
    :param mode: base, causal, or auto: causal where there is such a network, as it is faster
    :return: 'base' or 'causal'
    :raises SpecError: the checkpoint cannot do what is asked for
    """
    if mode not in MODES:
        raise unknown_name('mode', mode, MODES)
    if mode == 'causal' or (mode == 'auto' and CAUSAL in checkpoint.experts):
        checkpoint.streamed_expert()
        return 'causal'
    missing = [name for name in (HIGH, LOW) if name not in checkpoint.experts]
    if missing:
        raise SpecError(f'{checkpoint.path} lacks {" and ".join(missing)}, of the two networks '
                        'that make base clips; use mode causal or download both.')
    return 'base'


def imagine(checkpoint: Checkpoint, options: ModelOptions, request: VideoRequest, mode: str,
            show: Show, recipe: BaseRecipe = BaseRecipe(),
            offload: Optional[bool] = None) -> Iterator[np.ndarray]:
    """
    Imagine a video.

    :param checkpoint: opened
    :param options: files, devices, precision
    :param request: what
    :param mode: from ``choose_mode``
    :param show: called with the progress
    :param recipe: how base clips are sampled
    :param offload: keep one of the two base networks in memory at a time; None does so where both
        do not fit
    :return: generator of frames (T, H, W, 3) uint8, clip by clip or chunk by chunk
    :raises SpecError: files, memory or device do not allow it
    """
    try:
        if mode == 'base':
            yield from _base_video(checkpoint, options, request, recipe, offload, show)
        else:
            yield from _causal_video(checkpoint, options, request, show)
    except torch.OutOfMemoryError as error:
        raise SpecError(f'{str(error).splitlines()[0]} Choose precision nf4, a smaller size or '
                        'shorter clips.') from error
    except FloatingPointError as error:
        raise SpecError(f'{error}; try precision bf16 or fp32, or another seed.') from error


def _base_video(checkpoint: Checkpoint, options: ModelOptions, request: VideoRequest,
                recipe: BaseRecipe, offload: Optional[bool], show: Show) -> Iterator[np.ndarray]:
    """Check all that can be checked before hours of work, then make clips."""
    total = num_latents(request.num_frames)
    per_clip = num_latents(request.clip_frames) if request.clip_frames else total
    device = torch_device(options.device)
    for name in (HIGH, LOW):
        checked_expert(checkpoint, name)
    attend = resolve(options.attention, device, _dtype(options)).call
    room = _Room(checkpoint, options, request.size, min(total, per_clip), device)
    image = resize_image(request.rgb, request.size)
    vae = load_vae(companion(checkpoint, options, 'vae'), device)
    decoder = load_tiny_vae(options.tiny_decoder, device) if options.tiny_decoder else vae
    made = _clip_request(checkpoint, options, request, image, recipe, total)

    def load(name: str) -> WanDiT:
        dit = load_network(checkpoint, options, name, lambda done, of: show(
            f'loading {name.replace("_", " ")}', done, of))
        dit.attend, dit.keep_films = attend, options.keep_films and room.keeps_films()
        return dit

    experts = Experts(load, room.is_short if offload is None else offload)
    clips = BaseClips(experts, vae, request.size, request.camera, recipe=recipe,
                      decoder=decoder, device=device)
    for report in clips.clips(made, max(per_clip, 2)):
        show(f'clip {report.clip + 1}', report.step, report.num_steps)
        if report.frames is not None:
            yield report.frames


def _causal_video(checkpoint: Checkpoint, options: ModelOptions, request: VideoRequest,
                  show: Show) -> Iterator[np.ndarray]:
    """Stream, and cut the video out of the stream."""
    own = checkpoint.defaults
    spec = StreamSpec(request.size,
                      WindowSpec(own.chunk_latents, own.window_latents, own.sink_latents),
                      FewStepSchedule.from_indices(own.step_indices, own.shift))
    check_memory(checkpoint, options, spec)
    models = load_models(checkpoint, options, CAUSAL, lambda done, of: show('loading', done, of))
    stream = CausalStream(models.dit, models.vae, spec, request.camera,
                          decoder=models.decoder)
    image = resize_image(request.rgb, request.size).to(models.dit.device)
    stream.start(image, models.text.encode(request.prompt), request.seed)
    chunk, left = own.chunk_latents, request.num_frames
    num_chunks = -(-(left + FRAMES_PER_LATENT - 1) // (FRAMES_PER_LATENT * chunk))
    steps = request.steps(num_chunks * chunk)
    for i in range(num_chunks):
        frames = stream.next_chunk(steps[i * chunk:(i + 1) * chunk])[:left].cpu().numpy()
        left -= len(frames)
        show('chunk', i + 1, num_chunks)
        yield frames


def _dtype(options: ModelOptions) -> torch.dtype:
    return torch.float32 if options.precision == 'fp32' else torch.bfloat16


def _clip_request(checkpoint: Checkpoint, options: ModelOptions, request: VideoRequest,
                  image: Tensor, recipe: BaseRecipe, total: int) -> ClipRequest:
    """Encode both prompts; the text encoder is not needed afterwards."""
    encoder = load_text(checkpoint, options)
    text, negative = map(encoder.encode, (request.prompt, recipe.negative_prompt))
    encoder.release()
    keys = None
    if request.path is not None and request.path.keys is not None:
        found = clip_keys(request.path, min(request.num_frames, usable_frames(request.path)))
        keys = np.zeros((total, found.shape[1]), np.float32)
        keys[:len(found)] = found
    return ClipRequest(image, text, negative, request.steps(total), request.seed, keys)


class _Room:
    """What a clip takes in memory, and what is free for it."""

    def __init__(self, checkpoint: Checkpoint, options: ModelOptions, size: VideoSize,
                 latents: int, device: torch.device) -> None:
        self._precision, self._spec = options.precision, checkpoint.expert(HIGH).spec
        self._device = device
        parts = estimate(Preset(self._spec, size, options.precision, latents, window_latents=0,
                                keep_films=False))
        self._needed = sum(parts.values())
        self._films = parts['camera_cache'] * self._spec.num_layers
        check_room(self._needed, device, f'a clip of {latents} latent frames at '
                   f'{size.height_px} x {size.width_px} in {options.precision}')
        weights = dit_bytes(self._spec, options.precision)
        self.is_short = free_bytes(device) < self._needed + weights

    def keeps_films(self) -> bool:
        """Tell whether every block's camera part fits beside a network that is loaded."""
        weights = dit_bytes(self._spec, self._precision)
        return free_bytes(self._device) > self._needed - weights + self._films
