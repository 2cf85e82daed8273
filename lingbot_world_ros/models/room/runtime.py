# SPDX-License-Identifier: Apache-2.0
"""
The files of the embedded world, and how OpenVINO runs them. Needs no torch.

A folder holds ``model.json``, two ONNX graphs (dynamics, renderer) that all scenes share, and the
tensors of each scene.
"""
import atexit
from contextlib import suppress
from functools import lru_cache
import hashlib
from importlib import import_module
from io import BytesIO
import json
import os
from pathlib import Path
from typing import Any, Dict, Tuple, TYPE_CHECKING

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.imports import import_without
from lingbot_world_ros.models.cache_file import read_checked, write_checked
import numpy as np
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from openvino import CompiledModel

CONVERTER = 'openvino.tools.ovc'
WEIGHTS = Path(__file__).parent / 'weights'
FORMAT = 1
REMEDY = 'Restore the folder from the release, or train and export it again.'
NUM_LATENT = 8  # width of the stochastic part
Arrays = Dict[str, np.ndarray]


class Graph:
    """One ONNX graph on OpenVINO with a scene's tensors already in place."""

    def __init__(self, path: Path, tensors: Arrays, threads: int) -> None:
        """
        Compile for fixed sizes and one world.

        :param path: ONNX file
        :param tensors: constant inputs, by name
        :param threads: CPU threads
        """
        openvino = import_openvino()
        shapes = tuple((name, array.shape) for name, array in sorted(tensors.items()))
        compiled = compile_graph(path, path.stat().st_mtime_ns, shapes, threads)
        self._request = compiled.create_infer_request()
        self._constants = []  # the request only borrows them
        self._inputs = {}
        for port in compiled.inputs:
            name = _port_name(port)
            if name in tensors:
                self._constants.append(tensors[name])
                self._request.set_tensor(port, openvino.Tensor(tensors[name], shared_memory=True))
            else:
                self._inputs[name] = self._request.get_tensor(port).data
        self._outputs = {_port_name(p): self._request.get_tensor(p).data
                         for p in compiled.outputs}

    def __call__(self, inputs: Arrays) -> Arrays:
        """
        Run once.

        :param inputs: arrays by name; those that the graph does not take are left out
        :return: name -> array, owned by the caller
        """
        for name, array in self._inputs.items():
            array[:] = inputs[name]
        self._request.infer()
        return {name: array.copy() for name, array in self._outputs.items()}


def import_openvino() -> Any:
    """
    Import OpenVINO; its model converter, half of the time that takes, follows at its first use.

    :return: the package
    """
    package: Any = import_without('openvino', CONVERTER)
    if 'convert_model' not in vars(package):
        def convert_model(*args: Any, **options: Any) -> Any:
            """Convert a model; see OpenVINO."""
            package.convert_model = import_module(CONVERTER).convert_model
            return package.convert_model(*args, **options)
        package.convert_model = convert_model
    return package


@lru_cache(8)  # worlds in one process share what does not change: both graphs of four scenes
def compile_graph(path: Path, _mtime_ns: int, shapes: Tuple[Tuple[str, Tuple[int, ...]], ...],
                  threads: int) -> 'CompiledModel':
    """
    Compile a graph for one world.

    :param path: ONNX file
    :param _mtime_ns: when it was written; another file is compiled anew
    :param shapes: name and shape of constant inputs
    :param threads: CPU threads
    :return: of which each world makes a request of its own
    """
    openvino = import_openvino()
    core = openvino.Core()
    settings = {'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1, 'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_PRECISION_HINT': 'f32'}
    # Not by CACHE_DIR of OpenVINO, which changes the locale of the process while it works and
    # takes a file with a changed byte.
    made_of = (openvino.__version__, core.get_property('CPU', 'FULL_DEVICE_NAME'),
               os.environ.get('ONEDNN_MAX_CPU_ISA'), settings, shapes)
    key = hashlib.sha256(repr(made_of).encode() + path.read_bytes()).hexdigest()
    kept = f'compiled/{path.stem}-{key[:32]}.bin'
    content = read_checked(kept)
    if content is not None:
        with suppress(RuntimeError):
            return core.import_model(BytesIO(content), 'CPU', settings)
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise SpecError(f'{path} cannot be read: not an ONNX graph. {REMEDY}') from error
    known = dict(shapes)
    model.reshape({port: known.get(_port_name(port)) or [
        1, *(d.get_length() for d in list(port.get_partial_shape())[1:])]
        for port in model.inputs})
    compiled = core.compile_model(model, 'CPU', settings)
    write_checked(kept, compiled.export_model().getvalue())
    return compiled


atexit.register(compile_graph.cache_clear)  # while the threads of the runtime can still end


def _port_name(port: Any) -> str:
    """Name given at export; the runtime keeps names of internal edges beside it."""
    return next(n for n in port.get_names() if '/' not in n)


def read_about(folder: Path, verify: bool = False) -> Dict[str, Any]:
    """
    Read ``model.json`` and check that the files it names are there.

    :param folder: weights folder
    :param verify: also compare checksums
    :return: the content
    :raises SpecError: missing, corrupt, or another format
    """
    path = Path(folder) / 'model.json'
    try:
        about = json.loads(path.read_text())
        version, sums = about['format'], about['sha256']
    except FileNotFoundError:
        raise SpecError(f'No weights in {folder}: {path.name} is missing. {REMEDY}') from None
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f'{path} is corrupt ({error!r}). {REMEDY}') from None
    if version != FORMAT:
        raise SpecError(f'{path} has format {version}, expected {FORMAT}. {REMEDY}')
    for name, expected in sums.items():
        file = Path(folder) / name
        if not file.is_file():
            raise SpecError(f'{file} is missing. {REMEDY}')
        if verify and hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise SpecError(f'{file} is corrupt: its checksum does not match. {REMEDY}')
    return about


def scene_tensors(folder: Path, scene: str) -> Arrays:
    """
    Read one scene's tensors in the form the graphs take them.

    :param folder: weights folder
    :param scene: name of the scene
    :return: name -> float32 array
    :raises SpecError: unreadable file
    """
    tensors = _read_tensors(folder / f'{scene}.safetensors')
    # Slices of the distance grid side by side, each with the next one as second channel.
    sdf = tensors.pop('sdf')
    above = np.concatenate([sdf[..., 1:], sdf[..., -1:]], -1)
    atlas = np.stack([sdf, above]).transpose(0, 1, 3, 2)
    tensors['atlas'] = np.ascontiguousarray(atlas.reshape(1, 2, len(sdf), -1))
    contact = _read_tensors(folder / 'contact.safetensors')
    prefix = f'{scene}.'
    tensors.update({k[len(prefix):]: v for k, v in contact.items() if k.startswith(prefix)})
    return tensors


def _read_tensors(path: Path) -> Arrays:
    try:
        return {k: np.ascontiguousarray(v, np.float32) for k, v in load_file(path).items()}
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{path} cannot be read ({error}). {REMEDY}') from error
