# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of LingBot-World in every public layout: what they are, and the network from them.

``open_checkpoint`` looks at names, folders and headers only. Sizes come from the shapes of the
tensors; config.json must agree. ``load_dit`` reads tensor by tensor, straight to the device.
Looking into safetensors needs no torch.
"""
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
import json
import math
from pathlib import Path
import re
import shlex
from typing import Callable, Dict, List, Optional, Tuple

from lingbot_world_ros.errors import quoted, shown, SpecError, unknown_name
from lingbot_world_ros.models.wan.memory import check_room, dit_bytes, PRECISIONS
from lingbot_world_ros.models.wan.spec import CONTROL_KINDS, DiTSpec
from lingbot_world_ros.models.wan.tensor_files import (check_file, open_tensors, PICKLES,
                                                       read_infos, SAFETENSORS)
from lingbot_world_ros.models.wan.tensor_names import (by_public_name, known_spec, number_of,
                                                       spec_of, Stored)

HIGH, LOW, CAUSAL = 'high_noise', 'low_noise', 'causal'
EXPERT_FOLDERS = {'high_noise_model': HIGH, 'low_noise_model': LOW,
                  'high_noise_model_bnb_nf4': HIGH, 'low_noise_model_bnb_nf4': LOW,
                  'lingbot_world_fast': CAUSAL, 'transformers': CAUSAL,
                  'transformer_causal': CAUSAL, 'transformer': CAUSAL, 'transformer_2': LOW}
DIT_FILES = ('diffusion_pytorch_model*.safetensors', 'model*.safetensors',
             'diffusion_pytorch_model*.bin')
SHARD = re.compile(r'(.+)-(\d{5})-of-(\d{5})(\.\w+)')
STORAGE = {'F32': 'fp32', 'BF16': 'bf16', 'F16': 'fp16'}

APACHE = 'Apache-2.0, the licence of the LingBot-World v1 project'
NON_COMMERCIAL = ('CC BY-NC-SA 4.0: LingBot-World v2 weights are for non-commercial use, shared '
                  'alike')
UNTOLD = 'not told by the files: v1 weights are Apache-2.0, v2 weights CC BY-NC-SA 4.0'
ACCEPTED = ('high_noise_model/ and low_noise_model/ (base), diffusion_pytorch_model*.safetensors '
            'with its index (fast), transformers/ or model-0000X-of-0000N.safetensors (v2), '
            'transformer/ (diffusers), *_bnb_nf4/model.safetensors, or one .safetensors or .pth '
            'file')
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
class Family:
    """One release: where it comes from, under which licence, and how it is streamed."""

    title: str
    repo: str
    licence: str
    defaults: StreamDefaults = StreamDefaults()


V2_STEPS = (0, 250, 500, 750)
V1_BASE = Family('LingBot-World v1 base', BASE_REPO, APACHE)
V1_BASE_NF4 = Family('LingBot-World v1 base, NF4', 'cahlen/lingbot-world-base-cam-nf4', APACHE)
V1_FAST = Family('LingBot-World v1 fast', 'robbyant/lingbot-world-fast', APACHE)
V2_14B = Family('LingBot-World v2 14B causal', 'robbyant/lingbot-world-v2-14b-causal-fast',
                NON_COMMERCIAL, StreamDefaults(4, 18, 6, 10.0, V2_STEPS))
V2_PRETRAIN = Family('LingBot-World v2 14B causal, not distilled (made for 40 steps with '
                     'guidance)', 'robbyant/lingbot-world-v2-14b-causal-pretrain',
                     NON_COMMERCIAL, StreamDefaults(4, 18, 6, 10.0, V2_STEPS))
V2_1_3B = Family('LingBot-World v2 1.3B causal', 'robbyant/lingbot-world-v2-1.3b-causal-fast',
                 NON_COMMERCIAL, StreamDefaults(4, 18, 6, 5.0, V2_STEPS))
UNKNOWN = Family('a causal LingBot-World network', 'robbyant/lingbot-world-fast', UNTOLD)
WAN = Family('Wan image-to-video, without a camera', 'Wan-AI/Wan2.2-I2V-A14B-Diffusers',
             'Apache-2.0, the licence of Wan2.2')
FAMILIES = (V1_BASE, V1_BASE_NF4, V1_FAST, V2_14B, V2_PRETRAIN, V2_1_3B, UNKNOWN, WAN)


@dataclass(frozen=True)
class Companions:
    """Where the other models were found; None where they were not."""

    vae: Optional[Path]
    text_encoder: Optional[Path]
    tokenizer: Optional[Path]


COMPANION_NAMES = {'vae': ('Wan2.1_VAE.pth', 'Wan2.1_VAE.safetensors', 'vae'),
                   'text_encoder': ('models_t5_umt5-xxl-enc-bf16.pth',
                                    'models_t5_umt5-xxl-enc-bf16.safetensors', 'text_encoder'),
                   'tokenizer': ('google/umt5-xxl', 'tokenizer')}
COMPANION_DOWNLOADS = {'vae': 'Wan2.1_VAE.pth', 'text_encoder': 'models_t5_umt5-xxl-enc-bf16.pth',
                       'tokenizer': '--include "google/umt5-xxl/*"'}


@dataclass(frozen=True)
class Missing:
    """Something that is not there, and the command that brings it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Expert:
    """
    One network of a checkpoint, as its headers describe it.

    ``tensors`` go by their public names; those of quantised weights (``X.weight.absmax`` ...) are
    in ``quantised``, under ``X.weight``.
    """

    name: str
    folder: Path
    files: Tuple[Path, ...]
    missing_files: Tuple[str, ...]
    spec: DiTSpec
    tensors: Dict[str, Stored]
    quantised: Dict[str, Dict[str, Stored]]

    @cached_property
    def storage(self) -> str:
        """How most of it is stored: fp32, bf16, fp16, nf4 or fp4."""
        if self.quantised:
            parts = next(iter(self.quantised.values()))
            return 'fp4' if any(part.endswith('fp4') for part in parts) else 'nf4'
        count = Counter()
        for stored in self.tensors.values():
            count[stored.info.dtype] += stored.info.num_elements
        dtype = count.most_common(1)[0][0]
        return STORAGE.get(dtype, dtype.lower())

    @property
    def num_tensors(self) -> int:
        """Tensors under public names; a quantised weight counts as one."""
        return len(self.tensors)

    @cached_property
    def num_parameters(self) -> int:
        """Numbers in it."""
        wanted = self.spec.tensor_shapes()  # packed weights do not tell it themselves
        return sum(math.prod(wanted.get(name, ())) if name in self.quantised
                   else stored.info.num_elements for name, stored in self.tensors.items())

    @cached_property
    def num_bytes(self) -> int:
        """Bytes in its files."""
        parts = [part for parts in self.quantised.values() for part in parts.values()]
        return sum(stored.info.num_bytes for stored in [*self.tensors.values(), *parts])

    def problems(self) -> List[str]:
        """
        Compare with what the network needs, by the headers.

        :return: one text per kind of problem, empty when all is there
        """
        wanted, found = self.spec.tensor_shapes(), []
        missing = [name for name in wanted if name not in self.tensors]
        unexpected = [name for name in self.tensors if name not in wanted]
        wrong = [f'{name} {list(stored.info.shape)} instead of {list(wanted[name])}'
                 for name, stored in self.tensors.items()
                 if name in wanted and not self._fits(name, wanted[name])]
        for names, what in ((missing, 'missing'), (unexpected, 'unexpected'),
                            (wrong, 'of another shape')):
            if names:
                more = f' and {len(names) - 3} more' if len(names) > 3 else ''
                found.append(f'{len(names)} {what}: {", ".join(names[:3])}{more}')
        return found

    def _fits(self, name, shape) -> bool:
        info = self.tensors[name].info
        if name in self.quantised:
            return info.num_bytes == (math.prod(shape) + 1) // 2
        return info.shape == shape


