# SPDX-License-Identifier: Apache-2.0
"""
A trained recurrent world -> the folder that ships. Needs torch.

    python -m lingbot_world_ros.training.export_recurrent --run run --recording aligned \
        --out world --name rc_track --source 'where the recording is from' --licence 'MIT, ...'

Learns what the world tells of its own reliability from rollouts on the training pieces, and
measures on held-out ones how far to trust that. Takes the states to begin from out of the training
pieces. Writes ``world.yaml``, three ONNX graphs, ``weights.bin`` with the weights of all of them
in half precision, and ``starts.safetensors``.
"""
import argparse
from dataclasses import dataclass
import hashlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.models.recurrent.doubt import Doubt, features, SIGNS
from lingbot_world_ros.models.recurrent.familiar import Familiar, learn_familiar, MAX_KEPT
from lingbot_world_ros.models.recurrent.network import load_recurrent, RecurrentNetwork, State
from lingbot_world_ros.models.recurrent.runtime import (ABOUT, FORMAT, KEY, KIND, PARTS,
                                                        STARTS, SURPRISE)
from lingbot_world_ros.recording.aligned import load_aligned
from lingbot_world_ros.recording.delay import command_delays
from lingbot_world_ros.training.quiet_export import quiet_export
from lingbot_world_ros.training.recurrent_data import Drives, split_drives, spread, windows
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
from safetensors.torch import save_file
import torch
from torch import nn, Tensor
import yaml

CONTEXT = 12  # true frames before a rollout
FREE = 60  # frames of a rollout
ROWS = 32
NUM_STARTS = 32
RARE = 0.97  # share of held-out states within the limits
FIT_STEPS, FIT_RATE = 600, 2e-3
ALIGNED = 64  # bytes
MIN_HALVED = 64  # numbers of a tensor from which it is kept in half precision
DRAWN = 6  # frames of a rollout of which the error is measured


@dataclass
class Measured:
    """Rows of rollouts: what doubt is told, and what was true."""

    features: Tensor  # (n, f)
    commands: Tensor  # (n, m * a)
    error: Tensor  # (n,) log RMS
    surprise: Tensor  # (n,)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Export; see the module's text."""
    parser = argparse.ArgumentParser(description='Write the folder of a recurrent world.')
    parser.add_argument('--run', type=Path, required=True, help='folder of train_recurrent')
    parser.add_argument('--recording', type=Path, nargs='+', required=True)
    parser.add_argument('--held-out', type=int, default=4, help='as it was trained with')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--name', required=True, help='of the world')
    parser.add_argument('--source', required=True, help='where the recording is from')
    parser.add_argument('--licence', required=True, help='of the recording, with its holder')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    drives = split_drives([load_aligned(folder) for folder in args.recording], args.held_out)
    model = load_recurrent(args.run / 'recurrent.safetensors')
    about = {'name': args.name, 'source': args.source, 'licence': args.licence}
    export_world(model, drives, args.out, about)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f'Written: {args.out}, {size / 1e6:.1f} MB')
    return 0


