# SPDX-License-Identifier: Apache-2.0
"""
The files of the embedded world, and how OpenVINO runs them. Needs no torch.

A folder holds ``model.json``, ONNX graphs that all scenes share, and the tensors of each scene.
``dynamics`` is the transition model. ``renderer`` is the observation model; ``geometry`` and
``drawing`` are the same in two parts, so that only the second need be bfloat16, with fewer steps;
``geometry_small`` and ``drawing_small`` have learned small pictures, with planes of their own.
Cameras come in as constants.
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
from typing import Any, Dict, Optional, Tuple, TYPE_CHECKING

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.geometry.camera import MountedCamera
from lingbot_world_ros.imports import import_without
from lingbot_world_ros.models.cache_file import read_checked, write_checked
from lingbot_world_ros.models.room.lens import lens_tensors
import numpy as np
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from openvino import CompiledModel

CONVERTER = 'openvino.tools.ovc'
WEIGHTS = Path(__file__).parent / 'weights'
FORMAT = 2
REMEDY = 'Restore the folder from the release, or train and export it again.'
NUM_LATENT = 8  # width of the stochastic part
FULL, QUICK = 'f32', 'bf16'  # precisions of a graph; bfloat16 only where the CPU has it
WITH_BFLOAT16 = 'BF16', 'FP16', 'AMX', 'AVX10', 'ALL', 'DEFAULT'  # in names of instruction sets
CHUNKS = 1, 8, 32  # rows that a transition graph is compiled for
Arrays = Dict[str, np.ndarray]


class Graph:
    """One ONNX graph on OpenVINO with a scene's tensors already in place."""

    def __init__(self, path: Path, tensors: Arrays, threads: int, *,
                 camera: Optional[MountedCamera] = None, rows: int = 1,
                 precision: str = FULL) -> None:
        """
        Compile for fixed sizes.

        :param path: ONNX file
        :param tensors: inputs that stay where they are, by name; they are read at every run
        :param threads: CPU threads
        :param camera: whose tensors to put in; None: the graph does not look
        :param rows: worlds of one run
        :param precision: ``FULL`` or ``QUICK``
        """
        openvino = import_openvino()
        shapes = tuple((name, array.shape) for name, array in sorted(tensors.items()))
        compiled = compile_graph(path, path.stat().st_mtime_ns, shapes, threads, camera, rows,
                                 precision)
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
        self.outputs = {_port_name(p): self._request.get_tensor(p).data
                        for p in compiled.outputs}

    def width(self, name: str) -> int:
        """Return the length of an input's last axis."""
        return self._inputs[name].shape[-1]

    def __call__(self, inputs: Arrays) -> Arrays:
        """
        Run once.

        :param inputs: arrays by name; those that the graph does not take are left out
        :return: name -> array, owned by the caller
        """
        self.run(inputs)
        return {name: array.copy() for name, array in self.outputs.items()}

    def run(self, inputs: Arrays) -> None:
        """
        Run once; ``outputs`` has what comes out, until the next run.

        :param inputs: arrays by name, of as many rows as there are or fewer
        """
        for name, array in self._inputs.items():
            array[:len(inputs[name])] = inputs[name]
        self._request.infer()


