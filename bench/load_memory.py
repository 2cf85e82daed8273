# SPDX-License-Identifier: Apache-2.0
"""
Measure how much memory loading a checkpoint takes: ``python -m bench.load_memory``.

Writes a checkpoint of random numbers in shards into a temporary folder, loads it in a fresh
process for each precision, and compares the peak with the size of the network. Prints JSON.
"""
import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

from bench.machine import describe
from lingbot_world_ros.models.wan.spec import DiTSpec, LINGBOT_1_3B

SIZES = {'tiny': DiTSpec(dim=512, ffn_dim=2048, num_heads=4, num_layers=2),
         'small': DiTSpec(dim=1024, ffn_dim=4096, num_heads=8, num_layers=2),
         '1.3b': LINGBOT_1_3B}
STORED = {'fp32': 'float32', 'bf16': 'bfloat16'}
NUM_SHARDS = 6


def main() -> None:
    """Write, load and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument('--size', choices=SIZES, default='1.3b')
    parser.add_argument('--stored', choices=STORED, default='fp32')
    parser.add_argument('--precisions', nargs='+', default=['bf16', 'nf4'],
                        choices=['fp32', 'bf16', 'nf4'])
    parser.add_argument('--folder', help='where the checkpoint is put for the time of the run')
    parser.add_argument('--load', nargs=2, metavar=('PATH', 'PRECISION'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        print(json.dumps(measure(*args.load)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write(Path(folder), SIZES[args.size], STORED[args.stored])
        loads = [_in_a_process(folder, precision) for precision in args.precisions]
    print(json.dumps({'machine': describe(), 'size': args.size, 'stored': args.stored,
                      'loads': loads}, indent=2))


def write(folder: Path, spec: DiTSpec, dtype: str) -> None:
    """
    Write random weights; the same block of numbers again and again, which loading cannot tell.

    :param folder: that is there
    :param spec: sizes
    :param dtype: torch's name of it
    """
    from lingbot_world_ros.models.wan.tensor_files import safetensors_writer
    import torch
    shapes = list(spec.tensor_shapes().items())
    generator = torch.Generator().manual_seed(0)
    longest = max(torch.Size(shape).numel() for _, shape in shapes)
    numbers = (0.02 * torch.randn(longest, generator=generator)).to(getattr(torch, dtype))
    weight_map = {}
    for i in range(NUM_SHARDS):
        part = dict(shapes[i * len(shapes) // NUM_SHARDS:(i + 1) * len(shapes) // NUM_SHARDS])
        name = f'diffusion_pytorch_model-{i + 1:05d}-of-{NUM_SHARDS:05d}.safetensors'
        with safetensors_writer(folder / name, part) as writer:
            for key, shape in part.items():
                writer.add(key, numbers[:torch.Size(shape).numel()].view(shape))
        weight_map.update(dict.fromkeys(part, name))
    (folder / 'diffusion_pytorch_model.safetensors.index.json').write_text(
        json.dumps({'metadata': {}, 'weight_map': weight_map}))


def measure(path: str, precision: str) -> dict:
    """
    Load in this process.

    :param path: checkpoint
    :param precision: fp32, bf16 or nf4
    :return: bytes of the process before and at its peak, of the network, of the largest tensor
        in the files; seconds, which depend on what the system had cached
    """
    from lingbot_world_ros.models.wan.checkpoint import open_checkpoint
    from lingbot_world_ros.models.wan.dit import WanDiT  # noqa: F401, counted as before
    from lingbot_world_ros.models.wan.load import load_dit
    from lingbot_world_ros.models.wan.memory import dit_bytes
    if precision == 'nf4':
        import bitsandbytes  # noqa: F401
    checkpoint = open_checkpoint(path)
    expert = checkpoint.expert()
    before = _reset_peak()
    started_s = time.monotonic()
    dit = load_dit(checkpoint, device='cpu', precision=precision)
    seconds, peak = time.monotonic() - started_s, _status('VmHWM')
    model = dit_bytes(dit.spec, precision)
    return {'precision': precision, 'before_bytes': before, 'peak_bytes': peak,
            'file_bytes': expert.num_bytes, 'model_bytes': model,
            'largest_tensor_bytes': max(s.info.num_bytes for s in expert.tensors.values()),
            'peak_over_model_bytes': peak - before - model,
            'peak_over_model': round((peak - before) / model, 3), 'seconds': round(seconds, 1)}


def _in_a_process(folder, precision) -> dict:
    done = subprocess.run(
        [sys.executable, '-m', 'bench.load_memory', '--load', str(folder), precision],
        stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    return json.loads(done.stdout)


def _reset_peak() -> int:
    """Let the system forget the peak so far; return what is in use now, bytes."""
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def _status(name) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024
    raise SystemExit(f'bench.load_memory: /proc/self/status has no {name}; it needs Linux.')


if __name__ == '__main__':
    main()
