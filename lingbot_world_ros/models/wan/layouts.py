# SPDX-License-Identifier: Apache-2.0
"""
In which folders and files a checkpoint keeps its networks and the models beside them.

By names alone, in every public layout; no weights are read and no torch is needed.
"""
from dataclasses import dataclass
import json
from pathlib import Path
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.models.wan.releases_and_licences import CAUSAL, download, HIGH, LOW, V1_FAST
from lingbot_world_ros.models.wan.tensor_files import check_file, PICKLES, SAFETENSORS

EXPERT_FOLDERS = {'high_noise_model': HIGH, 'low_noise_model': LOW,
                  'high_noise_model_bnb_nf4': HIGH, 'low_noise_model_bnb_nf4': LOW,
                  'lingbot_world_fast': CAUSAL, 'transformers': CAUSAL,
                  'transformer_causal': CAUSAL, 'transformer': CAUSAL, 'transformer_2': LOW}
DIT_FILES = ('diffusion_pytorch_model*.safetensors', 'model*.safetensors',
             'diffusion_pytorch_model*.bin')
SHARD = re.compile(r'(.+)-(\d{5})-of-(\d{5})(\.\w+)')
ACCEPTED = ('high_noise_model/ and low_noise_model/ (base), diffusion_pytorch_model*.safetensors '
            'with its index (fast), transformers/ or model-0000X-of-0000N.safetensors (v2), '
            'transformer/ (diffusers), *_bnb_nf4/model.safetensors, or one .safetensors or .pth '
            'file')


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


def existing_path(path: Union[str, Path]) -> Path:
    """
    Say where a checkpoint is.

    :param path: as the user gave it
    :return: folder or file that exists; in place of an index the folder it is in
    :raises SpecError: there is none; a repository's name is answered with its download
    """
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


def repository_name(root: Path) -> str:
    """Return a folder's name, or what the hub's cache calls the repository in it."""
    folder = root.resolve()
    return folder.parent.parent.name if folder.parent.name == 'snapshots' else folder.name


def find_companions(root: Path) -> Companions:
    """
    Look for VAE, text encoder and tokenizer beside the network or one folder up.

    :param root: folder of the checkpoint
    :return: what was found
    """
    def first(names: Sequence[str]) -> Optional[Path]:
        folders = (root, root.absolute().parent, root.resolve().parent)  # links lead elsewhere
        found = (folder / name for folder in folders for name in names)
        return next((path for path in found if path.exists()), None)
    return Companions(**{kind: first(names) for kind, names in COMPANION_NAMES.items()})


def find_experts(path: Path) -> Tuple[Path, Dict[str, Tuple[Path, List[Path]]], str]:
    """
    Find the networks under a path.

    :param path: folder in any public layout, or one file of weights; it exists
    :return: the checkpoint's folder; expert -> its folder and files, those that are missing
        included; and what the layout is called
    :raises SpecError: there is no network; says what was found and what is accepted
    """
    if path.is_file():
        if SHARD.fullmatch(path.name) or (path.parent.name in EXPERT_FOLDERS
                                          and _dit_files(path.parent) == [path]):
            return find_experts(path.parent)
        check_file(path)
        if path.suffix not in SAFETENSORS + PICKLES:
            raise SpecError(f'{quoted(path)} is no file of weights; expected {ACCEPTED}.')
        return path.parent, {CAUSAL: (path.parent, [path])}, f'single file {path.name}'
    if path.name in EXPERT_FOLDERS and EXPERT_FOLDERS[path.name] != CAUSAL and _dit_files(path):
        return find_experts(path.parent)  # one of two
    if path.name in ('transformer', 'transformers') and _dit_files(path):
        return find_experts(path.parent)
    files = _dit_files(path)
    if files:
        told = read_config(path / 'config.json').get('expert')
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
        names = set(read_config(index).get('weight_map', {}).values())
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


def read_config(file: Path) -> Dict[str, Any]:
    """
    Read a JSON file beside the weights.

    :param file: config.json or an index
    :return: its entries, {} where there is no such file
    :raises SpecError: it is damaged
    """
    if not file.is_file():
        return {}
    check_file(file)
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise SpecError(f'{shown(file)} is not valid JSON ({shown(error, 80)}); download it '
                        'again.') from None
    return content if isinstance(content, dict) else {}
