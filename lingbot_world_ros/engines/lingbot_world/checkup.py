# SPDX-License-Identifier: Apache-2.0
"""What LingBot-World would run with on this machine, for ``lingbot-world doctor``."""
from importlib.util import find_spec

from lingbot_world_ros.models.wan.attention import resolve
import torch


def checkup() -> str:
    """Return versions and kernels, and what is missing."""
    if not torch.cuda.is_available():
        return (f'torch {torch.__version__} finds no CUDA GPU: for trying out only '
                '(lingbot.device:=cpu)')
    nf4 = '' if find_spec('bitsandbytes') else '; no bitsandbytes for nf4'
    return f'torch {torch.__version__}, attention by {resolve("auto", "cuda").name}{nf4}'
