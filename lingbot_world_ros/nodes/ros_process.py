# SPDX-License-Identifier: Apache-2.0
"""Start ROS in a process, and end both without a trace."""
import logging
import os
import sys
import threading
from typing import Callable, List, Optional

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.imports import import_without
from lingbot_world_ros.nodes.ros_environment import (check_domain_id, domain_id,
                                                     note_command_line, prepare_environment)
from lingbot_world_ros.nodes.spinner import (interrupt_on_signals, NodeT, Spinner,
                                             stop_on_signals)
from lingbot_world_ros.output import begin_output
from lingbot_world_ros.paths import PACKAGE
from lingbot_world_ros.session.worker import WORKER
import rclpy
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

SPEC_TOPIC = 'world_spec'
INTERRUPTED = 130  # exit code, as shells tell Ctrl-C
SOON_S, PATIENCE_S = 3.0, 20.0  # on a busy machine nodes take long to find one another


def start_ros(args: Optional[List[str]] = None) -> None:
    """
    Initialise rclpy and leave signals to the main thread.

    :param args: command line with ``--ros-args``; None takes the process's own
    :raises SpecError: ROS_DOMAIN_ID or an argument cannot be used
    """
    check_domain_id()
    prepare_environment()
    note_command_line(args)
    import_without('rosidl_generator_py', 'rosidl_generator_py.generate_py_impl')
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise SpecError(f'ROS does not start: {error}') from error
    log = logging.getLogger(PACKAGE)
    if not log.handlers:
        log.addHandler(RosLogHandler())


class RosLogHandler(logging.Handler):
    """Tell what modules without ROS log, in the words and places of ROS."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on; rclpy wants one severity per line of code."""
        text = self.format(record).encode(errors='replace').decode()
        logger = get_logger(PACKAGE)
        if record.levelno >= logging.ERROR:
            logger.error(text)
        elif record.levelno >= logging.WARNING:
            logger.warning(text)


def wait_for_world(node: Node, heard: threading.Event) -> None:
    """
    Wait until a world was heard of.

    :param node: that listens to ``world_spec`` in its namespace
    :param heard: set when it was
    :raises SpecError: nothing was heard
    """
    if not heard.wait(SOON_S):
        print(f'Waiting for a world in ROS domain {domain_id()} ...{_elsewhere(node)}', flush=True)
    if not heard.wait(PATIENCE_S - SOON_S):
        raise SpecError(f'No world in ROS domain {domain_id()} under '
                        f'{node.resolve_topic_name(SPEC_TOPIC)}; start one with "lingbot-world '
                        f'sim", with the same ROS_DOMAIN_ID and namespace.{_elsewhere(node)}')


def _elsewhere(node: Node) -> str:
    """Name the worlds in other namespaces, '' if there are none."""
    here, end = node.resolve_topic_name(SPEC_TOPIC), f'/{SPEC_TOPIC}'
    found = [name[:-len(end)] or '/' for name, _ in node.get_topic_names_and_types()
             if name.endswith(end) and name != here and node.count_publishers(name)]
    return f' There is one in namespace {", ".join(found)} (--namespace).' if found else ''


def end_ros() -> None:
    """Shut ROS down, where it is up."""
    rclpy.try_shutdown()


def end_process(code: int) -> int:
    """
    Shut ROS down; do not wait for an engine that was left in the middle of a step.

    :param code: exit code of this process
    :return: the same, where no engine is left
    """
    end_ros()
    if any(thread.name == WORKER and thread.is_alive() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the interpreter must not end below a thread that computes
    return code


def spin_node(make_node: Callable[[], NodeT], args: Optional[List[str]] = None,
              begin: Optional[Callable[[NodeT, Spinner], None]] = None) -> int:
    """
    Run one node until it is asked to end.

    :param make_node: called without arguments once ROS is up
    :param args: command line; None takes the process's own
    :param begin: called with node and spinner once both run; raises SpecError to end
    :return: exit code: 0, or 2 for what the user can fix (told in one line)
    """
    begin_output(is_needed=False)
    code = 0
    try:
        start_ros(args)
        with Spinner() as spinner:
            interrupt_on_signals()
            node = spinner.add(make_node())
            stop_on_signals(spinner)
            if begin is not None:
                begin(node, spinner)
            spinner.wait()
    except SpecError as error:
        print(f'error: {error}', file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        pass
    except BaseException:
        end_ros()
        raise
    return end_process(code)
