# SPDX-License-Identifier: Apache-2.0
"""Start nodes, spin them in one process, and end without a trace."""
import logging
import os
import re
import signal
import sys
import threading

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import PACKAGE, share_path
from lingbot_world_ros.session.worker import WORKER
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

INTERRUPTED = 130  # exit code, as shells tell Ctrl-C
MAX_DOMAIN_ID = 232  # beyond it DDS has no UDP port numbers left


def check_domain_id() -> None:
    """
    Look at the ROS domain before the middleware does.

    :raises SpecError: ROS_DOMAIN_ID is not a number from 0 to 232
    """
    domain = os.environ.get('ROS_DOMAIN_ID', '').strip()
    if domain and not (domain.isdigit() and int(domain) <= MAX_DOMAIN_ID):
        raise SpecError(f'ROS_DOMAIN_ID={domain!r} is not a whole number from 0 to '
                        f'{MAX_DOMAIN_ID}; set another one, for example ROS_DOMAIN_ID=7.')


def namespace_args(namespace: str) -> list:
    """
    Return the ROS arguments that put nodes into a namespace.

    :param namespace: with or without slashes around it; '' for none
    :raises SpecError: characters no namespace may have
    """
    name = namespace.strip('/')
    if not name:
        return []
    if not re.fullmatch(r'[A-Za-z_]\w*(/[A-Za-z_]\w*)*', name, re.ASCII):
        raise SpecError(f'--namespace {namespace!r} is no namespace: letters, digits and '
                        'underscores, not a digit first; for example robot_1.')
    return ['-r', f'__ns:=/{name}']


def prepare_environment() -> None:
    """
    Set what the middleware reads once, at start: a shared-memory profile that fits images.

    A profile the user chose is left alone.
    """
    os.environ.setdefault(profile_variable(), str(share_path('config', 'fastdds.xml')))


def profile_variable() -> str:
    """Return the environment variable in which Fast DDS looks for its profile."""
    # Before Fast DDS 2.11 it had this older name; newer versions warn about it.
    older = os.environ.get('ROS_DISTRO', '') in ('humble', 'iron')
    return 'FASTRTPS_DEFAULT_PROFILES_FILE' if older else 'FASTDDS_DEFAULT_PROFILES_FILE'


class Spinner:
    """
    Spin nodes in a thread of its own, so that the main thread can hear signals.

    A context manager; leaving it stops spinning and destroys the nodes it was given. rclpy's
    EventsExecutor is not used: as of 9.1 it turns a core without calling anything.
    """

    def __init__(self):
        self._nodes = []
        self._stop = threading.Event()
        self._error = None
        self._executor = SingleThreadedExecutor()
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._executor.shutdown()
        self._thread.join()
        for node in self._nodes:
            node.destroy_node()

    def add(self, node):
        """Take over a node, spin it and return it."""
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def stop(self, *_) -> None:
        """End ``wait``; usable as a signal handler."""
        self._stop.set()

    def wait(self, timeout_s=None) -> bool:
        """
        Let the nodes work.

        :param timeout_s: for how long at most; None waits for ``stop``
        :return: True when it is time to end
        """
        ended = self._stop.wait(timeout_s)
        if self._error is not None:
            raise self._error
        return ended

    def _spin(self):
        try:
            self._executor.spin()
        except ExternalShutdownException:
            self.stop()
        except Exception as error:  # the thread's edge: the main thread raises it again
            self._error = error
            self.stop()


def start_ros(args=None) -> None:
    """
    Initialise rclpy and leave signals to the main thread.

    :param args: command line with ``--ros-args``; None takes the process's own
    :raises SpecError: ROS_DOMAIN_ID or an argument cannot be used
    """
    check_domain_id()
    prepare_environment()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise SpecError(f'ROS does not start: {error}') from error
    log = logging.getLogger(PACKAGE)
    if not log.handlers:
        log.addHandler(RosLogHandler())


class RosLogHandler(logging.Handler):
    """Tell what modules without ROS log, in the words and places of ROS."""

    def emit(self, record):
        """Pass a record on; rclpy wants one severity per line of code."""
        text = self.format(record).encode(errors='replace').decode()
        logger = get_logger(PACKAGE)
        if record.levelno >= logging.ERROR:
            logger.error(text)
        elif record.levelno >= logging.WARNING:
            logger.warning(text)


def interrupt_on_signals() -> None:
    """Let Ctrl-C and SIGTERM interrupt the main thread, which loads an engine for minutes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def stop_on_signals(spinner: Spinner) -> None:
    """End a spinner's wait on Ctrl-C and SIGTERM."""
    signal.signal(signal.SIGINT, spinner.stop)
    signal.signal(signal.SIGTERM, spinner.stop)


def end_process(code: int) -> int:
    """
    Shut ROS down; do not wait for an engine that was left in the middle of a step.

    :param code: exit code of this process
    :return: the same, where no engine is left
    """
    rclpy.try_shutdown()
    if any(thread.name == WORKER and thread.is_alive() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the interpreter must not end below a thread that computes
    return code


def make_pair(world=None, **node_args):
    """
    Make both nodes of a world for one process: the session asks the encoder without a topic.

    :param world: makes the engine, in place of the one that the parameter names
    :param node_args: for both nodes
    :return: the WorldModelNode and the ActionEncoderNode, both to be spun
    :raises SpecError: a parameter, scene or the engine's files cannot be used
    """
    from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode
    from lingbot_world_ros.nodes.world_model import WorldModelNode
    encoder = ActionEncoderNode(**node_args)
    try:
        return WorldModelNode(world=world, encoder=encoder, **node_args), encoder
    except BaseException:
        encoder.destroy_node()
        raise


def spin_node(make_node, args=None, begin=None) -> int:
    """
    Run one node until Ctrl-C or SIGTERM.

    :param make_node: called without arguments once ROS is up
    :param args: command line; None takes the process's own
    :param begin: called with node and spinner once both run; raises SpecError to end
    :return: exit code: 0, or 2 for what the user can fix (told in one line)
    """
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
        rclpy.try_shutdown()
        raise
    return end_process(code)
