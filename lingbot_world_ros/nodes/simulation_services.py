# SPDX-License-Identifier: Apache-2.0
"""
The services and the action of simulation_interfaces: which are offered, under which names.

``docs/simulation_interfaces.md`` has the table of codes. What they do is in the files beside this
one: simulation_state.py, simulation_steps.py, simulation_worlds.py, simulation_entities.py; how
answers come about in simulation_answers.py.
"""
import json
import re
from types import SimpleNamespace
from typing import Any, Callable, Dict, Optional

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.nodes.simulation_answers import Answers, installed
from lingbot_world_ros.nodes.simulation_entities import EntityServices
from lingbot_world_ros.nodes.simulation_state import StateServices
from lingbot_world_ros.nodes.simulation_steps import StepServices
from lingbot_world_ros.nodes.simulation_worlds import WorldServices
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.states import TimePolicy
from rclpy.action import ActionServer, CancelResponse
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.service import Service

DOCS = 'docs/simulation_interfaces.md of lingbot_world_ros'
SERVICES = ('GetSimulatorFeatures', 'GetSimulationState', 'SetSimulationState', 'ResetSimulation',
            'StepSimulation', 'LoadWorld', 'UnloadWorld', 'GetCurrentWorld', 'GetAvailableWorlds',
            'GetEntities', 'GetEntitiesStates', 'GetEntityState', 'SetEntityState',
            'GetEntityInfo', 'GetNamedPoses')
ACTION = 'SimulateSteps'
# Which features come with which service or action.
OFFERS = {
    'GetNamedPoses': ('NAMED_POSES',),
    'GetEntities': ('ENTITY_TAGS', 'ENTITY_CATEGORIES'),
    'GetEntityState': ('ENTITY_STATE_GETTING',),
    'SetEntityState': ('ENTITY_STATE_SETTING',),
    'GetEntityInfo': ('ENTITY_INFO_GETTING',),
    'ResetSimulation': ('SIMULATION_RESET', 'SIMULATION_RESET_TIME', 'SIMULATION_RESET_STATE',
                        'SIMULATION_RESET_SPAWNED'),
    'GetSimulationState': ('SIMULATION_STATE_GETTING',),
    'SetSimulationState': ('SIMULATION_STATE_SETTING', 'SIMULATION_STATE_PAUSE'),
    'StepSimulation': ('STEP_SIMULATION_SINGLE', 'STEP_SIMULATION_MULTIPLE'),
    'SimulateSteps': ('STEP_SIMULATION_ACTION',),
    'LoadWorld': ('WORLD_LOADING', 'WORLD_RESOURCE_STRING'),
    'UnloadWorld': ('WORLD_UNLOADING',),
    'GetCurrentWorld': ('WORLD_INFO_GETTING',),
    'GetAvailableWorlds': ('AVAILABLE_WORLDS', 'WORLD_TAGS'),
}


class SimulationServices:
    """
    Offers what of simulation_interfaces makes sense for an imagined world.

    Without a session (the node is not active) all but the features answer INCORRECT_STATE.
    """

    def __init__(self, node: Node, get_session: Callable[[], Optional[Session]],
                 params: SimpleNamespace, on_quit: Callable[[], None]):
        """
        Register what the installed version has.

        :param node: rclpy node to put the services on
        :param get_session: returns the session that answers, None while there is none
        :param params: values of the parameters of world_model
        :param on_quit: called shortly after a request to quit was answered
        :raises SpecError: service_prefix makes no valid names
        """
        self._node, self._get_session, self._params = node, get_session, params
        self._answers = answers = Answers(node, get_session, params)
        self.waiting = answers.waiting
        self._action_type = installed('action', ACTION)
        self._steps = StepServices(answers, self._action_type, _snake(ACTION))
        self._worlds = WorldServices(answers)
        self._handlers = {'GetSimulatorFeatures': self._get_features, **self._steps.handlers,
                          **StateServices(answers, on_quit).handlers, **self._worlds.handlers,
                          **EntityServices(answers).handlers}
        self._services: Dict[str, Service] = {}
        self._action: Optional[ActionServer] = None
        try:
            self._register()
        except NameValidationException as error:
            raise SpecError(f'service_prefix={params.service_prefix!r} makes no valid service '
                            f'names: {error}; use for example "" or "/gzserver".') from error

    def answering(self, name: str) -> Callable:
        """Return the callback of a service."""
        return self._answers.answering(self._handlers[name])

    def destroy(self) -> None:
        """Withdraw everything; call it before the node is destroyed."""
        if self._action is not None:
            self._action.destroy()
        for service in self._services.values():
            self._node.destroy_service(service)
        self.waiting.destroy()
        self._worlds.destroy()

    def _register(self) -> None:
        prefix = self._params.service_prefix.rstrip('/')
        if prefix or self._params.service_prefix:
            prefix += '/'
        for name in SERVICES:
            srv_type = installed('srv', name)
            if srv_type is not None:
                self._services[name] = self._node.create_service(
                    srv_type, prefix + _snake(name), self.answering(name),
                    callback_group=self.waiting.group)
        if self._action_type is not None:
            self._action = ActionServer(
                self._node, self._action_type, prefix + _snake(ACTION), self._steps.execute,
                cancel_callback=lambda _: CancelResponse.ACCEPT, callback_group=self.waiting.group)

    async def _get_features(self, request: Any, response: Any) -> None:
        """Tell what is offered, in any state."""
        features, session = response.features, self._get_session()
        offered = [*self._services, *([ACTION] if self._action is not None else [])]
        names = [name for offer in offered for name in OFFERS.get(offer, ())]
        if self._params.reset_time_policy != TimePolicy.ZERO:
            names = [name for name in names if name != 'SIMULATION_RESET_TIME']
        features.features = sorted(getattr(type(features), name, standard.FEATURES[name])
                                   for name in names)
        info = {'docs': DOCS, 'mode': self._params.mode,
                'seed': self._params.seed if session is None else session.status.seed}
        if session is not None:
            spec = session.world.spec
            info.update(engine=spec.engine, model=spec.model, step_dt_s=spec.step_dt_s,
                        frames_per_step=spec.frames_per_step, frame_rate_hz=spec.frame_rate_hz)
        features.custom_info = json.dumps(info)


def _snake(name: str) -> str:
    return re.sub('(?<=[a-z])(?=[A-Z])', '_', name).lower()
