# SPDX-License-Identifier: Apache-2.0
"""
Prompts as the network reads them: UMT5-XXL's encoder, its tokenizer, and a cache on disk.

The encoder has 11 GB and is needed once per prompt, so it is read at the first prompt that is not
in the cache; later runs with the same prompts need neither its file nor the time. Files are mapped
into memory, never held twice. Nothing here looks anything up in a network.

Axes: n tokens of the prompt (at most 512, the last is the end mark), d model width.
"""
from dataclasses import dataclass
from functools import cached_property
import hashlib
import html
import json
import os
from pathlib import Path
import re
import tempfile
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple, TYPE_CHECKING, Union

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.models.wan.tensor_files import check_file, PICKLES, SafetensorsFile

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 512
MAX_DISTANCE, EPS = 128, 1e-6  # of relative positions; of the norms
ENCODER_FILE = 'models_t5_umt5-xxl-enc-bf16.pth'
TOKENIZER_FOLDER = 'google/umt5-xxl'
DOWNLOAD = 'hf download robbyant/lingbot-world-base-cam'
DEFAULT_CACHE = '~/.cache/lingbot_world_ros'
CACHE_ENTRIES = 256  # of up to 4 MB each, most of them a tenth of that
END, END_NAME = 1, '</s>'
EDGE_BYTES = 65536  # of a file that identify it, from either end
FOLDER_FILES = ('model.safetensors.index.json', 'model.safetensors',
                'pytorch_model.bin.index.json', 'pytorch_model.bin')
# Original name -> name in transformers, within a block.
BLOCK_NAMES = {
    'norm1.weight': 'layer.0.layer_norm.weight',
    'norm2.weight': 'layer.1.layer_norm.weight',
    **{f'attn.{x}.weight': f'layer.0.SelfAttention.{x}.weight' for x in 'qkvo'},
    'pos_embedding.embedding.weight': 'layer.0.SelfAttention.relative_attention_bias.weight',
    'ffn.gate.0.weight': 'layer.1.DenseReluDense.wi_0.weight',
    'ffn.fc1.weight': 'layer.1.DenseReluDense.wi_1.weight',
    'ffn.fc2.weight': 'layer.1.DenseReluDense.wo.weight'}
SHARED = 'shared.weight'
TIED = 'encoder.embed_tokens.weight'
NAMES = {'token_embedding.weight': SHARED, 'norm.weight': 'encoder.final_layer_norm.weight'}


@dataclass(frozen=True)
class UMT5Spec:
    """Sizes of an encoder."""

    vocab_size: int
    dim: int
    attention_dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    num_buckets: int

    @property
    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """Name in transformers -> shape, of every tensor there is."""
        square, ffn = (self.attention_dim, self.dim), (self.ffn_dim, self.dim)
        block = {'layer.0.layer_norm.weight': (self.dim,),
                 'layer.1.layer_norm.weight': (self.dim,),
                 **{f'layer.0.SelfAttention.{x}.weight': square for x in 'qkv'},
                 'layer.0.SelfAttention.o.weight': square[::-1],
                 'layer.0.SelfAttention.relative_attention_bias.weight':
                     (self.num_buckets, self.num_heads),
                 'layer.1.DenseReluDense.wi_0.weight': ffn,
                 'layer.1.DenseReluDense.wi_1.weight': ffn,
                 'layer.1.DenseReluDense.wo.weight': ffn[::-1]}
        return {SHARED: (self.vocab_size, self.dim),
                'encoder.final_layer_norm.weight': (self.dim,),
                **{f'encoder.block.{i}.{name}': shape for i in range(self.num_layers)
                   for name, shape in block.items()}}


def clean_prompt(prompt: str) -> str:
    """
    Clean a prompt as it was in training.

    :param prompt: any text
    :return: broken characters and HTML entities repaired, one space between words
    :raises SpecError: if it is no text, or a package is missing
    """
    if not isinstance(prompt, str):
        raise SpecError(f'The prompt is a {type(prompt).__name__}; expected a text.')
    ftfy = _package('ftfy')
    text = prompt.encode(errors='replace').decode()  # halves of surrogate pairs
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r'\s+', ' ', text).strip()


