# SPDX-License-Identifier: Apache-2.0
"""The managed node: nothing loaded, loaded and silent, running; and parameters set meanwhile."""
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.msg import WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402


class Factory:
    """Makes engines and remembers them."""

    def __init__(self):
        self.made = []
        self.problem = None

    def __call__(self):
        if self.problem:
            raise self.problem
        self.made.append(FakeWorld())
        return self.made[-1]


@pytest.fixture
def make_graph(open_graph):
    def start(factory, *ros_args):
        def nodes():
            encoder = ActionEncoderNode()
            return [WorldModelNode(world=factory, encoder=encoder), encoder]
        return open_graph(nodes, ('-p', 'scene:=a', '-p', 'speed:=3.0', *ros_args))
    return start


def change(graph, transition, namespace=''):
    request = ChangeState.Request(transition=Transition(id=transition))
    return graph.call(ChangeState, f'{namespace}/world_model/change_state', request).success


def state_of(graph):
    return graph.call(GetState, '/world_model/get_state').current_state.id


def set_parameter(graph, name, kind, **value):
    request = SetParameters.Request(parameters=[Parameter(
        name=name, value=ParameterValue(type=kind, **value))])
    return graph.call(SetParameters, '/world_model/set_parameters', request).results[0]


def test_by_default_the_node_is_active_at_once(make_graph):
    graph = make_graph(Factory())
    assert state_of(graph) == State.PRIMARY_STATE_ACTIVE


def test_states_load_run_rest_and_unload(make_graph):
    factory = Factory()
    graph = make_graph(factory, '-p', 'autostart:=false')
    images = graph.listen(Image, 'camera/image_raw')
    assert state_of(graph) == State.PRIMARY_STATE_UNCONFIGURED and not factory.made
    refused = graph.call(Trigger, '/world_model/reset')
    assert not refused.success and 'not active' in refused.message

    assert change(graph, Transition.TRANSITION_CONFIGURE)
    assert len(factory.made) == 1 and not images
    assert not graph.call(Trigger, '/world_model/step').success

    assert change(graph, Transition.TRANSITION_ACTIVATE)
    graph.wait_for(lambda: len(images) > 5, 'images')
    assert change(graph, Transition.TRANSITION_DEACTIVATE)
    status = graph.nodes[0].session.status
    assert status.state == 'paused'
    assert not graph.call(Trigger, '/world_model/step').success
    assert graph.nodes[0].session.status.step == status.step

    assert change(graph, Transition.TRANSITION_ACTIVATE)  # and it goes on where it was
    graph.wait_for(lambda: graph.nodes[0].session.status.step > status.step + 3, 'steps')
    assert change(graph, Transition.TRANSITION_DEACTIVATE)
    assert change(graph, Transition.TRANSITION_CLEANUP)
    assert factory.made[0].closed and graph.nodes[0].session is None
    graph.wait_for(lambda: graph.probe.count_publishers('/camera/image_raw') == 0, 'silence')

    assert change(graph, Transition.TRANSITION_CONFIGURE)
    assert change(graph, Transition.TRANSITION_ACTIVATE)
    del images[:]
    graph.wait_for(lambda: len(images) > 2, 'images of the second engine')
    assert len(factory.made) == 2


class Bond:
    """
    What bondpy 4.0 lets others see of a bond, read in its source: no such package is here.

    It says what happens on a topic of texts. As there, ``shutdown`` ends publisher and
    subscription without the node.
    """

    made = []

    def __init__(self, node, topic, bond_id, on_broken=None, on_formed=None):
        self.made.append(self)
        self.node, self.topic, self.id = node, topic, bond_id
        self.heartbeat_period, self.heartbeat_timeout = 1.0, 4.0
        self.pub = node.create_publisher(String, topic, 10)

    def start(self):
        self.sub = self.node.create_subscription(String, self.topic, lambda msg: None, 1)
        self.pub.publish(String(data=f'{self.id} lives'))

    def shutdown(self):
        self.sub.destroy()
        self.pub.publish(String(data=f'{self.id} parts'))
        self.pub.destroy()


@pytest.fixture
def bondpy(monkeypatch):
    package = ModuleType('bondpy')
    package.bondpy = SimpleNamespace(Bond=Bond)
    monkeypatch.setitem(sys.modules, 'bondpy', package)
    Bond.made.clear()


def test_nav2_finds_a_bond_while_the_node_is_active(make_graph, bondpy):
    graph = make_graph(Factory(), '-p', 'autostart:=false', '-r', '__ns:=/robot')
    node = graph.nodes[0]

    def told():
        return [msg.data for msg in heard]
    heard = graph.listen(String, '/robot/bond')
    change(graph, Transition.TRANSITION_CONFIGURE, '/robot')
    assert Bond.made == []
    for number in (1, 2):
        assert change(graph, Transition.TRANSITION_ACTIVATE, '/robot')
        graph.wait_for(lambda: graph.probe.count_publishers('/robot/bond'), 'the bond')
        bond = Bond.made[-1]
        assert len(Bond.made) == number and bond.topic == 'bond' and bond.id == 'world_model'
        assert bond.heartbeat_period == 0.1 and bond.heartbeat_timeout > 86_400.0
        assert change(graph, Transition.TRANSITION_DEACTIVATE, '/robot')
        graph.wait_for(lambda: not graph.probe.count_publishers('/robot/bond'), 'its end')
    assert bond.sub not in node.subscriptions and bond.pub not in node.publishers
    assert told() and set(told()) <= {'world_model lives', 'world_model parts'}


