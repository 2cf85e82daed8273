# SPDX-License-Identifier: Apache-2.0
"""Several worlds side by side: what each is called and which parameters keep them apart."""
from typing import Any, Dict, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.settings.parameters import PARAMS
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile

MAX_WORLDS = 100  # a ROS domain has room for about 120 processes
SHARED_TOPICS = ('topics.tf', 'topics.tf_static', 'topics.diagnostics')  # told apart by content


def world_parameters(index: int, num_worlds: int, values: dict,
                     namespace: str = '') -> Tuple[str, Dict[str, Any]]:
    """
    Keep one of several worlds apart from the others.

    Each gets a namespace, frames that begin with it, a seed, and in that namespace a clock and
    simulation services of its own. All share ``/tf`` and ``/diagnostics``. A world that is alone
    stays as it is.

    :param index: of the world, from 0
    :param num_worlds: how many there are
    :param values: parameters by name, from the profile and the command line
    :param namespace: given by the user, '' for none
    :return: the namespace of this world, and the parameters to override, by name
    :raises SpecError: a number of worlds, namespace or seed that cannot be
    """
    namespace = namespace.strip('/')
    if not 1 <= num_worlds <= MAX_WORLDS:
        raise SpecError(f'{num_worlds} worlds cannot be run; ask for 1 to {MAX_WORLDS}.')
    if num_worlds == 1:
        return namespace, {}
    values = {**load_profile(DEFAULT_PROFILE), **values}
    namespace = f'{namespace or "world"}_{index}'
    apart = {'frame_prefix': f'{namespace}/{values["frame_prefix"]}',
             'seed': PARAMS['seed'].check(values['seed'] + index, f'world {index}')}
    for name in ('service_prefix', *(n for n in values if n.startswith('topics.'))):
        if values[name].startswith('/') and name not in SHARED_TOPICS:
            apart[name] = values[name].lstrip('/')
    return namespace, apart