def export_world(model: RecurrentNetwork, drives: Drives, out: Path,
                 about: Dict[str, Any]) -> None:
    """
    Write a folder that ``RecurrentModel`` opens.

    :param model: trained
    :param drives: what it was trained on, split as then
    :param out: the folder
    :param about: name, source and licence
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = spread(windows(drives.training, 1), MAX_KEPT)
    familiar = learn_familiar([drives.rgb(part) for part in np.array_split(kept, 20)])
    doubt, told = learn_doubt(model, drives, Familiar(familiar))
    save_starts(model, drives, familiar, out / STARTS)
    export_graphs(model, doubt, out)
    recording, spec = drives.recordings[0], model.spec
    actions = np.concatenate([drives.actions()[a:b] for a, b in drives.training])
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.iterdir()) if path.name != ABOUT}
    (out / ABOUT).write_text(yaml.safe_dump({
        'kind': KIND, 'format': FORMAT, **about, 'recordings': [r.name for r in drives.recordings],
        'rate_hz': recording.rate_hz, 'width_px': spec.width_px, 'height_px': spec.height_px,
        'num_context': CONTEXT, 'num_noise': spec.noise,
        'action_names': list(recording.action_names),
        'action_low': [round(float(x), 4) for x in actions.min(0)],
        'action_high': [round(float(x), 4) for x in actions.max(0)],
        'action_mean': [round(float(x), 4) for x in actions.mean(0)],
        'delays': {d.name: {'lag_frames': d.lag_frames, 'sign': d.sign, 'motion': d.motion,
                            'correlation': round(d.correlation, 3), 'scale': round(d.scale, 4),
                            'by_speed': d.by_speed, 'found': d.found}
                   for d in command_delays(recording)},
        'trained_frames': int(sum(b - a for a, b in drives.training)),
        'held_out_frames': int(sum(b - a for a, b in drives.held_out)),
        'uncertainty': told, 'sha256': sums}, sort_keys=False, allow_unicode=True))


def learn_doubt(model: RecurrentNetwork, drives: Drives,
                familiar: Familiar) -> Tuple[Doubt, Dict[str, Any]]:
    """
    Learn what tells of errors, and calibrate it.

    :param model: trained
    :param drives: training pieces teach, held-out ones calibrate
    :param familiar: the pictures of the training pieces
    :return: the heads, and what ``Calibration`` needs
    """
    learned = measure(model, drives, familiar, drives.training, 10 * ROWS)
    checked = measure(model, drives, familiar, drives.held_out, 3 * ROWS, 1)
    doubt = Doubt(learned.features.shape[1], learned.commands.shape[1])
    doubt.fit('state', learned.features)
    doubt.fit('commands', learned.commands)
    with torch.no_grad():
        white = doubt.whitened('state', learned.features)
    _fit_heads(doubt, white, learned.error)
    return doubt.eval(), calibrate(doubt, checked)


@torch.no_grad()
def calibrate(doubt: Doubt, checked: Measured) -> Dict[str, Any]:
    """
    Measure what is usual on held-out pieces.

    :param doubt: trained
    :param checked: rollouts on them
    :return: fields of ``Calibration``
    """
    told = doubt(checked.features, checked.commands)
    offset = float((checked.error - told[:, 0]).mean())
    signs = torch.cat([told[:, 1:], checked.surprise[:, None]], 1)
    limits = signs.quantile(RARE, 0).tolist()
    familiar = float((told[:, 0] + offset).exp().quantile(RARE))
    return {'offset': offset, 'limits': dict(zip((*SIGNS, SURPRISE), limits)),
            'familiar': familiar, 'share': RARE}


def _fit_heads(doubt: Doubt, white: Tensor, error: Tensor) -> None:
    """Train every head on rows weighted by chance, so that they differ where there are few."""
    weights = torch.empty(len(white), len(doubt.heads)).exponential_()
    optimizer = torch.optim.AdamW(doubt.heads.parameters(), FIT_RATE, weight_decay=1e-3)
    for step in range(FIT_STEPS):
        for group in optimizer.param_groups:
            group['lr'] = FIT_RATE * (1 - step / FIT_STEPS)
        rows = torch.randint(len(white), (256,))
        told = doubt.each(white[rows])
        loss = (weights[rows] * (told - error[rows, None]).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@torch.inference_mode()
def measure(model: RecurrentNetwork, drives: Drives, familiar: Familiar,
            pieces: Sequence[Tuple[int, int]], count: int, seed: int = 0) -> Measured:
    """
    Roll out, half of the rows with noise, and compare some frames with true ones.

    :param model: trained
    :param drives: with the pieces
    :param familiar: the pictures of the training
    :param pieces: where to begin
    :param count: rollouts
    :param seed: of noise, and of which frames are compared
    :return: all compared frames as rows
    """
    free = min(FREE, max(b - a for a, b in pieces) - CONTEXT)
    begins = spread(windows(pieces, CONTEXT + free), count)
    rng = np.random.default_rng(seed)
    parts: List[Tuple[Tensor, ...]] = []
    actions = torch.from_numpy(drives.actions())
    for first in range(0, len(begins), ROWS):
        rows = begins[first:first + ROWS]
        noisy = torch.from_numpy(rng.integers(2, size=(len(rows), 1)).astype(np.float32))
        state = model.first(len(rows))
        compared = {CONTEXT - 1, *(CONTEXT + rng.permutation(free)[:DRAWN]).tolist()}
        surprise = np.zeros(len(rows), np.float32)
        for frame in range(max(compared) + 1):
            noise = torch.from_numpy(rng.standard_normal((len(rows), model.spec.noise),
                                                         np.float32)) * noisy
            sent = actions[np.maximum(rows + frame - 1, 0)]
            state = model.renew(state)
            state = model.imagine(state, sent, noise)
            if frame < CONTEXT:
                state = model.observe(state, drives.pictures(rows + frame))
                surprise = familiar.after(surprise, drives.rgb(rows + frame))
            if frame in compared:
                error = _rms(model.draw(state), drives.pictures(rows + frame))
                parts.append((*features(model, state), error.log(), torch.from_numpy(surprise)))
    return Measured(*(torch.cat(column).clone() for column in zip(*parts)))


@torch.inference_mode()
def save_starts(model: RecurrentNetwork, drives: Drives, familiar: Dict[str, np.ndarray],
                path: Path) -> None:
    """Write states after ``CONTEXT`` true frames, evenly over the training pieces."""
    begins = spread(windows(drives.training, CONTEXT), NUM_STARTS)
    actions = torch.from_numpy(drives.actions())
    state = model.first(len(begins))
    noise = torch.zeros(len(begins), model.spec.noise)
    known, surprise = Familiar(familiar), np.zeros(len(begins), np.float32)
    for frame in range(CONTEXT):
        state = model.imagine(state, actions[np.maximum(begins + frame - 1, 0)], noise)
        state = model.observe(state, drives.pictures(begins + frame))
        surprise = known.after(surprise, drives.rgb(begins + frame))
    tensors = {**dict(zip(PARTS, state)), SURPRISE: torch.from_numpy(surprise),
               **{name: torch.from_numpy(array) for name, array in familiar.items()}}
    tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    tensors[KEY] = (255 * state.key).round().to(torch.uint8).contiguous()
    save_file(tensors, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # others may read it, as the folder


def _rms(drawn: Tensor, true: Tensor) -> Tensor:
    return ((drawn.clamp(0, 1) - true).square().mean((1, 2, 3)) + 1e-8).sqrt()


class ObserveGraph(nn.Module):
    """A true picture in, the corrected state out."""

    def __init__(self, model: RecurrentNetwork):
        """Wrap it."""
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> Tuple[Tensor, ...]:
        """Return the next ``PARTS``, of ``PARTS``, (b, a) action and (b, h, w, 3) uint8."""
        *parts, action, rgb = given
        noise = torch.zeros(1, self.model.spec.noise).expand(action.shape[0], -1)
        state = self.model.imagine(State(*parts), action, noise)
        return tuple(self.model.observe(state, rgb.permute(0, 3, 1, 2).float() / 255))


class ImagineGraph(nn.Module):
    """One frame on."""

    def __init__(self, model: RecurrentNetwork):
        """Wrap it."""
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> Tuple[Tensor, ...]:
        """Return the next ``PARTS``, of ``PARTS``, (b, a) action and (b, n) noise."""
        *parts, action, noise = given
        return tuple(self.model.imagine(State(*parts), action, noise))


class DrawGraph(nn.Module):
    """Bytes beside floats, and the signs of doubt."""

    def __init__(self, model: RecurrentNetwork, doubt: Doubt):
        """Wrap them."""
        super().__init__()
        self.model, self.doubt = model, doubt

    def forward(self, *parts: Tensor) -> Tuple[Tensor, ...]:
        """
        Return pictures and doubt.

        That is (b, h, w, 3) uint8 to be shown, what ``Doubt`` tells, (b, 4), and the picture as it
        was drawn, (b, 3, h, w), to be remembered.
        """
        state = State(*parts)
        plain = self.model.draw(state).clamp(0, 1)
        return ((255 * plain + 0.5).floor().to(torch.uint8).permute(0, 2, 3, 1),
                self.doubt(*features(self.model, state)), plain)


def export_graphs(model: RecurrentNetwork, doubt: Doubt, out: Path) -> None:
    """
    Write the three graphs.

    :param model: trained
    :param doubt: trained
    :param out: folder
    """
    spec = model.spec
    state = tuple(torch.rand_like(part) for part in model.first(2))
    action, noise = torch.rand(2, spec.action_dim), torch.rand(2, spec.noise)
    rgb = torch.zeros(2, spec.height_px, spec.width_px, 3, dtype=torch.uint8)
    after = tuple(f'{name}_next' for name in PARTS)
    _export(ObserveGraph(model), (*state, action, rgb), out / 'observe.onnx',
            (*PARTS, 'action', 'rgb'), after)
    _export(ImagineGraph(model), (*state, action, noise), out / 'imagine.onnx',
            (*PARTS, 'action', 'noise'), after)
    _export(DrawGraph(model, doubt), state, out / 'draw.onnx', PARTS,
            ('rgb', 'doubt', 'plain'))
    share_weights([out / f'{name}.onnx' for name in ('observe', 'imagine', 'draw')],
                  out / 'weights.bin')


def _export(graph: nn.Module, example: Tuple[Tensor, ...], path: Path, inputs: Sequence[str],
            outputs: Sequence[str]) -> None:
    with torch.no_grad(), quiet_export():
        torch.onnx.export(graph.eval(), example, str(path), input_names=list(inputs),
                          output_names=list(outputs), opset_version=18, dynamo=False,
                          dynamic_axes={name: {0: 'batch'} for name in (*inputs, *outputs)})


def share_weights(paths: Sequence[Path], target: Path) -> None:
    """
    Move large weights of graphs into one file, each once, in half precision.

    :param paths: ONNX files, changed in place; they turn the weights back where they are read
    :param target: file beside them
    """
    models = [onnx.load(str(path)) for path in paths]
    places: Dict[bytes, int] = {}
    content = bytearray()
    for model in models:
        for part in list(model.graph.initializer):
            array = numpy_helper.to_array(part)
            if array.dtype == np.float32 and array.size >= MIN_HALVED:
                half = array.astype(np.float16).tobytes()
                if half not in places:
                    places[half] = len(content)
                    content += half + bytes(-len(half) % ALIGNED)
                _point(model, part, array.shape, target.name, places[half], len(half))
    target.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    for model, path in zip(models, paths):
        model.doc_string = f'weights {digest}'  # so that other weights make another graph
        onnx.save(model, str(path))


def _point(model: onnx.ModelProto, part: TensorProto, shape: Sequence[int], location: str,
           offset: int, length: int) -> None:
    """Let a tensor of a graph be read from another file."""
    name = part.name
    part.Clear()
    part.name, part.data_type = f'{name}.half', TensorProto.FLOAT16
    part.dims.extend(shape)
    part.data_location = TensorProto.EXTERNAL
    for key, value in (('location', location), ('offset', offset), ('length', length)):
        part.external_data.add(key=key, value=str(value))
    model.graph.node.insert(0, helper.make_node('Cast', [part.name], [name],
                                                to=TensorProto.FLOAT))


if __name__ == '__main__':
    raise SystemExit(main())