def test_a_bond_ends_with_the_node(make_graph, bondpy):
    graph = make_graph(Factory(), '-p', 'autostart:=false')
    change(graph, Transition.TRANSITION_CONFIGURE)
    change(graph, Transition.TRANSITION_ACTIVATE)
    graph.wait_for(lambda: graph.probe.count_publishers('/bond'), 'the bond')
    assert change(graph, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    graph.wait_for(lambda: not graph.probe.count_publishers('/bond'), 'its end')


def test_without_bondpy_the_log_says_what_nav2_needs_and_autostart_needs_none(
        make_graph, monkeypatch):
    monkeypatch.setitem(sys.modules, 'bondpy', None)
    graph, said = make_graph(Factory(), '-p', 'autostart:=false'), []
    graph.nodes[0].get_logger = lambda: SimpleNamespace(info=said.append)
    change(graph, Transition.TRANSITION_CONFIGURE)
    assert change(graph, Transition.TRANSITION_ACTIVATE)
    assert [line for line in said if 'bondpy' in line and 'bond_timeout: 0.0' in line]


def test_a_node_that_brings_itself_up_has_no_bond(make_graph, bondpy):
    assert state_of(make_graph(Factory())) == State.PRIMARY_STATE_ACTIVE
    assert Bond.made == []


def test_engine_that_cannot_be_made_leaves_the_node_unconfigured_and_it_can_try_again(make_graph):
    factory = Factory()
    factory.problem = SpecError('No weights in /nowhere; fetch them.')
    graph = make_graph(factory, '-p', 'autostart:=false')
    assert not change(graph, Transition.TRANSITION_CONFIGURE)
    assert state_of(graph) == State.PRIMARY_STATE_UNCONFIGURED
    factory.problem = RuntimeError('a bug')
    assert not change(graph, Transition.TRANSITION_CONFIGURE)
    factory.problem = None
    assert change(graph, Transition.TRANSITION_CONFIGURE)
    assert change(graph, Transition.TRANSITION_ACTIVATE)
    assert graph.nodes[0].session.status.state in ('stopped', 'playing')


def test_a_transition_looks_after_an_engine_that_hangs_meanwhile(make_graph):
    begun, freed = threading.Event(), threading.Event()
    hang = (lambda: (begun.set(), freed.wait(2 * PATIENCE_S)))
    graph = make_graph(lambda: FakeWorld(script={3: hang}), '-p', 'step_timeout_s:=1.0')
    assert begun.wait(PATIENCE_S)
    assert change(graph, Transition.TRANSITION_DEACTIVATE)
    assert graph.nodes[0].session.status.state == 'error'
    freed.set()


def test_destroyed_node_leaves_nothing_in_the_graph(make_graph):
    graph = make_graph(Factory(), '-r', '__ns:=/gone')
    graph.wait_for(lambda: graph.probe.count_publishers('/gone/world_status'), 'the node')
    node = graph.nodes[0]
    graph._spinner._executor.remove_node(node)
    node.destroy_node()
    graph.nodes.remove(node)
    graph._spinner._nodes.remove(node)
    graph.wait_for(lambda: not graph.probe.count_publishers('/gone/world_model/transition_event'),
                   'the end of the node')


def test_autostart_tells_what_is_wrong_in_one_error(domain):
    factory = Factory()
    factory.problem = SpecError('No weights in /nowhere; fetch them.')
    with pytest.raises(SpecError, match='fetch them'):
        Graph(lambda: [WorldModelNode(world=factory)], domain)


def test_parameters_set_while_running_take_effect_or_are_refused_in_words(make_graph):
    graph = make_graph(Factory())
    status = graph.listen(WorldStatus, 'world_status')
    assert set_parameter(graph, 'speed', ParameterType.PARAMETER_DOUBLE,
                         double_value=0.5).successful
    graph.newest(status, lambda m: 0.0 < m.real_time_factor < 1.0, 'half the speed')
    assert set_parameter(graph, 'seed', ParameterType.PARAMETER_INTEGER,
                         integer_value=7).successful
    assert graph.newest(status).seed != 7
    assert graph.call(Trigger, '/world_model/reset').success
    assert graph.newest(status).seed == 7
    for name, kind, value, words in (
            ('speed', ParameterType.PARAMETER_DOUBLE, dict(double_value=-1.0), 'out of range'),
            ('speed', ParameterType.PARAMETER_STRING, dict(string_value='fast'), 'a number'),
            ('mode', ParameterType.PARAMETER_STRING, dict(string_value='often'), 'is not one of'),
            ('engine', ParameterType.PARAMETER_STRING, dict(string_value='room'), 'read-only')):
        result = set_parameter(graph, name, kind, **value)
        assert not result.successful and words in result.reason, (name, result.reason)
    assert graph.nodes[0].params.speed == 0.5 and graph.nodes[0].session.spec.mode == 'realtime'


@pytest.mark.parametrize('transition', [Transition(id=1), Transition(id=200),
                                        Transition(label='configure'), Transition(label='jump')])
def test_a_transition_that_cannot_be_is_refused_and_ends_nothing(make_graph, transition):
    graph = make_graph(Factory())
    answer = graph.call(ChangeState, '/world_model/change_state',
                        ChangeState.Request(transition=transition))
    assert not answer.success
    state = graph.call(GetState, '/world_model/get_state').current_state
    assert state.id == State.PRIMARY_STATE_ACTIVE
