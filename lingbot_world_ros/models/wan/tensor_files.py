# SPDX-License-Identifier: Apache-2.0
"""
Files of tensors: what is in them without reading it, then one tensor at a time.

safetensors files are read with plain reads, not mapped: the memory used is that of one tensor, no
matter how large the file is. PyTorch's own files (.pth) are mapped, and refused where loading
them would run code. Looking into safetensors needs no torch.
"""
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Tuple, TYPE_CHECKING, Union

from lingbot_world_ros.errors import quoted, shown, SpecError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SAFETENSORS = ('.safetensors',)
PICKLES = ('.pth', '.pt', '.ckpt', '.bin')
DTYPE_BYTES = {'F64': 8, 'I64': 8, 'U64': 8, 'F32': 4, 'I32': 4, 'U32': 4, 'F16': 2, 'BF16': 2,
               'I16': 2, 'U16': 2, 'F8_E4M3': 1, 'F8_E5M2': 1, 'I8': 1, 'U8': 1, 'BOOL': 1}
TORCH_DTYPES = {'F64': 'float64', 'I64': 'int64', 'F32': 'float32', 'I32': 'int32',
                'F16': 'float16', 'BF16': 'bfloat16', 'I16': 'int16', 'F8_E4M3': 'float8_e4m3fn',
                'F8_E5M2': 'float8_e5m2', 'I8': 'int8', 'U8': 'uint8', 'BOOL': 'bool'}
MAX_HEADER_BYTES = 100 * 10 ** 6  # the format's own limit
LFS_MARK = b'version https://git-lfs'
AGAIN = 'it was not downloaded completely; run the same hf download again'


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about one tensor; ``dtype`` is called as in safetensors ('BF16')."""

    dtype: str
    shape: Tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return self.num_elements * DTYPE_BYTES[self.dtype]


class SafetensorsFile:
    """One safetensors file: ``infos`` in the order of the file, and ``get``."""

    def __init__(self, path: Path) -> None:
        """
        Read the header.

        :param path: of the file
        :raises SpecError: if it is no safetensors file, or an incomplete one
        """
        self.path = path
        self._file: Any = None  # opened unbuffered
        self._scratch: Any = None  # torch.Tensor
        self._start, self._header = _safetensors_header(path)
        self.infos = {name: TensorInfo(entry['dtype'], tuple(entry['shape']))
                      for name, entry in self._header.items()}

    def __enter__(self) -> 'SafetensorsFile':
        """Open for reading."""
        self._file = self.path.open('rb', buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._file.close()
        self._scratch = None

    def get(self, name: str) -> 'Tensor':
        """
        Read one tensor.

        :param name: as in ``infos``
        :return: a tensor of its own memory on the host
        """
        import torch
        return self._read(name, torch.empty(self.infos[name].num_bytes, dtype=torch.uint8))

    def borrow(self, name: str) -> 'Tensor':
        """
        Read one tensor into memory that the next call uses again.

        Large buffers that come and go between the tensors that stay would leave holes that the
        C library cannot use: a quarter of the network's size, as measured.

        :param name: as in ``infos``
        :return: a tensor on the host, good until the next call
        """
        import torch
        if self._scratch is None:
            largest = max(info.num_bytes for info in self.infos.values())
            self._scratch = torch.empty(largest, dtype=torch.uint8)
        return self._read(name, self._scratch[:self.infos[name].num_bytes])

    def _read(self, name: str, data: 'Tensor') -> 'Tensor':
        import torch
        info = self.infos[name]
        if info.num_bytes:
            self._file.seek(self._start + self._header[name]['data_offsets'][0])
            _read_into(self._file, data.numpy().data, self.path)
        return data.view(getattr(torch, TORCH_DTYPES[info.dtype])).view(info.shape)


class PickleFile:
    """One of PyTorch's own files, mapped into memory; offers what ``SafetensorsFile`` does."""

    def __init__(self, path: Path) -> None:
        """
        Map the file.

        :param path: of the file
        :raises SpecError: if it is damaged, would run code, or holds no plain tensors
        """
        self.path, self._tensors = path, _load_pickle(path)
        self.infos = {name: TensorInfo(_safetensors_dtype(tensor.dtype), tuple(tensor.shape))
                      for name, tensor in self._tensors.items()}

    def __enter__(self) -> 'PickleFile':
        """Do nothing; the file is mapped already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the mapping."""
        self._tensors = {}

    def get(self, name: str) -> 'Tensor':
        """
        Return one tensor.

        :param name: as in ``infos``
        :return: a tensor of its own memory on the host
        """
        import torch
        return self._tensors[name].clone(memory_format=torch.contiguous_format)

    def borrow(self, name: str) -> 'Tensor':
        """
        Return one tensor without a copy.

        :param name: as in ``infos``
        :return: a tensor of the mapped memory
        """
        return self._tensors[name].contiguous()