@dataclass(frozen=True)
class Checkpoint:
    """What was found under one path."""

    path: Path
    layout: str
    family: Family
    experts: Dict[str, Expert]
    defaults: StreamDefaults
    companions: Companions
    missing: Tuple[Missing, ...]

    @property
    def kind(self) -> str:
        """Return 'base' (two experts, whole clips), 'causal' (a stream), or 'base and causal'."""
        kinds = ['base'] if HIGH in self.experts or LOW in self.experts else []
        return ' and '.join(kinds + (['causal'] if CAUSAL in self.experts else []))

    @property
    def control(self) -> str:
        """What steers it: camera, act or none."""
        return CONTROL_KINDS[next(iter(self.experts.values())).spec.control_channels]

    def streamed_expert(self) -> Expert:
        """
        Return the network that can be streamed and steered by a camera.

        :raises SpecError: there is none; says what to take instead
        """
        expert = self.expert(CAUSAL)
        if self.family is V2_PRETRAIN:
            raise SpecError(f'{quoted(self.path)} holds {self.family.title}; streaming needs few '
                            f'steps: {download(V2_14B.repo, V2_14B.repo.split("/")[1])}.')
        if self.control != CONTROL_KINDS[6]:
            raise SpecError(f'{quoted(self.path)} holds a network with control {self.control!r}, '
                            'streaming needs one that follows a camera: '
                            f'{download(V1_FAST.repo, V1_FAST.repo.split("/")[1])}.')
        return expert

    def expert(self, name: str = '') -> Expert:
        """
        Return one network.

        :param name: high_noise, low_noise or causal; '' takes the only one
        :raises SpecError: if it is not there
        """
        if not name and len(self.experts) == 1:
            return next(iter(self.experts.values()))
        if name == CAUSAL and CAUSAL not in self.experts:
            raise SpecError(f'{quoted(self.path)} holds {self.family.title}, which makes whole '
                            'clips and cannot be streamed; streaming needs a causal one: '
                            f'{download(V1_FAST.repo, self.path / "lingbot_world_fast")}.')
        if name not in self.experts:
            raise unknown_name('expert', name, self.experts)
        return self.experts[name]


