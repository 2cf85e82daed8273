# SPDX-License-Identifier: Apache-2.0
"""
Which releases of LingBot-World there are, under which licence, and which of them a checkpoint is.

Tensors do not tell releases apart: the names of folders and files decide, and what config.json
says. No torch.
"""
from dataclasses import dataclass, replace
from pathlib import Path
import re
import shlex
from typing import Any, Dict, Tuple, Union

from lingbot_world_ros.models.wan.spec import DiTSpec
from lingbot_world_ros.models.wan.tensor_names import number_of

HIGH, LOW, CAUSAL = 'high_noise', 'low_noise', 'causal'  # what an expert (one network) is for

APACHE = 'Apache-2.0, the licence of the LingBot-World v1 project'
NON_COMMERCIAL = ('CC BY-NC-SA 4.0: LingBot-World v2 weights are for non-commercial use, shared '
                  'alike')
UNTOLD = 'not told by the files: v1 weights are Apache-2.0, v2 weights CC BY-NC-SA 4.0'
BASE_REPO = 'robbyant/lingbot-world-base-cam'


@dataclass(frozen=True)
class StreamDefaults:
    """
    How a causal checkpoint was made to be streamed; all of it can be overridden.

    ``window_latents`` are visible latent frames in all, ``sink_latents`` of which stay for good;
    ``step_indices`` pick the noise levels from a table of 1000 that ``shift`` has bent.
    """

    chunk_latents: int = 3
    window_latents: int = 18
    sink_latents: int = 3
    shift: float = 10.0
    step_indices: Tuple[int, ...] = (0, 179, 358, 679)


@dataclass(frozen=True)
class Release:
    """One release: where it comes from, under which licence, and how it is streamed."""

    title: str
    repo: str
    licence: str
    defaults: StreamDefaults = StreamDefaults()


V2_STEPS = (0, 250, 500, 750)
V1_BASE = Release('LingBot-World v1 base', BASE_REPO, APACHE)
V1_BASE_NF4 = Release('LingBot-World v1 base, NF4', 'cahlen/lingbot-world-base-cam-nf4', APACHE)
V1_FAST = Release('LingBot-World v1 fast', 'robbyant/lingbot-world-fast', APACHE)
V2_14B = Release('LingBot-World v2 14B causal', 'robbyant/lingbot-world-v2-14b-causal-fast',
                 NON_COMMERCIAL, StreamDefaults(4, 18, 6, 10.0, V2_STEPS))
V2_PRETRAIN = Release('LingBot-World v2 14B causal, not distilled (made for 40 steps with '
                      'guidance)', 'robbyant/lingbot-world-v2-14b-causal-pretrain',
                      NON_COMMERCIAL, StreamDefaults(4, 18, 6, 10.0, V2_STEPS))
V2_1_3B = Release('LingBot-World v2 1.3B causal', 'robbyant/lingbot-world-v2-1.3b-causal-fast',
                  NON_COMMERCIAL, StreamDefaults(4, 18, 6, 5.0, V2_STEPS))
UNKNOWN = Release('a causal LingBot-World network', 'robbyant/lingbot-world-fast', UNTOLD)
WAN = Release('Wan image-to-video, without a camera', 'Wan-AI/Wan2.2-I2V-A14B-Diffusers',
              'Apache-2.0, the licence of Wan2.2')
RELEASES = (V1_BASE, V1_BASE_NF4, V1_FAST, V2_14B, V2_PRETRAIN, V2_1_3B, UNKNOWN, WAN)


@dataclass(frozen=True)
class Hints:
    """Names that tell releases apart whose tensors do not differ."""

    names: str  # of the folder and the path that was given, in lower case
    layout: str
    network_class: str

    @property
    def is_pretrain(self) -> bool:
        """Whether it is v2 before distillation, to be run with many steps."""
        return 'transformer_causal/' in self.layout or 'causal-pretrain' in self.names

    @property
    def is_v2_small(self) -> bool:
        """Whether it is v2 with 1.3 billion parameters."""
        return ' model-0000X' in self.layout or re.search(r'v2-1\.3b', self.names) is not None

    @property
    def is_v2(self) -> bool:
        """Whether it is v2, whose weights are not for commercial use."""
        return (self.is_pretrain or self.is_v2_small or self.network_class == 'WanXModel'
                or 'transformers/' in self.layout or 'world-v2' in self.names)

    def repo(self, expert: str) -> str:
        """Guess where an expert comes from while its tensors are not known."""
        if expert != CAUSAL:
            return (V1_BASE_NF4 if 'bnb_nf4' in self.layout else V1_BASE).repo
        if self.is_pretrain:
            return V2_PRETRAIN.repo
        if self.is_v2_small:
            return V2_1_3B.repo
        return V2_14B.repo if self.is_v2 else V1_FAST.repo


def release_of(specs: Dict[str, DiTSpec], config: Dict[str, Any], hints: Hints,
               is_quantised: bool) -> Release:
    """
    Decide which release a checkpoint is, and so under which licence its weights are.

    :param specs: sizes of its networks, by expert
    :param config: what its config.json says
    :param hints: its names
    :param is_quantised: whether a network is in 4 bits
    :return: the release; a mirror of it has its own ``repo``
    """
    for release in RELEASES:  # quantised copies tell where they come from
        if config.get('source') == release.title:
            return release
    if all(spec.control_channels == 0 for spec in specs.values()):
        return WAN
    if CAUSAL not in specs:
        return V1_BASE_NF4 if is_quantised else V1_BASE
    if HIGH in specs:
        return V1_BASE
    spec = specs[CAUSAL]
    if hints.is_pretrain:
        return V2_PRETRAIN
    if hints.is_v2_small or (spec.dim, spec.num_layers) == (1536, 30):
        return V2_1_3B
    diffusers = hints.layout == 'transformer/'
    if hints.is_v2 or config.get('num_frames_per_block') == 4:
        return replace(V2_14B, repo=f'{V2_14B.repo}-diffusers') if diffusers else V2_14B
    if hints.layout.startswith('single file') and 'fast' not in hints.names:
        return UNKNOWN
    return replace(V1_FAST, repo=f'{V1_FAST.repo}-diffusers') if diffusers else V1_FAST


def stream_defaults(release: Release, config: Dict[str, Any]) -> StreamDefaults:
    """
    Say how a checkpoint is streamed where the user says nothing.

    :param release: what it is
    :param config: what its config.json says; goes before the release
    :return: the defaults
    :raises SpecError: the config holds numbers that cannot be
    """
    own = release.defaults
    if 'sliding_window_num_frames' not in config:
        return own
    sink = 0 if config.get('sink_size') == 0 else number_of(config, 'sink_size', own.sink_latents)
    return replace(
        own, chunk_latents=number_of(config, 'num_frames_per_block', own.chunk_latents),
        window_latents=number_of(config, 'sliding_window_num_frames', own.window_latents),
        sink_latents=sink)


def download(repo: str, folder: Union[str, Path], files: str = '') -> str:
    """Return the command that brings a repository, or files of it, into a folder."""
    parts = ['hf download', repo, files, '--local-dir', shlex.quote(str(folder))]
    return ' '.join(part for part in parts if part)
