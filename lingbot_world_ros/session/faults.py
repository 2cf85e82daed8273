# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with an engine, by name, and how an exception is told apart. No ROS."""
from lingbot_world_ros.engines.interface import Observation
from lingbot_world_ros.errors import EngineDiverged, EngineHung, EngineLost
from lingbot_world_ros.session.states import Fault
import numpy as np


def fault_of(error: BaseException) -> Fault:
    """Return the name of what an exception of an engine means."""
    for kind, fault in ((EngineDiverged, Fault.DIVERGED), (EngineHung, Fault.HUNG),
                        (EngineLost, Fault.LOST), (MemoryError, Fault.OUT_OF_MEMORY)):
        if isinstance(error, kind):
            return fault
    return Fault.FAILED


def check_finite(observation: Observation) -> None:
    """
    Refuse what no consumer should ever see.

    :param observation: what an engine returned
    :raises EngineDiverged: a number in it is not finite; names the field
    """
    for name, value in vars(observation).items():
        if isinstance(value, np.ndarray) and value.dtype.kind == 'f':
            if not np.isfinite(value).all():
                raise EngineDiverged(f'{name} of the engine is not finite')