class RendererParts:
    """The observation model as two graphs, of which the second reads what the first writes."""

    def __init__(self, folder: Path, suffix: str, tensors: Arrays, threads: int,
                 camera: MountedCamera, precision: str) -> None:
        """
        Compile both.

        :param folder: with the weights
        :param suffix: of the names of both graphs, '' or '_small'
        :param tensors: of the scene
        :param threads: CPU threads
        :param camera: whose pictures to draw
        :param precision: of the second
        """
        self._geometry = Graph(folder / f'geometry{suffix}.onnx', tensors, threads, camera=camera)
        self._drawing = Graph(folder / f'drawing{suffix}.onnx', self._geometry.outputs, threads,
                              camera=camera, precision=precision)

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run both once; see ``Graph``."""
        self._geometry.run(inputs)
        return self._drawing(inputs)


class ManyRows:
    """A graph for any number of rows, compiled for a few numbers when they are first needed."""

    def __init__(self, path: Path, tensors: Arrays, threads: int) -> None:
        """See ``Graph``."""
        self._of = path, tensors, threads
        self._graphs: Dict[int, Graph] = {}

    def __call__(self, inputs: Arrays) -> Arrays:
        """
        Run as often as it takes.

        :param inputs: arrays by name, first axis n
        :return: name -> array, first axis n, owned by the caller
        """
        num_rows, parts, begin = len(next(iter(inputs.values()))), [], 0
        while begin < num_rows:
            left = num_rows - begin
            size = next((size for size in CHUNKS if size >= left), CHUNKS[-1])
            graph, end = self._graph(size), begin + min(size, left)
            graph.run({name: array[begin:end] for name, array in inputs.items()})
            parts.append({name: array[:end - begin].copy()
                          for name, array in graph.outputs.items()})
            begin = end
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _graph(self, rows: int) -> Graph:
        if rows not in self._graphs:
            path, tensors, threads = self._of
            self._graphs[rows] = Graph(path, tensors, threads, rows=rows)
        return self._graphs[rows]


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


def has_bfloat16() -> bool:
    """Say whether this CPU, as far as OpenVINO may use it, computes with bfloat16."""
    allowed = os.environ.get('ONEDNN_MAX_CPU_ISA', '').upper()  # of which OpenVINO does not tell
    if allowed and not any(name in allowed for name in WITH_BFLOAT16):
        return False
    capabilities = import_openvino().Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    return 'BF16' in capabilities


@lru_cache(32)  # worlds in one process share what does not change
def compile_graph(path: Path, _mtime_ns: int, shapes: Tuple[Tuple[str, Tuple[int, ...]], ...],
                  threads: int, camera: Optional[MountedCamera] = None, rows: int = 1,
                  precision: str = FULL) -> 'CompiledModel':
    """
    Compile a graph.

    :param path: ONNX file
    :param _mtime_ns: when it was written; another file is compiled anew
    :param shapes: name and shape of constant inputs
    :param threads: CPU threads
    :param camera: whose ``lens_tensors`` are put in; None: it takes none
    :param rows: first axis of the other inputs
    :param precision: ``FULL`` or ``QUICK``
    :return: of which each world makes a request of its own
    """
    openvino = import_openvino()
    core = openvino.Core()
    settings = {'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1, 'PERFORMANCE_HINT': 'LATENCY',
                'INFERENCE_PRECISION_HINT': precision}
    lens = lens_tensors(camera) if camera else {}
    # Not by CACHE_DIR of OpenVINO, which changes the locale of the process while it works and
    # takes a file with a changed byte.
    made_of = (openvino.__version__, core.get_property('CPU', 'FULL_DEVICE_NAME'),
               os.environ.get('ONEDNN_MAX_CPU_ISA'), settings, shapes, rows, sorted(lens))
    parts = [repr(made_of).encode(), path.read_bytes(),
             *(lens[name].tobytes() for name in sorted(lens))]
    kept = f'compiled/{path.stem}-{hashlib.sha256(b"".join(parts)).hexdigest()[:32]}.bin'
    content = read_checked(kept)
    if content is not None:
        with suppress(RuntimeError):
            return core.import_model(BytesIO(content), 'CPU', settings)
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise SpecError(f'{path} cannot be read: not an ONNX graph. {REMEDY}') from error
    _put_in(model, lens)
    known = dict(shapes)
    model.reshape({port: known.get(_port_name(port)) or [
        rows, *(d.get_length() for d in list(port.get_partial_shape())[1:])]
        for port in model.inputs})
    compiled = core.compile_model(model, 'CPU', settings)
    write_checked(kept, compiled.export_model().getvalue())
    return compiled


def _put_in(model: Any, constants: Arrays) -> None:
    """Make inputs of a model constant, so that what follows from them alone is computed once."""
    for parameter in model.get_parameters():
        port = parameter.output(0)
        if _port_name(port) in constants:
            value = import_openvino().opset13.constant(constants[_port_name(port)])
            for reader in port.get_target_inputs():
                reader.replace_source_output(value.output(0))
            model.remove_parameter(parameter)


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


def scene_tensors(folder: Path, scene: str, small: bool = False) -> Arrays:
    """
    Read one scene's tensors in the form the graphs take them.

    :param folder: weights folder
    :param scene: name of the scene
    :param small: those of the graphs for small pictures
    :return: name -> float32 array
    :raises SpecError: unreadable file
    """
    tensors = _read_tensors(folder / f'{scene}.safetensors')
    # Slices of the distance grid side by side, each with the next one as second channel.
    sdf = tensors.pop('sdf')
    above = np.concatenate([sdf[..., 1:], sdf[..., -1:]], -1)
    atlas = np.stack([sdf, above]).transpose(0, 1, 3, 2)
    tensors['atlas'] = np.ascontiguousarray(atlas.reshape(1, 2, len(sdf), -1))
    prefix = f'{scene}.'
    for name in ('contact', 'small') if small else ('contact',):
        own = _read_tensors(folder / f'{name}.safetensors')
        tensors.update({k[len(prefix):]: v for k, v in own.items() if k.startswith(prefix)})
    return tensors


def _read_tensors(path: Path) -> Arrays:
    try:
        return {k: np.ascontiguousarray(v, np.float32) for k, v in load_file(path).items()}
    except Exception as error:  # the library raises its own, undocumented types
        raise SpecError(f'{path} cannot be read ({error}). {REMEDY}') from error