def open_checkpoint(path) -> Checkpoint:
    """
    Find out what is under a path, without reading weights.

    :param path: folder in any public layout, or one file of weights
    :return: experts, sizes, defaults and companions
    :raises SpecError: nothing usable is there; says what was found, what is accepted, what to do
    """
    try:
        return _open(_existing(path))
    except OSError as error:
        raise SpecError(f'checkpoint {quoted(path)} cannot be read: '
                        f'{error.strerror or error}.') from None


def _open(path: Path) -> Checkpoint:
    root, folders, layout = _find_experts(path)
    configs = {name: _read_config(folder / 'config.json') for name, (folder, _) in folders.items()}
    shared = _read_config(root / 'config.json')
    config = {**shared, **next(iter(configs.values()))}
    hints = _Hints(f'{_repository_name(root)}/{path.name}'.lower(), layout,
                   str(config.get('_class_name', '')))
    experts = {name: _read_expert(name, folder, files, {**shared, **configs[name]}, hints)
               for name, (folder, files) in folders.items()}
    family = _family(experts, config, hints)
    companions = find_companions(root)
    return Checkpoint(path, layout, family, experts, _defaults(family, config), companions,
                      tuple(_missing(experts, companions, family, root)))


def _repository_name(root: Path) -> str:
    """Return the folder's name, or what the hub's cache calls the repository."""
    folder = root.resolve()
    return folder.parent.parent.name if folder.parent.name == 'snapshots' else folder.name