class Tokenizer:
    """UMT5's tokenizer, from ``tokenizer.json`` or ``spiece.model``."""

    def __init__(self, path: Path) -> None:
        """
        Read it.

        The files are read by the libraries they are made for, not through transformers, whose
        versions 4 and 5 differ in what they make of them.

        :param path: folder with one of the two files, or the file
        :raises SpecError: if it cannot be used
        """
        self.path = _tokenizer_file(path)
        try:
            read = _read_pieces if self.path.suffix == '.model' else _read_tokenizer
            self._encode, self._end = read(self.path)
        except SpecError:
            raise
        except Exception as error:  # the libraries raise plain Exception
            raise SpecError(f'{shown(self.path)} cannot be read as a tokenizer '
                            f'({shown(error, 100)}); download it again.') from None

    def __call__(self, text: str) -> Tuple[List[int], int]:
        """
        Turn a text into tokens.

        :param text: cleaned
        :return: at most 512 tokens, the last of them the end mark; how many there were
        """
        tokens = list(self._encode(text))
        while tokens and tokens[-1] == self._end:
            tokens.pop()
        return tokens[:MAX_TOKENS - 1] + [self._end], len(tokens) + 1


def load_network(path: Path, device: str = 'cpu') -> Any:
    """
    Make the network with the weights of a file, in their dtype.

    :param path: the original file or safetensors in its names, or a folder of transformers
    :param device: to compute on
    :return: ``transformers.UMT5EncoderModel``, ready for inference
    :raises SpecError: if files, names or shapes are not those of such an encoder
    """
    torch, transformers = _package('torch'), _package('transformers')
    tensors = _public_tensors(Path(path))
    spec = _spec_of(tensors, path)
    settings = _settings(Path(path))
    config = transformers.UMT5Config(
        vocab_size=spec.vocab_size, d_model=spec.dim, d_kv=spec.attention_dim // spec.num_heads,
        d_ff=spec.ffn_dim, num_layers=spec.num_layers, num_heads=spec.num_heads,
        relative_attention_num_buckets=spec.num_buckets, feed_forward_proj='gated-gelu',
        relative_attention_max_distance=settings.get('relative_attention_max_distance',
                                                     MAX_DISTANCE),
        layer_norm_epsilon=settings.get('layer_norm_epsilon', EPS), dropout_rate=0.0,
        attn_implementation='eager')
    with torch.device('meta'):
        network = transformers.UMT5EncoderModel(config)
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    network.load_state_dict({**moved, TIED: moved[SHARED]}, strict=True, assign=True)
    return network.eval().requires_grad_(False)