def open_tensors(path: Path) -> Union[SafetensorsFile, PickleFile]:
    """
    Open a file of tensors of either format.

    :param path: .safetensors, .pth, .pt, .ckpt or .bin
    :return: a context manager with ``infos`` (name -> TensorInfo), ``get(name)`` and
        ``borrow(name)``, which is good until the next one
    :raises SpecError: if there is no such file, or it cannot be used; says what to do
    """
    path = Path(path)
    check_file(path)
    if path.suffix in SAFETENSORS:
        return SafetensorsFile(path)
    if path.suffix in PICKLES:
        return PickleFile(path)
    raise SpecError(f'{shown(path)} is no file of tensors; expected one of '
                    f'{", ".join(SAFETENSORS + PICKLES)}.')


def read_infos(path: Path) -> Dict[str, TensorInfo]:
    """
    Say what a file holds without reading it.

    :param path: of the file
    :return: name -> dtype and shape
    :raises SpecError: as ``open_tensors``
    """
    with open_tensors(path) as file:
        return file.infos


def check_file(path: Path) -> None:
    """
    Refuse what only looks like a file of weights.

    :param path: of the file
    :raises SpecError: if it is not there, is empty, or is what git leaves in place of a large file
    """
    if not path.is_file():
        raise SpecError(f'{quoted(path)} is not a file; check the path.')
    try:
        with path.open('rb') as file:
            start = file.read(64)
    except OSError as error:
        raise SpecError(f'{shown(path)} cannot be read: {error.strerror or error}.') from None
    if start.startswith(LFS_MARK):
        raise SpecError(f'{shown(path)} is a pointer of git LFS, not the weights; run "git lfs '
                        'pull" in its folder, or download it with hf download.')
    if not start:
        raise SpecError(f'{shown(path)} is empty: {AGAIN}.')