def find_companions(root: Path) -> Companions:
    """
    Look for VAE, text encoder and tokenizer beside the network or one folder up.

    :param root: folder of the checkpoint
    :return: what was found
    """
    def first(names):
        folders = (root, root.absolute().parent, root.resolve().parent)  # links lead elsewhere
        found = (folder / name for folder in folders for name in names)
        return next((path for path in found if path.exists()), None)
    return Companions(**{kind: first(names) for kind, names in COMPANION_NAMES.items()})


def download(repo: str, folder, files: str = '') -> str:
    """Return the command that brings a repository, or files of it, into a folder."""
    parts = ['hf download', repo, files, '--local-dir', shlex.quote(str(folder))]
    return ' '.join(part for part in parts if part)


@dataclass(frozen=True)
class _Hints:
    """Names that tell releases apart whose tensors do not differ."""

    names: str  # of the folder and the path that was given, in lower case
    layout: str
    network_class: str

    @property
    def is_pretrain(self) -> bool:
        return 'transformer_causal/' in self.layout or 'causal-pretrain' in self.names

    @property
    def is_v2_small(self) -> bool:
        return ' model-0000X' in self.layout or re.search(r'v2-1\.3b', self.names) is not None

    @property
    def is_v2(self) -> bool:
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


def _existing(path) -> Path:
    if not str(path):
        raise SpecError('checkpoint is empty; expected the folder of a LingBot-World checkpoint: '
                        f'{download(V1_FAST.repo, "lingbot-world-fast")}.')
    found = Path(path).expanduser()
    if found.exists():
        return found.parent if found.name.endswith('.index.json') else found
    if re.fullmatch(r'[\w-]+/[\w.-]+', str(path)):
        raise SpecError(f'checkpoint {quoted(path)} does not exist; if it is a repository, '
                        f'download it first: {download(str(path), found.name)}.')
    raise SpecError(f'checkpoint {quoted(path)} does not exist; check the path.')


def _find_experts(path: Path):
    """Return the checkpoint's folder, name -> (folder, files), and what the layout is called."""
    if path.is_file():
        if SHARD.fullmatch(path.name) or (path.parent.name in EXPERT_FOLDERS
                                          and _dit_files(path.parent) == [path]):
            return _find_experts(path.parent)
        check_file(path)
        if path.suffix not in SAFETENSORS + PICKLES:
            raise SpecError(f'{quoted(path)} is no file of weights; expected {ACCEPTED}.')
        return path.parent, {CAUSAL: (path.parent, [path])}, f'single file {path.name}'
    if path.name in EXPERT_FOLDERS and EXPERT_FOLDERS[path.name] != CAUSAL and _dit_files(path):
        return _find_experts(path.parent)  # one of two
    if path.name in ('transformer', 'transformers') and _dit_files(path):
        return _find_experts(path.parent)
    files = _dit_files(path)
    if files:
        told = _read_config(path / 'config.json').get('expert')
        name = told if told in (HIGH, LOW) else CAUSAL
        return path, {name: (path, files)}, f'at the root, {_general_name(files[0])}'
    found = {}
    for folder, name in EXPERT_FOLDERS.items():
        files = _dit_files(path / folder)
        if files and name not in found:
            found[name] = (path / folder, files)
    if not found:
        raise _nothing_found(path)
    if found.get(LOW, (path,))[0].name == 'transformer_2' and CAUSAL in found:
        found = {HIGH: found.pop(CAUSAL), **found}
    order = [name for name in (HIGH, LOW, CAUSAL) if name in found]
    return path, {name: found[name] for name in order}, ', '.join(
        f'{found[name][0].name}/' for name in order)


def _dit_files(folder: Path) -> List[Path]:
    """Return the files of weights that lie, or by their index should lie, in a folder."""
    if not folder.is_dir():
        return []
    for index in sorted(folder.glob('*.index.json')):
        names = set(_read_config(index).get('weight_map', {}).values())
        if names and all(Path(name).name == name for name in names):
            return [folder / name for name in sorted(names)]
    for pattern in DIT_FILES:
        files = sorted(folder.glob(pattern))
        if files:
            return _complete(files)
    lonely = [file for file in folder.glob('*.safetensors')
              if not file.name.startswith(('Wan2', 'models_t5', 'taew', 'lighttae'))]
    return lonely if len(lonely) == 1 else []


