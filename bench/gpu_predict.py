# SPDX-License-Identifier: Apache-2.0
"""
What each rung of ``bench.gpu_stream`` should take on a Hopper GPU, from arithmetic alone.

Times of a stage are work by rate. The work follows from the sizes; the rates are assumptions,
written beside every prediction, so that a measurement can prove them wrong.
"""
from dataclasses import asdict, dataclass
from typing import Dict

from bench.gpu_parts import Case

RUNGS = ('upstream', 'diffusers', 'caches', 'attention', 'decoder', 'compile', 'graphs', 'fp8',
         'attention8', 'tiny', 'emit')
TERA = 1e12


@dataclass(frozen=True)
class Assumptions:
    """
    Rates in TFLOP/s, memory in TB/s, and how often the residual stream crosses memory.

    ``*_passes``: reads and writes of (tokens, d) float32 per block and pass, outside products.
    """

    gemm: float = 720.0  # bf16; 8192 cubed was seen at 770 to 800
    gemm_fp8: float = 1300.0
    gemm_fp32: float = 50.0
    attention: float = 650.0  # cuDNN or FlashAttention 3, bf16
    attention_plain: float = 450.0  # what PyTorch takes by itself
    attention_8bit: float = 700.0  # own kernel: its exponentials cost as much as its products
    memory: float = 4.3
    eager_passes: float = 42.0
    plain_passes: float = 76.0  # and modulation per token, and rotary positions in complex128
    compiled_passes: float = 14.0
    decoder_tf32: float = 80.0
    decoder_16_bit: float = 300.0
    decoder_tflop_per_frame: float = 3.3  # at 464 x 832
    tiny_decoder_ms: float = 10.0
    copy_ms: float = 2.0
    read_back_us: float = 30.0  # one number of the device, seven per block and pass
    launch_gaps_ms: float = 5.0  # of a chunk, what graphs take away


@dataclass(frozen=True)
class Work:
    """TFLOP of one chunk once the window is full, and TB of one crossing of the residual."""

    passes: int
    blocks: float  # linear layers, all passes
    camera: float  # adapters, once
    attention: float  # to the window and to the text, all passes
    text: float  # keys and values of the prompt, once
    time: float  # time embedding of every token, all passes
    residual: float  # all blocks, all passes
    frames: float  # of the decoder's frame size
    recompute_blocks: float  # a whole window without a cache, all steps
    recompute_attention: float


def work(case: Case) -> Work:
    """
    Count.

    :param case: sizes
    :return: work of one chunk: passes of the schedule and one that writes the cache
    """
    spec, n, m = case.spec, case.chunk_tokens, case.window_tokens
    d, layers, passes = spec.dim, spec.num_layers, len(case.schedule) + 1
    block, text = 2 * (6 * d * d + 2 * d * spec.ffn_dim), spec.text_len
    steps = passes - 1
    return Work(
        passes, passes * n * layers * block / TERA, n * layers * 8 * d * d / TERA,
        passes * 4 * n * (m + text) * d * layers / TERA,
        text * (layers * 4 * d * d + 2 * d * (spec.text_dim + d)) / TERA,
        passes * n * 2 * (7 * d * d + spec.freq_dim * d) / TERA,
        passes * n * d * 4 * layers / TERA,
        case.num_frames * case.size.height_px * case.size.width_px / (464 * 832),
        steps * m * layers * block / TERA,
        steps * 4 * m * (m + text) * d * layers / TERA)


def predict(case: Case, rates: Assumptions = Assumptions()) -> Dict[str, Dict[str, float]]:
    """
    Predict every rung.

    :param case: sizes
    :param rates: assumptions
    :return: rung -> diffuse, write, decode, copy, chunk, first_frame; all ms. The camera's part,
        where it is computed once, is in ``diffuse``
    """
    todo, found = work(case), {}
    decoder = {'tf32': _decoder_ms(todo, rates, rates.decoder_tf32),
               '16': _decoder_ms(todo, rates, rates.decoder_16_bit),
               'tiny': rates.tiny_decoder_ms}
    for rung in RUNGS:
        passes_ms, once_ms = _network_ms(rung, todo, rates, case)
        step = RUNGS.index(rung)
        kind = 'tf32' if step < RUNGS.index('decoder') else '16'
        kind = 'tiny' if step >= RUNGS.index('tiny') else kind
        write = 0.0 if rung == 'diffusers' else passes_ms / todo.passes
        chunk = passes_ms + once_ms + decoder[kind] + rates.copy_ms
        found[rung] = {'diffuse': passes_ms + once_ms - write, 'write': write,
                       'decode': decoder[kind], 'copy': rates.copy_ms, 'chunk': chunk,
                       'first_frame': chunk - (write if rung == 'emit' else 0.0)}
    return found


def assumptions_for(gpu: str) -> Assumptions:
    """Return what to assume of a GPU by its name; they differ in memory."""
    return Assumptions(memory=3.0) if 'H100' in gpu else Assumptions()


def told(rates: Assumptions) -> dict:
    """Return the assumptions, to be written beside what is measured."""
    return asdict(rates)


def _decoder_ms(todo, rates, rate):
    return 1e3 * todo.frames * rates.decoder_tflop_per_frame / rate


def _network_ms(rung, todo, rates, case):
    """Return ms of all passes, and of what is done once per chunk."""
    def gemm(tflop, rate=rates.gemm):
        return 1e3 * tflop / rate

    if rung == 'upstream':
        reads = 1e-3 * rates.read_back_us * 7 * case.spec.num_layers * todo.passes
        again = gemm(todo.passes * (todo.camera + todo.text))
        return (gemm(todo.blocks) + again + gemm(todo.time, rates.gemm_fp32) + reads
                + gemm(todo.attention, rates.attention_plain)
                + 1e3 * todo.residual * rates.plain_passes / rates.memory), 0.0
    if rung == 'diffusers':
        larger = todo.recompute_blocks / todo.blocks
        return (gemm(todo.recompute_blocks)
                + gemm(todo.recompute_attention, rates.attention_plain)
                + 1e3 * todo.residual * larger * rates.eager_passes / rates.memory), 0.0
    step = RUNGS.index(rung)
    attention = rates.attention_plain if rung == 'caches' else rates.attention
    attention = rates.attention_8bit if step >= RUNGS.index('attention8') else attention
    residual = rates.compiled_passes if step >= RUNGS.index('compile') else rates.eager_passes
    blocks = rates.gemm_fp8 if step >= RUNGS.index('fp8') else rates.gemm
    gaps = 0.0 if step >= RUNGS.index('graphs') else rates.launch_gaps_ms
    return (gemm(todo.blocks, blocks) + gemm(todo.attention, attention) + gaps
            + 1e3 * todo.residual * residual / rates.memory), gemm(todo.camera)
