# SPDX-License-Identifier: Apache-2.0
"""
A prompt as UMT5 reads it: cleaned as in training, then cut into tokens.

Tokens n: at most 512, the last is the end mark.
"""
import hashlib
import html
import importlib
from pathlib import Path
import re
from typing import Any, Callable, List, Tuple

from lingbot_world_ros.errors import quoted, shown, SpecError

MAX_TOKENS = 512
TOKENIZER_FOLDER = 'google/umt5-xxl'
DOWNLOAD = 'hf download robbyant/lingbot-world-base-cam'
END, END_NAME = 1, '</s>'


def clean_prompt(prompt: str) -> str:
    """
    Clean a prompt as it was in training.

    :param prompt: any text
    :return: broken characters and HTML entities repaired, one space between words
    :raises SpecError: if it is no text, or a package is missing
    """
    if not isinstance(prompt, str):
        raise SpecError(f'The prompt is a {type(prompt).__name__}; expected a text.')
    ftfy = needed_package('ftfy')
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


def tokenizer_fingerprint(path: Path) -> str:
    """Identify a tokenizer by its content; raises as ``Tokenizer`` does."""
    return hashlib.sha256(_tokenizer_file(path).read_bytes()).hexdigest()[:40]


def needed_package(name: str) -> Any:
    """
    Import a package that only the text encoder needs.

    :param name: as Python imports it
    :return: the module
    :raises SpecError: it is not installed; says what to install
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(f'The text encoder needs the Python package {error.name or name}: '
                        f'pip install {error.name or name}.') from error


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
    tokenizer = needed_package('tokenizers').Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = tokenizer.token_to_id(END_NAME)
    if end is None:
        raise SpecError(f'{shown(path)} has no token {END_NAME}; it is not the tokenizer of '
                        f'UMT5, which is in {TOKENIZER_FOLDER}.')
    return lambda text: tokenizer.encode(text).ids, end


def _read_pieces(path: Path) -> Tuple[Callable[[str], List[int]], int]:
    """As ``_read_tokenizer``."""
    pieces = needed_package('sentencepiece').SentencePieceProcessor(model_file=str(path))
    end = pieces.eos_id()
    return pieces.encode, END if end < 0 else end
