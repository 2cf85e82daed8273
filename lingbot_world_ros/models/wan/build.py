# SPDX-License-Identifier: Apache-2.0
"""
From files to models: the network, the autoencoder, the text encoder, ready on their devices.

What cannot work is told before anything large is read.
"""
from dataclasses import dataclass, replace
from functools import partial
import logging
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Tuple, TYPE_CHECKING, Union

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.geometry.camera import PinholeCamera
from lingbot_world_ros.models.wan.attention import AttentionBackend, resolve
from lingbot_world_ros.models.wan.checkpoint import Checkpoint, open_checkpoint
from lingbot_world_ros.models.wan.codec import VideoCodec, VideoDecoder
from lingbot_world_ros.models.wan.device import torch_device
from lingbot_world_ros.models.wan.dit import WanDiT
from lingbot_world_ros.models.wan.load import load_dit
from lingbot_world_ros.models.wan.memory import check_room, estimate, Preset
from lingbot_world_ros.models.wan.releases_and_licences import CAUSAL
from lingbot_world_ros.models.wan.stream import CausalStream, StreamSpec
from lingbot_world_ros.models.wan.text import load_text_encoder, TextEncoder
from lingbot_world_ros.models.wan.tiny_vae import load_tiny_vae, TinyVAE
from lingbot_world_ros.models.wan.vae import WanVAE
from lingbot_world_ros.models.wan.vae_file import load_vae
import torch

if TYPE_CHECKING:
    from lingbot_world_ros.models.wan.parallel import ParallelStream

LOG = logging.getLogger(__name__)
PRECISIONS = ('bf16', 'fp8', 'nf4', 'fp32')
WHAT = {'vae': 'the video autoencoder', 'tokenizer': "the text encoder's tokenizer"}


@dataclass(frozen=True)
class ModelOptions:
    """
    Which files, where and how; parameters ``lingbot.*`` of the node.

    '' is looked for beside the checkpoint. ``tiny_decoder`` is a TAEHV file that takes the place
    of the autoencoder's decoder. ``compile`` lets PyTorch compile the blocks, which takes a
    minute at the start. ``keep_films`` False computes the camera's part in every pass.
    ``num_gpus`` share the work from ``device`` on, each with the whole network; ``decoder_device``
    is where images are encoded and decoded, '' is ``device``.
    """

    checkpoint: str = ''
    vae: str = ''
    text_encoder: str = ''
    tokenizer: str = ''
    tiny_decoder: str = ''
    device: str = 'auto'
    t5_device: str = 'cpu'
    precision: str = 'bf16'
    attention: str = 'auto'
    compile: bool = False
    keep_films: bool = True
    num_gpus: int = 1
    decoder_device: str = ''
    cache_dir: str = ''

    def __post_init__(self) -> None:
        """Refuse what no model can be loaded with."""
        if not self.checkpoint:
            raise SpecError('lingbot.checkpoint is empty; set it to the folder of a LingBot-World '
                            'checkpoint (docs/lingbot_world.md tells how to download one).')
        if self.precision not in PRECISIONS:
            raise unknown_name('precision', self.precision, PRECISIONS)


class Models(NamedTuple):
    """All that a stream needs; ``decoder`` turns latents into video."""

    name: str
    dit: WanDiT
    vae: VideoCodec
    decoder: VideoDecoder
    text: TextEncoder


def load_models(checkpoint: Checkpoint, options: ModelOptions, expert: str = CAUSAL,
                on_progress: Optional[Callable[[int, int], None]] = None) -> Models:
    """
    Load everything for one network of a checkpoint.

    :param checkpoint: opened
    :param options: files and devices
    :param expert: causal, high_noise or low_noise
    :param on_progress: called with bytes read and bytes in all of the network
    :return: the models, for inference
    :raises SpecError: a file is missing or damaged, memory or the device does not allow it
    """
    _attention(options)
    vae, decoder = load_codec(checkpoint, options)
    text = load_text(checkpoint, options)
    dit = load_network(checkpoint, options, expert, on_progress)
    return Models(f'{checkpoint.release.title} ({options.precision})', dit, vae, decoder, text)


def load_codec(checkpoint: Checkpoint, options: ModelOptions) -> Tuple[VideoCodec, VideoDecoder]:
    """
    Load what encodes images and what decodes latents.

    :param checkpoint: opened
    :param options: files and device
    :return: the autoencoder, and the decoder, which may be the same
    """
    device = torch_device(options.device)
    place = torch_device(options.decoder_device) if options.decoder_device else device
    dtype = _dtype(decoder_precision(place))
    vae = load_vae(companion(checkpoint, options, 'vae'), place, dtype)
    decoder: Union[WanVAE, TinyVAE] = vae
    if options.tiny_decoder:
        decoder = load_tiny_vae(options.tiny_decoder, place, dtype)
    if place == device:
        return vae, decoder
    from lingbot_world_ros.models.wan.parallel import OnDevice
    return OnDevice(vae, place), OnDevice(decoder, place)


