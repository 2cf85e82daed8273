# SPDX-License-Identifier: Apache-2.0
"""The parameter mode of a running world, seen from the ROS interface."""
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from free_camera import FreeCameraWorld  # noqa: E402
from lingbot_world_ros.msg import WorldSpec, WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.pair import make_pair  # noqa: E402
import numpy as np  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from ros_domain import Domain  # noqa: E402
from ros_graph import Graph  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402


@pytest.fixture
def graph():
    with Domain() as domain, Graph(lambda: make_pair(FakeWorld), domain,
                                   ['-p', 'scene:=a', '-p', 'cmd_vel_type:=twist']) as graph:
        yield graph


def test_the_parameter_changes_the_mode_and_the_world_is_described_anew(graph):
    def set_mode(mode):
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=mode)
        return graph.call(SetParameters, '/world_model/set_parameters', SetParameters.Request(
            parameters=[Parameter(name='mode', value=value)])).results[0]

    specs = graph.listen(WorldSpec, 'world_spec', latched=True)
    status = graph.listen(WorldStatus, 'world_status')
    graph.wait_for(lambda: specs and status, 'the world')
    assert set_mode('stepped').successful
    graph.newest(status, lambda m: (m.mode, m.state) == ('stepped', WorldStatus.STATE_PAUSED))
    graph.wait_for(lambda: specs[-1].mode == 'stepped', 'world_spec')
    assert specs[-1].header.stamp == specs[0].header.stamp
    assert graph.nodes[1]._buffer.spec.ages_in_sim_time
    assert graph.call(Trigger, '/world_model/step').success
    refused = graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False))
    assert not refused.success and 'realtime' in refused.message
    refused = set_mode('fast')
    assert not refused.successful and 'realtime, stepped, lockstep' in refused.reason
    assert set_mode('realtime').successful
    assert graph.call(SetBool, '/world_model/pause', SetBool.Request(data=False)).success
    graph.newest(status, lambda m: (m.mode, m.state) == ('realtime', WorldStatus.STATE_PLAYING))


def test_a_camera_path_goes_on_where_it_was():
    args = ['-p', 'scene:=a', '-p', 'initial_state:=paused', '-p', 'camera_path:=keys:w-4,d-20']
    shown = []
    for modes in ((), ('lockstep', 'stepped')):
        with Domain() as domain, Graph(lambda: make_pair(FreeCameraWorld), domain, args) as graph:
            session = graph.nodes[0].session
            assert graph.call(Trigger, '/world_model/step').success
            for mode in modes:
                session.set_mode(mode).result(PATIENCE_S)
            assert graph.call(Trigger, '/world_model/step').success
            shown.append(session.world.poses())
            assert session.reset().result(PATIENCE_S).step == 0
            assert graph.call(Trigger, '/world_model/step').success
            np.testing.assert_array_equal(session.world.poses(), shown[-1][:5])
    np.testing.assert_array_equal(shown[0], shown[1])
    assert np.abs(np.diff(shown[0][:, :3, 3], axis=0)).max(axis=1).min() > 0.0