class TextEncoder:
    """
    Prompts to embeddings; see ``load_text_encoder``.

    ``encode`` may be called from any thread.
    """

    def __init__(self, path: Union[str, Path, None], tokenizer_path: Union[str, Path, None],
                 device: str = 'cpu', cache: Optional['EmbeddingCache'] = None,
                 log: Callable[[str], None] = lambda text: None) -> None:
        """Note where everything is; see ``load_text_encoder``."""
        self._path, self._tokenizer_path = _path(path), _path(tokenizer_path)
        self._device, self._cache, self._log = device, cache, log
        self._lock = threading.Lock()
        self._network: Any = None  # UMT5EncoderModel, read when it is needed

    @property
    def is_loaded(self) -> bool:
        """Whether the network is in memory."""
        return self._network is not None

    def encode(self, prompt: str) -> 'Tensor':
        """
        Embed a prompt.

        :param prompt: any text; what exceeds 512 tokens is cut off, and the log says so
        :return: (n, d) tensor on the host in the dtype of the weights, n tokens with the end mark
        :raises SpecError: if the prompt is not in the cache and the encoder cannot be read
        """
        text = clean_prompt(prompt)
        with self._lock:
            key = self._key(text)
            entry = self._cache.read(key) if self._cache else None
            if entry is None:
                entry = self._embed(text)
                if self._cache:
                    self._write(self._cache, key, *entry)
        embedding, num_tokens = entry
        if num_tokens > MAX_TOKENS:
            self._log(f'The prompt has {num_tokens} tokens; the network reads the first '
                      f'{MAX_TOKENS}, so its end has no effect.')
        return embedding

    def release(self) -> None:
        """Let go of the network's memory; it is read again when it is needed."""
        with self._lock:
            self._network = None

    def _key(self, text: str) -> str:
        if not self._cache:
            return ''
        prints = [self._cache.known_print(path, make) for path, make in (
            (self._path, encoder_print), (self._tokenizer_path, tokenizer_print))]
        return hashlib.sha256('\n'.join((*prints, text)).encode()).hexdigest()[:40]

    def _embed(self, text: str) -> Tuple['Tensor', int]:
        self._check_there(text)
        tokens, num_tokens = self._tokenizer(text)
        if self._network is None:
            assert self._path is not None, 'it is there'
            self._network = load_network(self._path, self._device)
        import torch
        vocab_size = self._network.config.vocab_size
        if max(tokens) >= vocab_size:
            raise SpecError(f'{shown(self._tokenizer_path)} makes token {max(tokens)}, the '
                            f'encoder knows {vocab_size}; use the tokenizer that came with it '
                            f'({TOKENIZER_FOLDER}).')
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self._device)  # b n
            mask = torch.ones_like(ids)
            hidden = self._network(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden[0].cpu().clone(), num_tokens  # n d

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        assert self._tokenizer_path is not None, 'it is there'
        return Tokenizer(self._tokenizer_path)

    def _check_there(self, text: str) -> None:
        for what, path, files in (
                ('text encoder', self._path, ENCODER_FILE),
                ('tokenizer', self._tokenizer_path, f'--include "{TOKENIZER_FOLDER}/*"')):
            if path is None or not path.exists():
                where = f'no {what} was found' if path is None else f'{shown(path)} is not there'
                raise SpecError(f'{quoted(text, 60)} is a new prompt, and {where}; download it: '
                                f'{DOWNLOAD} {files} --local-dir <folder of the checkpoint>, or '
                                'use a prompt that was used before.')

    def _write(self, cache: 'EmbeddingCache', key: str, embedding: 'Tensor',
               num_tokens: int) -> None:
        try:
            cache.write(key, embedding, num_tokens)
        except OSError as error:  # a full disk must not stop a world
            self._log(f'The embedding of the prompt was not kept for later: {error}.')


def load_text_encoder(path: Union[str, Path, None], tokenizer_path: Union[str, Path, None],
                      device: str = 'cpu', cache_dir: Union[str, Path, None] = None,
                      log: Callable[[str], None] = lambda text: None) -> TextEncoder:
    """
    Prepare the text encoder; nothing is read before a prompt needs it.

    :param path: ``models_t5_umt5-xxl-enc-bf16.pth``, safetensors in its names, or a folder of
        transformers (``text_encoder/``); None or a missing one matter at the first prompt that
        is not in the cache
    :param tokenizer_path: folder with ``tokenizer.json`` or ``spiece.model``, or one of them
    :param device: 'cpu' (seconds per prompt) or a GPU with 11 GB to spare
    :param cache_dir: for embeddings; None or '' is ~/.cache/lingbot_world_ros
    :param log: called with what a user should know
    :return: the encoder
    """
    cache = EmbeddingCache(Path(cache_dir or DEFAULT_CACHE).expanduser() / 'text')
    return TextEncoder(path, tokenizer_path, device, cache, log)


class EmbeddingCache:
    """
    Embeddings of prompts in a folder, the ones used last.

    An entry is written beside its place and moved there, so several processes may share a folder.
    What cannot be read counts as not there.
    """

    def __init__(self, folder: Path, max_entries: int = CACHE_ENTRIES) -> None:
        """
        Note the folder; it is made with the first entry.

        :param folder: of entries only
        :param max_entries: the ones not used for longest are deleted
        """
        self.folder, self.max_entries = folder, max_entries

    def read(self, key: str) -> Optional[Tuple['Tensor', int]]:
        """
        Look up an entry.

        :param key: of the prompt and the encoder
        :return: the embedding and the number of tokens of the prompt before it was cut; None if
            there is none
        """
        path = self._entry(key)
        try:
            from safetensors import safe_open
            with safe_open(path, 'pt') as file:
                embedding = file.get_tensor('embedding').clone()
                num_tokens = int(file.metadata()['num_tokens'])
            if embedding.ndim != 2 or len(embedding) != min(num_tokens, MAX_TOKENS):
                return None
            os.utime(path)
            return embedding, num_tokens
        except Exception:  # safetensors raises errors of its own; the entry is written again
            return None

    def write(self, key: str, embedding: 'Tensor', num_tokens: int) -> None:
        """
        Keep an entry, and delete the oldest ones beyond the limit.

        :param key: of the prompt and the encoder
        :param embedding: (n, d)
        :param num_tokens: of the prompt before it was cut
        :raises OSError: if the disk does not take it
        """
        from safetensors.torch import save
        content = save({'embedding': embedding.contiguous()}, {'num_tokens': str(num_tokens)})
        _replace(self._entry(key), content)
        entries = sorted(self.folder.glob('*.safetensors'), key=_used_at, reverse=True)
        for path in entries[self.max_entries:]:
            path.unlink(missing_ok=True)

    def known_print(self, path: Optional[Path], make: Callable[[Path], str]) -> str:
        """
        Return what identifies a file, also when it has been deleted since.

        :param path: of the file or folder; None for none
        :param make: called with it while it is there
        :return: fingerprint, '' if it was never there
        """
        if path is None:
            return ''
        note = self.folder / f'{_digest(str(path.absolute()).encode())}.print'
        try:
            fingerprint = make(path)
        except (OSError, SpecError):
            return note.read_text(errors='replace') if note.is_file() else ''
        try:
            if not note.is_file() or note.read_text(errors='replace') != fingerprint:
                _replace(note, fingerprint.encode())
        except OSError:
            pass  # matters only once the file is gone
        return fingerprint

    def _entry(self, key: str) -> Path:
        return self.folder / f'{key}.safetensors'


def encoder_print(path: Path) -> str:
    """
    Identify an encoder without reading it: size, time and both ends of its files.

    :param path: file or folder, as ``load_network`` takes it
    :return: hexadecimal digits
    :raises OSError: if it is not there
    """
    names = ('*.safetensors', '*.bin', '*.json')
    files = [path] if path.is_file() else sorted(p for name in names for p in path.glob(name))
    if not files:
        raise FileNotFoundError(path)
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f'{file.name} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
        with file.open('rb') as content:
            digest.update(content.read(EDGE_BYTES))
            content.seek(max(stat.st_size - EDGE_BYTES, 0))
            digest.update(content.read(EDGE_BYTES))
    return digest.hexdigest()


def tokenizer_print(path: Path) -> str:
    """Identify a tokenizer by its content; raises as ``Tokenizer`` does."""
    return _digest(_tokenizer_file(path).read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _used_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # another process deleted it
        return 0


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix='.part')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _path(value: Union[str, Path, None]) -> Optional[Path]:
    return Path(value).expanduser() if value else None


def _package(name: str) -> Any:
    """Import a package that only this engine needs."""
    import importlib
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(f'The text encoder needs the Python package {error.name or name}: '
                        f'pip install {error.name or name}.') from error


# Tokenizers


def _tokenizer_file(path: Path) -> Path:
    """Return the file to read of a folder."""
    names = ('tokenizer.json', 'spiece.model')
    for file in (path, *(path / name for name in names)):
        if file.is_file():
            return file
    raise SpecError(f'{quoted(path)} holds neither of {" and ".join(names)}; download it: '
                    f'{DOWNLOAD} --include "{TOKENIZER_FOLDER}/*".')


def _read_tokenizer(path: Path) -> Tuple[Callable[[str], List[int]], int]:
    """Return a function from text to tokens, and the end mark."""
    tokenizer = _package('tokenizers').Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = tokenizer.token_to_id(END_NAME)
    if end is None:
        raise SpecError(f'{shown(path)} has no token {END_NAME}; it is not the tokenizer of '
                        f'UMT5, which is in {TOKENIZER_FOLDER}.')
    return lambda text: tokenizer.encode(text).ids, end


def _read_pieces(path: Path) -> Tuple[Callable[[str], List[int]], int]:
    """As ``_read_tokenizer``."""
    pieces = _package('sentencepiece').SentencePieceProcessor(model_file=str(path))
    end = pieces.eos_id()
    return pieces.encode, END if end < 0 else end


# Weights


def _public_tensors(path: Path) -> Dict[str, 'Tensor']:
    """Return all tensors of an encoder, mapped, under their names in transformers."""
    tensors = {}
    for file in _weight_files(path):
        tensors.update(_mapped(file))
    out, unknown = {}, []
    for name, tensor in tensors.items():
        new = _hf_name(name)
        if new is None:
            unknown.append(name)
        elif new:
            out[new] = tensor
    if TIED in out:
        out.setdefault(SHARED, out.pop(TIED))
        out.pop(TIED, None)
    if unknown or SHARED not in out:
        raise SpecError(f'{shown(path)} is not an UMT5 encoder: '
                        + (f'it holds {quoted(unknown[0])}' if unknown else
                           'it lacks token_embedding.weight')
                        + f'; expected {ENCODER_FILE}, or text_encoder/ of transformers.')
    return out


def _hf_name(name: str) -> Optional[str]:
    """Return the name in transformers; '' for what an encoder needs not, None if unknown."""
    if name.startswith(('decoder.', 'lm_head.')):
        return ''  # of the whole UMT5
    if name in NAMES or name in NAMES.values() or name == TIED:
        return NAMES.get(name, name)
    for pattern, names in ((r'blocks\.(\d+)\.(.+)', BLOCK_NAMES),
                           (r'encoder\.block\.(\d+)\.(.+)', {n: n for n in BLOCK_NAMES.values()})):
        match = re.fullmatch(pattern, name)
        if match and match[2] in names:
            return f'encoder.block.{match[1]}.{names[match[2]]}'
    return None


def _weight_files(path: Path) -> List[Path]:
    if not path.is_dir():
        return [path]
    for name in FOLDER_FILES:
        file = path / name
        if file.is_file() and name.endswith('.index.json'):
            return [path / shard for shard in _shards(file)]
        if file.is_file():
            return [file]
    raise SpecError(f'{shown(path)} holds none of {", ".join(FOLDER_FILES)}; expected the folder '
                    'text_encoder of transformers.')


def _shards(index: Path) -> List[str]:
    names = _json(index).get('weight_map')
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise SpecError(f'{shown(index)} has no weight_map; download it again.')
    return sorted(set(names.values()))


def _mapped(path: Path) -> Dict[str, 'Tensor']:
    """Return the tensors of a file as a map of it, not a copy."""
    check_file(path)
    if path.suffix in PICKLES:
        return _mapped_pickle(path)
    SafetensorsFile(path)  # tells of what is missing in it
    from safetensors.torch import load_file
    return load_file(path)


def _mapped_pickle(path: Path) -> Dict[str, 'Tensor']:
    import pickle
    import torch
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError,
            KeyError) as error:
        raise SpecError(f'{shown(path)} cannot be read as weights of PyTorch '
                        f'({shown(str(error).splitlines()[0], 100)}); download it '
                        'again.') from None
    if not isinstance(content, dict) or not all(
            isinstance(value, torch.Tensor) for value in content.values()):
        raise SpecError(f'{shown(path)} is not a plain state_dict; expected {ENCODER_FILE}.')
    return content