def build_stream(options: ModelOptions, models: Models, spec: StreamSpec,
                 camera: PinholeCamera) -> Union[CausalStream, 'ParallelStream']:
    """
    Make the stream, on one GPU or on several.

    :param options: says on how many
    :param models: loaded
    :param spec: what is streamed
    :param camera: whose image it is, of the size of ``spec``
    :return: a ``CausalStream`` or a ``ParallelStream``
    """
    if options.num_gpus == 1:
        return CausalStream(models.dit, models.vae, spec, camera, decoder=models.decoder)
    from lingbot_world_ros.models.wan.parallel import ParallelStream
    from lingbot_world_ros.models.wan.ulysses import devices_for
    return ParallelStream(
        models.dit, models.vae, spec, camera, decoder=models.decoder,
        make_dit=partial(_network_on, options),
        devices=devices_for(options.num_gpus, models.dit.device, models.dit.spec.num_heads))


def _network_on(options: ModelOptions, device: str) -> WanDiT:
    """Load the network in another process."""
    options = replace(options, device=str(device))
    return load_network(open_checkpoint(options.checkpoint), options, CAUSAL)


def check_memory(checkpoint: Checkpoint, options: ModelOptions, spec: StreamSpec) -> None:
    """
    Refuse, before anything is read, what would not fit on the device.

    :param checkpoint: opened
    :param options: precision and device
    :param spec: what is streamed
    :raises SpecError: says how much is needed, how much is free, and what to change
    """
    device = torch_device(options.device)
    if options.num_gpus != 1:
        from lingbot_world_ros.models.wan.ulysses import devices_for
        devices_for(options.num_gpus, device, checkpoint.expert(CAUSAL).spec.num_heads)
    preset = Preset(
        checkpoint.expert(CAUSAL).spec, spec.size, options.precision, spec.window.chunk_latents,
        spec.window.window_latents, options.keep_films, decoder_precision(device),
        bool(options.tiny_decoder), cache_in_8_bits=spec.cache_in_8_bits)
    parts = estimate(preset)
    parts['kv_cache'] //= options.num_gpus
    check_room(sum(parts.values()), device,
               f'{checkpoint.release.title} in {options.precision} at '
               f'{spec.size.width_px} x {spec.size.height_px}')


def decoder_precision(device: torch.device) -> str:
    """Return in which precision the video decoder works: 16 bits where that is fast."""
    return 'fp32' if device.type == 'cpu' else 'fp16'


def load_network(checkpoint: Checkpoint, options: ModelOptions, expert: str,
                 on_progress: Optional[Callable[[int, int], None]] = None) -> WanDiT:
    """
    Load one network in the precision that is asked for.

    :param checkpoint: opened
    :param options: device and precision
    :param expert: causal, high_noise or low_noise
    :param on_progress: called with bytes read and bytes in all
    :return: the network
    """
    dit = load_dit(checkpoint, expert, options.device, options.precision, on_progress)
    dit.attend, dit.keep_films = _attention(options).call, options.keep_films
    if options.compile:
        for block in dit.blocks:
            block.compile()
    return dit


def load_text(checkpoint: Checkpoint, options: ModelOptions) -> TextEncoder:
    """
    Prepare the text encoder; it is read when a prompt comes that is not in the cache.

    :param checkpoint: opened
    :param options: files and device
    :return: the encoder
    """
    device = torch_device(options.t5_device)
    found = checkpoint.companions
    return load_text_encoder(options.text_encoder or found.text_encoder,
                             options.tokenizer or found.tokenizer, device=str(device),
                             cache_dir=options.cache_dir or None, log=LOG.warning)


def companion(checkpoint: Checkpoint, options: ModelOptions, kind: str) -> Path:
    """
    Find a file that belongs to a checkpoint.

    :param checkpoint: opened
    :param options: may name it
    :param kind: 'vae'
    :return: its path
    :raises SpecError: it is nowhere; says how to download it
    """
    named = getattr(options, kind)
    found = Path(named).expanduser() if named else getattr(checkpoint.companions, kind)
    if found is None:
        remedy = next((m.remedy for m in checkpoint.missing if m.what == kind), '')
        raise SpecError(f'{WHAT[kind].capitalize()} is not beside {checkpoint.path}; download it '
                        f'({remedy}) or set lingbot.{kind}.')
    return found


def _attention(options: ModelOptions) -> AttentionBackend:
    return resolve(options.attention, torch_device(options.device), _dtype(options.precision))


def _dtype(precision: str) -> torch.dtype:
    return {'fp32': torch.float32, 'fp16': torch.float16}.get(precision, torch.bfloat16)
