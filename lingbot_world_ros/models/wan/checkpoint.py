# SPDX-License-Identifier: Apache-2.0
"""
A checkpoint of LingBot-World: what it is, its networks, and what it lacks.

``open_checkpoint`` looks at names, folders and headers only. Sizes come from the shapes of the
tensors; config.json must agree. No torch.
"""
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

from lingbot_world_ros.errors import quoted, SpecError, unknown_name
from lingbot_world_ros.models.wan.layouts import (ACCEPTED, COMPANION_DOWNLOADS, Companions,
                                                  existing_path, EXPERT_FOLDERS, find_companions,
                                                  find_experts, read_config, repository_name)
from lingbot_world_ros.models.wan.releases_and_licences import (BASE_REPO, CAUSAL, download, HIGH,
                                                                Hints, LOW, Release, release_of,
                                                                stream_defaults, StreamDefaults,
                                                                V1_FAST, V2_14B, V2_PRETRAIN)
from lingbot_world_ros.models.wan.spec import CONTROL_KINDS, DiTSpec
from lingbot_world_ros.models.wan.tensor_files import read_infos
from lingbot_world_ros.models.wan.tensor_names import by_public_name, known_spec, spec_of, Stored

STORAGE = {'F32': 'fp32', 'BF16': 'bf16', 'F16': 'fp16'}


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
        count: Counter[str] = Counter()
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

    def _fits(self, name: str, shape: Tuple[int, ...]) -> bool:
        info = self.tensors[name].info
        if name in self.quantised:
            return info.num_bytes == (math.prod(shape) + 1) // 2
        return info.shape == shape


@dataclass(frozen=True)
class Checkpoint:
    """What was found under one path."""

    path: Path
    layout: str
    release: Release
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
        if self.release is V2_PRETRAIN:
            raise SpecError(f'{quoted(self.path)} holds {self.release.title}; streaming needs few '
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
            raise SpecError(f'{quoted(self.path)} holds {self.release.title}, which makes whole '
                            'clips and cannot be streamed; streaming needs a causal one: '
                            f'{download(V1_FAST.repo, self.path / "lingbot_world_fast")}.')
        if name not in self.experts:
            raise unknown_name('expert', name, self.experts)
        return self.experts[name]


def open_checkpoint(path: Union[str, Path]) -> Checkpoint:
    """
    Find out what is under a path, without reading weights.

    :param path: folder in any public layout, or one file of weights
    :return: experts, sizes, defaults and companions
    :raises SpecError: nothing usable is there; says what was found, what is accepted, what to do
    """
    try:
        return _open(existing_path(path))
    except OSError as error:
        raise SpecError(f'checkpoint {quoted(path)} cannot be read: '
                        f'{error.strerror or error}.') from None


def _open(path: Path) -> Checkpoint:
    root, folders, layout = find_experts(path)
    configs = {name: read_config(folder / 'config.json') for name, (folder, _) in folders.items()}
    shared = read_config(root / 'config.json')
    config = {**shared, **next(iter(configs.values()))}
    hints = Hints(f'{repository_name(root)}/{path.name}'.lower(), layout,
                  str(config.get('_class_name', '')))
    experts = {name: _read_expert(name, folder, files, {**shared, **configs[name]}, hints)
               for name, (folder, files) in folders.items()}
    release = release_of({name: expert.spec for name, expert in experts.items()}, config, hints,
                         any(expert.quantised for expert in experts.values()))
    companions = find_companions(root)
    return Checkpoint(path, layout, release, experts, stream_defaults(release, config), companions,
                      tuple(_missing(experts, companions, release, root)))


def checked_expert(checkpoint: Checkpoint, name: str = '') -> Expert:
    """
    Return an expert whose files hold exactly what its network needs.

    :param checkpoint: from ``open_checkpoint``
    :param name: high_noise, low_noise or causal; '' takes the only one
    :raises SpecError: if shards or tensors are missing, too many, or of another shape
    """
    expert = checkpoint.expert(name)
    if expert.missing_files:
        raise _missing_shards(expert.folder, expert.missing_files, checkpoint.release.repo)
    problems = expert.problems()
    if problems:
        raise SpecError(f'{quoted(expert.folder)} does not hold the {expert.spec.num_tensors} '
                        f'tensors of its network: {"; ".join(problems)}. Download it again: '
                        f'{download(checkpoint.release.repo, checkpoint.path)}.')
    return expert


def _read_expert(name: str, folder: Path, files: Sequence[Path], config: Dict[str, Any],
                 hints: Hints) -> Expert:
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
        known = known_spec(tensors, config) if missing and tensors else None
        if known:
            return Expert(name, folder, tuple(present), missing, known, tensors, quantised)
        if missing:
            raise _missing_shards(folder, missing, hints.repo(name)) from None
        what = f'no tensor {error.args[0]}' if isinstance(error, KeyError) else 'other sizes'
        raise SpecError(f'{quoted(folder if len(files) > 1 else files[0])} is no LingBot-World '
                        f'network: {what} among its {len(tensors)} tensors '
                        f'({", ".join(list(tensors)[:3])}); expected {ACCEPTED}.') from None
    return Expert(name, folder, tuple(present), missing, spec, tensors, quantised)


def _missing(experts: Mapping[str, Expert], companions: Companions, release: Release,
             root: Path) -> List[Missing]:
    missing = []
    for expert in experts.values():
        for file in expert.missing_files:
            missing.append(Missing(f'{expert.folder.name}/{file}',
                                   _shard_download(release.repo, root, expert.folder, file)))
    for name, other in ((HIGH, LOW), (LOW, HIGH)):
        if other in experts and name not in experts:
            folder = experts[other].folder.name.replace(other.split('_')[0], name.split('_')[0])
            missing.append(Missing(f'{folder}/', download(release.repo, root,
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


def _missing_shards(folder: Path, missing: Sequence[str], repo: str) -> SpecError:
    own = folder.name not in EXPERT_FOLDERS or folder.name == 'lingbot_world_fast'
    command = _shard_download(repo, folder if own else folder.parent, folder, missing[0])
    more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
    return SpecError(f'{quoted(folder)} lacks {missing[0]}{more}, which belongs to it; download '
                     f'it: {command}.')
