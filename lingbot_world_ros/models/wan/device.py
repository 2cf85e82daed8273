# SPDX-License-Identifier: Apache-2.0
"""Which device torch computes on."""
import re
from typing import Union

from lingbot_world_ros.errors import quoted, SpecError
import torch

Device = Union[str, torch.device]


def torch_device(name: str) -> torch.device:
    """
    Return the device to compute on.

    :param name: 'auto' (a GPU), 'cuda', 'cuda:1', 'cpu'
    :raises SpecError: if there is none
    """
    if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', name):
        raise SpecError(f"device {quoted(name)} is none of 'auto', 'cuda', 'cuda:N' and "
                        "'cpu'.")
    if name != 'cpu' and not torch.cuda.is_available():
        raise SpecError(f'device {quoted(name)}: torch {torch.__version__} finds no CUDA GPU '
                        'here; check nvidia-smi and that torch was installed with CUDA, or use '
                        "device 'cpu', which is for trying out only.")
    device = torch.device('cuda' if name == 'auto' else name)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(f'device {quoted(name)}: there are {torch.cuda.device_count()} GPUs, '
                        'counted from 0.')
    return device
