# SPDX-License-Identifier: Apache-2.0
"""Texts, numbers and switches <-> std_msgs and std_srvs."""
from typing import Optional

from std_msgs.msg import Bool, Float32, String
from std_srvs.srv import SetBool


def text_to_msg(text: str) -> String:
    """Write a text."""
    return String(data=text)


def number_to_msg(number: float, out: Optional[Float32] = None) -> Float32:
    """
    Write a number.

    :param number: in what unit, the topic says
    :param out: message to write into, None for a new one
    :return: the message
    """
    out = out or Float32()
    out.data = number
    return out


def fact_to_msg(is_so: bool, out: Optional[Bool] = None) -> Bool:
    """
    Write whether something is so.

    :param is_so: of what, the topic says
    :param out: message to write into, None for a new one
    :return: the message
    """
    out = out or Bool()
    out.data = is_so
    return out


def switch_to_request(is_on: bool) -> SetBool.Request:
    """Ask to switch something on or off."""
    return SetBool.Request(data=is_on)
