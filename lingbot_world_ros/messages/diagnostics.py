# SPDX-License-Identifier: Apache-2.0
"""One entry of what robot operators watch -> diagnostic_msgs."""
from typing import Any, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lingbot_world_ros.messages.stamps import set_stamp

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def entry_to_msg(name: str, level: bytes, message: str, values: Mapping[str, Any], stamp_ns: int,
                 hardware_id: str = '') -> DiagnosticArray:
    """
    Report how something is.

    :param name: node and part of it, ``node: part``
    :param level: OK, WARN or ERROR
    :param message: the same in words
    :param values: what else there is to know, by name
    :param stamp_ns: sim time
    :param hardware_id: what it is
    :return: an array of one entry
    """
    msg = DiagnosticArray(status=[DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])])
    set_stamp(msg.header.stamp, stamp_ns)
    return msg
