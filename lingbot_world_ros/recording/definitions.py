# SPDX-License-Identifier: Apache-2.0
"""Message definitions as a recording carries them, out of the installed ROS packages. No rclpy."""
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Tuple

from lingbot_world_ros.errors import SpecError

SEPARATOR = '=' * 80


def message_definition(msg_type: str) -> Tuple[str, str]:
    """
    Collect the definition of a message and of all it is made of.

    :param msg_type: for example ``'nav_msgs/msg/Odometry'``
    :return: the text that MCAP calls ``ros2msg``, and the type's hash (RIHS01)
    :raises SpecError: a package is not installed, or without its definitions
    """
    from rosbags.typesys import get_types_from_msg
    from rosbags.typesys.store import Typestore
    texts: Dict[str, str] = {}
    types = {}
    waiting = [msg_type]
    while waiting:
        name = waiting.pop(0)
        if name in texts:
            continue
        texts[name] = _installed(name)
        parsed = get_types_from_msg(texts[name], name)
        types.update(parsed)
        waiting += [part for _, fields in parsed.values() for part in _parts(fields)]
    store = Typestore()
    store.register(types)
    parts = [texts.pop(msg_type)]
    parts += [f'{SEPARATOR}\nMSG: {name.replace("/msg/", "/")}\n{text}'
              for name, text in texts.items()]
    return '\n'.join(parts), store.hash_rihs01(msg_type)


def _installed(msg_type: str) -> str:
    """Read the file of one message."""
    from ament_index_python.packages import get_package_share_directory
    package, _, name = msg_type.split('/')
    try:
        share = Path(get_package_share_directory(package))
        return (share / 'msg' / f'{name}.msg').read_text()
    except (LookupError, OSError) as error:
        raise SpecError(f'The definition of {msg_type} is not installed ({error}); install ROS '
                        f'package {package}, or leave its topics out.') from error


def _parts(fields: Iterable[Tuple[str, Any]]) -> Iterator[str]:
    """Yield the names of the messages among fields."""
    from rosbags.interfaces import Nodetype
    for _, (kind, value) in fields:
        if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            kind, value = value[0]
        if kind == Nodetype.NAME:
            yield value
