# SPDX-License-Identifier: Apache-2.0
"""
Embeddings of prompts on disk, so that the encoder is read only for prompts that are new.

Axes: n tokens of the prompt, d model width.
"""
import hashlib
import os
from pathlib import Path
from typing import Callable, Optional, Tuple, TYPE_CHECKING

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.models.cache_file import replace_file
from lingbot_world_ros.models.wan.tokenizer import MAX_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

CACHE_ENTRIES = 256  # of up to 4 MB each, most of them a tenth of that


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
        replace_file(self._entry(key), content)
        entries = sorted(self.folder.glob('*.safetensors'), key=_used_at, reverse=True)
        for path in entries[self.max_entries:]:
            path.unlink(missing_ok=True)

    def known_fingerprint(self, path: Optional[Path], make: Callable[[Path], str]) -> str:
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
                replace_file(note, fingerprint.encode())
        except OSError:
            pass  # matters only once the file is gone
        return fingerprint

    def _entry(self, key: str) -> Path:
        return self.folder / f'{key}.safetensors'


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _used_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # another process deleted it
        return 0