def _complete(files: List[Path]) -> List[Path]:
    """Add shards that the names of the others promise."""
    names = {file.name for file in files}
    for file in files:
        match = SHARD.fullmatch(file.name)
        if match:
            stem, _, count, suffix = match.groups()
            names.update(f'{stem}-{i:05d}-of-{count}{suffix}' for i in range(1, int(count) + 1))
    return [files[0].parent / name for name in sorted(names)]


def _general_name(file: Path) -> str:
    match = SHARD.fullmatch(file.name)
    return f'{match[1]}-0000X-of-{match[3]}{match[4]}' if match else file.name


def _nothing_found(path: Path) -> SpecError:
    entries = sorted(f'{entry.name}/' if entry.is_dir() else entry.name
                     for entry in path.iterdir())
    there = ', '.join(entries[:8]) + (f' and {len(entries) - 8} more' if len(entries) > 8 else '')
    return SpecError(f'{quoted(path)} is no LingBot-World checkpoint: found {there or "nothing"}; '
                     f'expected {ACCEPTED}. For example: {download(V1_FAST.repo, path)}.')


def _read_config(file: Path) -> dict:
    if not file.is_file():
        return {}
    check_file(file)
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise SpecError(f'{shown(file)} is not valid JSON ({shown(error, 80)}); download it '
                        'again.') from None
    return content if isinstance(content, dict) else {}


def _read_expert(name, folder, files, config, hints) -> Expert:
    present = [file for file in files if file.is_file()]
    missing = tuple(file.name for file in files if not file.is_file())
    stored = {}
    for file in present:
        for key, info in read_infos(file).items():
            stored[key] = Stored(file, key, info)
    tensors, quantised = by_public_name(stored)
    try:
        spec = spec_of(tensors, config)
    except SpecError:
        raise
    except (KeyError, IndexError, ValueError) as error:
        spec = known_spec(tensors, config) if missing and tensors else None
        if spec:
            return Expert(name, folder, tuple(present), missing, spec, tensors, quantised)
        if missing:
            raise _missing_shards(folder, missing, hints.repo(name)) from None
        what = f'no tensor {error.args[0]}' if isinstance(error, KeyError) else 'other sizes'
        raise SpecError(f'{quoted(folder if len(files) > 1 else files[0])} is no LingBot-World '
                        f'network: {what} among its {len(tensors)} tensors '
                        f'({", ".join(list(tensors)[:3])}); expected {ACCEPTED}.') from None
    return Expert(name, folder, tuple(present), missing, spec, tensors, quantised)


def _family(experts, config, hints: _Hints) -> Family:
    for family in FAMILIES:  # quantised copies tell where they come from
        if config.get('source') == family.title:
            return family
    if all(expert.spec.control_channels == 0 for expert in experts.values()):
        return WAN
    if CAUSAL not in experts:
        quantised = any(expert.quantised for expert in experts.values())
        return V1_BASE_NF4 if quantised else V1_BASE
    if HIGH in experts:
        return V1_BASE
    spec = experts[CAUSAL].spec
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


def _defaults(family: Family, config: dict) -> StreamDefaults:
    """Take the family's, but for what the checkpoint's own config says."""
    own = family.defaults
    if 'sliding_window_num_frames' not in config:
        return own
    sink = 0 if config.get('sink_size') == 0 else number_of(config, 'sink_size', own.sink_latents)
    return replace(
        own, chunk_latents=number_of(config, 'num_frames_per_block', own.chunk_latents),
        window_latents=number_of(config, 'sliding_window_num_frames', own.window_latents),
        sink_latents=sink)


