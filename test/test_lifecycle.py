# SPDX-License-Identifier: Apache-2.0
"""The managed node: nothing loaded, loaded and silent, running; and parameters set meanwhile."""
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
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402


@pytest.fixture(scope='module')
def domain():
    with Domain() as number:
        yield number


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
def make_graph(domain):
    graphs = []

    def start(factory, *ros_args):
        def nodes():
            encoder = ActionEncoderNode()
            return [WorldModelNode(world=factory, encoder=encoder), encoder]
        graphs.append(Graph(nodes, domain, ('-p', 'scene:=a', '-p', 'speed:=3.0', *ros_args)))
        graphs[-1].__enter__()
        return graphs[-1]
    yield start
    for graph in graphs:
        graph.__exit__()


def change(graph, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return graph.call(ChangeState, '/world_model/change_state', request).success


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
    assert graph.newest(status).seed == 0
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