def _safetensors_header(path: Path) -> Tuple[int, Dict[str, Any]]:
    """Return where the data starts, and the entries by their place in the file."""
    size = path.stat().st_size
    with path.open('rb') as file:
        start = file.read(8)
        length = int.from_bytes(start, 'little')
        if len(start) < 8 or length > MAX_HEADER_BYTES:
            raise SpecError(f'{shown(path)} is no safetensors file (it begins with {start!r}); '
                            'download it again.')
        text = file.read(length)
    if len(text) < length:
        raise SpecError(f'{shown(path)} ends within its header: {AGAIN}.')
    try:
        header = json.loads(text)
        header.pop('__metadata__', None)
        entries = dict(sorted(header.items(), key=lambda item: item[1]['data_offsets'][0]))
        end = max((entry['data_offsets'][1] for entry in entries.values()), default=0)
        whole = all(_fits(entry) for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise SpecError(f'{shown(path)} has a damaged safetensors header; download it '
                        'again.') from None
    if not whole:
        raise SpecError(f'{shown(path)} has a safetensors header whose sizes do not add up; '
                        'download it again.')
    if size < 8 + length + end:
        raise SpecError(f'{shown(path)} has {size} bytes and should have {8 + length + end}: '
                        f'{AGAIN}.')
    return 8 + length, entries


def _fits(entry: Mapping[str, Any]) -> bool:
    begin, end = entry['data_offsets']
    return end - begin == math.prod(entry['shape']) * DTYPE_BYTES[entry['dtype']]


def _read_into(file: RawIOBase, view: memoryview, path: Path) -> None:
    """Fill the view; one read may return less, and at most 2 GB."""
    while view:
        count = file.readinto(view)
        if not count:
            raise SpecError(f'{shown(path)} became shorter while it was read; something else '
                            'writes to it.')
        view = view[count:]


def _load_pickle(path: Path) -> Dict[str, 'Tensor']:
    import pickle
    import torch
    try:
        content = _torch_load(path)
    except pickle.UnpicklingError as error:
        if 'GLOBAL' not in str(error):
            raise SpecError(f'{shown(path)} is no file of PyTorch, or a damaged one; download it '
                            'again.') from None
        raise SpecError(f'{shown(path)} needs to run code to be loaded, which is refused; ask '
                        'for the weights as safetensors, or as a plain state_dict.') from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise SpecError(f'{shown(path)} cannot be read as a file of PyTorch '
                        f'({shown(str(error).splitlines()[0], 100)}): {AGAIN}.') from None
    for key in ('state_dict', 'model', 'module'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {str(name): value for name, value in dict(content).items()
               if isinstance(value, torch.Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise SpecError(f'{shown(path)} holds no tensors by name, but a '
                        f'{type(content).__name__}; expected a state_dict.')
    return tensors


def _torch_load(path: Path) -> Any:
    """Map where the file's format allows it; that of torch before 1.6 does not."""
    import torch
    with path.open('rb') as file:
        is_zip = file.read(4) == b'PK\x03\x04'
    return torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)


def _safetensors_dtype(dtype: 'torch.dtype') -> str:
    name = str(dtype).replace('torch.', '')
    for known, torch_name in TORCH_DTYPES.items():
        if torch_name == name:
            return known
    raise SpecError(f'tensors of dtype {name} are not supported; expected bfloat16, float16 or '
                    'float32.')


class SafetensorsWriter:
    """
    Write a safetensors file one tensor at a time, so that it need not fit into memory.

    Names must be told beforehand (room for the header is kept free at the start); sizes need not.
    """

    def __init__(self, path: Path, names: Iterable[str], metadata: Dict[str, str]) -> None:
        """
        Begin a file.

        :param path: of the file
        :param names: every tensor that will be written
        :param metadata: text to keep with them
        """
        self._header: Dict[str, Any] = {'__metadata__': metadata}
        self._end = 0
        longest = {'dtype': 'F8_E4M3', 'shape': [10 ** 9] * 5, 'data_offsets': [10 ** 14] * 2}
        room = len(json.dumps({'__metadata__': metadata, **dict.fromkeys(names, longest)}))
        self._room = -(-room // 64) * 64
        self._file = path.open('wb')
        self._file.seek(8 + self._room)

    def add(self, name: str, tensor: 'Tensor') -> None:
        """
        Append a tensor.

        :param name: one of those told beforehand
        :param tensor: any device
        """
        import torch
        data = tensor.detach().cpu().contiguous()
        content = data.flatten().view(torch.uint8).numpy()
        self._file.write(content.data)
        self._header[name] = {'dtype': _safetensors_dtype(data.dtype), 'shape': list(data.shape),
                              'data_offsets': [self._end, self._end + content.nbytes]}
        self._end += content.nbytes

    def close(self) -> None:
        """Write the header; before this the file is not valid."""
        text = json.dumps(self._header).encode()
        assert len(text) <= self._room, 'a name was not told beforehand'
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, 'little') + text.ljust(self._room))
        self._file.close()


@contextmanager
def safetensors_writer(path: Path, names: Iterable[str],
                       metadata: Optional[Dict[str, str]] = None) -> Iterator[SafetensorsWriter]:
    """
    Write a file beside ``path`` and put it there once it is whole.

    :param path: of the file
    :param names: every tensor that will be written
    :param metadata: text to keep with them
    :return: context manager of a ``SafetensorsWriter``
    """
    partial = path.with_name(path.name + '.part')
    try:
        writer = SafetensorsWriter(partial, names, metadata or {})
        yield writer
        writer.close()
        partial.replace(path)
    except OSError as error:
        raise SpecError(f'{shown(path)} cannot be written: {error.strerror or error}.') from None
    finally:
        partial.unlink(missing_ok=True)