def _missing(experts, companions, family, root) -> List[Missing]:
    missing = []
    for expert in experts.values():
        for file in expert.missing_files:
            missing.append(Missing(f'{expert.folder.name}/{file}',
                                   _shard_download(family.repo, root, expert.folder, file)))
    for name, other in ((HIGH, LOW), (LOW, HIGH)):
        if other in experts and name not in experts:
            folder = experts[other].folder.name.replace(other.split('_')[0], name.split('_')[0])
            missing.append(Missing(f'{folder}/', download(family.repo, root,
                                                          f'--include "{folder}/*"')))
    for kind, files in COMPANION_DOWNLOADS.items():
        if getattr(companions, kind) is None:
            missing.append(Missing(kind.replace('_', ' '), download(BASE_REPO, root, files)))
    return missing


def _shard_download(repo: str, root: Path, folder: Path, file: str) -> str:
    """Return the command for one file; the fast network has a repository of its own."""
    if folder.name == 'lingbot_world_fast':
        return download(V1_FAST.repo, folder, file)
    return download(repo, root, file if folder == root else f'{folder.name}/{file}')


def _missing_shards(folder: Path, missing, repo: str) -> SpecError:
    own = folder.name not in EXPERT_FOLDERS or folder.name == 'lingbot_world_fast'
    command = _shard_download(repo, folder if own else folder.parent, folder, missing[0])
    more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
    return SpecError(f'{quoted(folder)} lacks {missing[0]}{more}, which belongs to it; download '
                     f'it: {command}.')


def torch_device(name: str):
    """
    Return the device to compute on.

    :param name: 'auto' (a GPU), 'cuda', 'cuda:1', 'cpu'
    :raises SpecError: if there is none
    """
    import torch
    if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', name):
        raise SpecError(f"device {quoted(name)} is none of 'auto', 'cuda', 'cuda:N' and "
                        "'cpu'.")
    if name != 'cpu' and not torch.cuda.is_available():
        raise SpecError(f'device {quoted(name)}: torch {torch.__version__} finds no CUDA GPU '
                        'here; check nvidia-smi and that torch was installed with CUDA, or use '
                        "device 'cpu', which is for trying out only.")
    device = torch.device('cuda' if name == 'auto' else name)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(f'device {quoted(name)}: there are {torch.cuda.device_count()} GPUs, '
                        'counted from 0.')
    return device


def load_dit(checkpoint: Checkpoint, expert: str = '', device: str = 'cpu',
             precision: str = 'bf16', on_progress: Optional[Callable[[int, int], None]] = None):
    """
    Make the network and read its weights, tensor by tensor.

    All weights are in the dtype asked for, norms and modulations too (the network computes with
    them in float32); with nf4 and fp8 linear layers are quantised as they come, so that the
    network is never there in bfloat16 as a whole, and all else is bfloat16.

    :param checkpoint: from ``open_checkpoint``
    :param expert: high_noise, low_noise or causal; '' takes the only one
    :param device: 'cpu', 'cuda', 'cuda:1' or 'auto'
    :param precision: fp32, bf16, fp8 or nf4
    :param on_progress: called with bytes read and bytes in all
    :return: ``WanDiT``, ready for inference
    :raises SpecError: files, sizes, memory or device do not allow it; nothing was loaded
    """
    from lingbot_world_ros.models.wan.dit import WanDiT
    from lingbot_world_ros.models.wan.nf4 import replace_linears
    import torch
    if precision not in PRECISIONS:
        raise unknown_name('precision', precision, PRECISIONS)
    source = checked_expert(checkpoint, expert)
    target = torch_device(device)
    largest = max(stored.info.num_bytes for stored in source.tensors.values())
    check_room(dit_bytes(source.spec, precision) + largest, target,
               f'{source.name} in {precision}')
    with torch.device('meta'):
        dit = WanDiT(source.spec)
        if precision == 'nf4':
            replace_linears(dit)
    dtype = torch.float32 if precision == 'fp32' else torch.bfloat16
    in_8_bits = _fp8_layers(dit, target) if precision == 'fp8' else ()
    with torch.no_grad():
        for name, read in stream_tensors(source, on_progress):
            _assign(dit, name, read, target, dtype)
            if name.rpartition('.')[0] in in_8_bits:
                _to_fp8(dit, name.rpartition('.')[0])
    return dit.eval().requires_grad_(False)