def _spec_of(tensors: Dict[str, 'Tensor'], path: Path) -> UMT5Spec:
    """Read the sizes off the shapes, and check every tensor against them."""
    block = 'encoder.block.0.'
    need = {name: f'{block}{BLOCK_NAMES[name]}' for name in (
        'attn.q.weight', 'ffn.fc1.weight', 'pos_embedding.embedding.weight')}
    for name in need.values():
        if name not in tensors or tensors[name].ndim != 2:
            raise SpecError(f'{shown(path)} is not an UMT5 encoder: it lacks {name} with two '
                            f'axes; expected {ENCODER_FILE}.')
    q, ffn, bias = (tensors[name].shape for name in need.values())
    layers = {int(name.split('.')[2]) for name in tensors if name.startswith('encoder.block.')}
    spec = UMT5Spec(tensors[SHARED].shape[0], q[1], q[0], ffn[0], bias[1], len(layers), bias[0])
    if spec.attention_dim % spec.num_heads:
        raise SpecError(f'{shown(path)} has {spec.num_heads} heads in {spec.attention_dim} '
                        'channels, which does not divide; download it again.')
    shapes = spec.shapes
    wrong = ([f'lacks {name}' for name in shapes if name not in tensors]
             + [f'holds {name}' for name in tensors if name not in shapes]
             + [f'{name} is {tuple(tensors[name].shape)}, not {shape}' for name, shape
                in shapes.items() if name in tensors and tuple(tensors[name].shape) != shape])
    if wrong:
        more = f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''
        raise SpecError(f'{shown(path)} is not a whole UMT5 encoder: {wrong[0]}{more}; download '
                        'it again.')
    return spec


def _settings(path: Path) -> Dict[str, Any]:
    """Return config.json of a folder; shapes do not tell all of it."""
    file = path / 'config.json'
    if not path.is_dir() or not file.is_file():
        return {}
    settings = _json(file)
    if settings.get('feed_forward_proj', 'gated-gelu') != 'gated-gelu':
        raise SpecError(f'{shown(file)}: feed_forward_proj='
                        f'{quoted(settings["feed_forward_proj"])}; UMT5 has gated-gelu.')
    return settings


def _json(path: Path) -> Dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise SpecError(f'{shown(path)} is no JSON object; download it again.')
    return content
