# SPDX-License-Identifier: Apache-2.0
"""What a world is imagined from beside its own state. Plain data, no ROS."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Conditioning:
    """
    The prompt in effect, and how many images were put in since the reset.

    The supervisor owns it; a step carries what it was made with.
    """

    prompt: str = ''
    num_images: int = 0
