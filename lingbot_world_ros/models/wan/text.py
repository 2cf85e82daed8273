# SPDX-License-Identifier: Apache-2.0
"""
Prompts to embeddings: the tokenizer, UMT5-XXL's encoder, and a cache on disk in one.

The encoder has 11 GB and is needed once per prompt, so it is read at the first prompt that is not
in the cache; later runs with the same prompts need neither its file nor the time. Nothing here
looks anything up in a network.

Axes: n tokens of the prompt (at most 512, the last is the end mark), d model width.
"""
from functools import cached_property
import hashlib
from pathlib import Path
import threading
from typing import Any, Callable, Optional, Tuple, TYPE_CHECKING, Union

from lingbot_world_ros.errors import quoted, shown, SpecError
from lingbot_world_ros.models.wan.embedding_cache import EmbeddingCache
from lingbot_world_ros.models.wan.tokenizer import (clean_prompt, DOWNLOAD, MAX_TOKENS, Tokenizer,
                                                    tokenizer_fingerprint, TOKENIZER_FOLDER)
from lingbot_world_ros.models.wan.umt5 import ENCODER_FILE, encoder_fingerprint, load_network
from lingbot_world_ros.paths import CACHE

if TYPE_CHECKING:
    from torch import Tensor


class TextEncoder:
    """
    Prompts to embeddings; see ``load_text_encoder``.

    ``encode`` may be called from any thread.
    """

    def __init__(self, path: Union[str, Path, None], tokenizer_path: Union[str, Path, None],
                 device: str = 'cpu', cache: Optional[EmbeddingCache] = None,
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
        fingerprints = [self._cache.known_fingerprint(path, make) for path, make in (
            (self._path, encoder_fingerprint), (self._tokenizer_path, tokenizer_fingerprint))]
        return hashlib.sha256('\n'.join((*fingerprints, text)).encode()).hexdigest()[:40]

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

    def _write(self, cache: EmbeddingCache, key: str, embedding: 'Tensor',
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
    cache = EmbeddingCache(Path(cache_dir or CACHE).expanduser() / 'text')
    return TextEncoder(path, tokenizer_path, device, cache, log)


def _path(value: Union[str, Path, None]) -> Optional[Path]:
    return Path(value).expanduser() if value else None