def checked_expert(checkpoint: Checkpoint, name: str = '') -> Expert:
    """
    Return an expert whose files hold exactly what its network needs.

    :param checkpoint: from ``open_checkpoint``
    :param name: as in ``load_dit``
    :raises SpecError: if shards or tensors are missing, too many, or of another shape
    """
    expert = checkpoint.expert(name)
    if expert.missing_files:
        raise _missing_shards(expert.folder, expert.missing_files, checkpoint.family.repo)
    problems = expert.problems()
    if problems:
        raise SpecError(f'{quoted(expert.folder)} does not hold the {expert.spec.num_tensors} '
                        f'tensors of its network: {"; ".join(problems)}. Download it again: '
                        f'{download(checkpoint.family.repo, checkpoint.path)}.')
    return expert


def stream_tensors(expert: Expert, on_progress=None):
    """
    Read an expert's tensors one after another, in the order of its files.

    :param expert: complete
    :param on_progress: called with bytes read and bytes in all
    :return: generator of public name and either a tensor, or the parts of a quantised weight by
        name ('' is the packed weight); both on the host, to be used before the next one
    """
    by_file, done = {}, 0
    for name, stored in expert.tensors.items():
        by_file.setdefault(stored.file, []).append((name, stored))
    for path, entries in by_file.items():
        with open_tensors(path) as file:
            place = {name: i for i, name in enumerate(file.infos)}
            for name, stored in sorted(entries, key=lambda entry: place[entry[1].name]):
                if name in expert.quantised:
                    parts = {'': stored, **expert.quantised[name]}
                    yield name, {part: _read(where, path, file) for part, where in parts.items()}
                else:
                    yield name, file.borrow(stored.name)
                done += stored.info.num_bytes
                if on_progress:
                    on_progress(min(done, expert.num_bytes), expert.num_bytes)


def _read(where: Stored, path, file):
    """Parts of a weight may lie in another shard than the weight."""
    if where.file == path:
        return file.get(where.name)
    with open_tensors(where.file) as other:
        return other.get(where.name)


def _assign(dit, name, read, device, dtype) -> None:
    """Put a tensor in its place in the network, in its final form."""
    from lingbot_world_ros.models.wan.nf4 import dequantised, is_quantised, quantised_parameter
    from torch import nn
    path, leaf = name.rpartition('.')[::2]
    module = dit.get_submodule(path)
    if leaf == 'weight' and is_quantised(module):
        module.weight = quantised_parameter(read, module, device)
        return
    if isinstance(read, dict):
        read = dequantised(read, getattr(module, leaf).shape)
    # converted on the host: half as much goes over the bus; never the borrowed memory itself
    tensor = read.to(device, copy=True) if read.dtype == dtype else read.to(dtype).to(device)
    setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))


def _fp8_layers(dit, device) -> set:
    """Choose what ``quantise_fp8`` would."""
    from fnmatch import fnmatchcase
    from lingbot_world_ros.models.wan.fp8 import check_device, MULTIPLE, SKIP
    from torch import nn
    check_device(device)
    return {name for name, module in dit.named_modules()
            if type(module) is nn.Linear and not module.in_features % MULTIPLE
            and not module.out_features % MULTIPLE
            and not any(fnmatchcase(name, pattern) for pattern in SKIP)}


def _to_fp8(dit, name) -> None:
    """Quantise a layer once its weight and bias are there."""
    from lingbot_world_ros.models.wan.fp8 import FP8Linear
    module = dit.get_submodule(name)
    if not any(parameter.is_meta for parameter in module.parameters()):
        path, leaf = name.rpartition('.')[::2]
        setattr(dit.get_submodule(path), leaf, FP8Linear.from_linear(module))
