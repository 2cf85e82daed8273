# SPDX-License-Identifier: Apache-2.0
"""
The services and the action of simulation_interfaces, answered by a session.

``docs/simulation_interfaces.md`` has the table of codes. A handler raises for every answer other
than OK, so that the zero default of ``Result`` (unsupported) is never sent by accident. Nothing
here waits: a handler suspends until the session is done, and the executor goes on.
"""
from concurrent.futures import ThreadPoolExecutor
import json
import re
import time
import traceback

from lingbot_world_ros.errors import SpecError, unknown_name
from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.messages.simulation import (FEATURE_UNSUPPORTED, INCORRECT_STATE, NOT_FOUND,
                                                   OK, OPERATION_FAILED, Refusal)
from lingbot_world_ros.nodes.waiting import Waiting
from lingbot_world_ros.session.requests import Refused
from lingbot_world_ros.session.states import Mode, Reason, State, TimePolicy
from lingbot_world_ros.worlds.definition import WorldError
from lingbot_world_ros.worlds.library import WorldLibrary
from lingbot_world_ros.worlds.placement import misplaced
import numpy as np
from rclpy.action import ActionServer, CancelResponse
from rclpy.exceptions import NameValidationException

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
MAX_SOURCES = 32  # of GetAvailableWorlds
SOFT_SHARE = 0.9  # of service_timeout_s, after which steps end so that the answer is in time
QUIT_DELAY_S = 0.2  # the answer to QUITTING leaves first

# What a refusal of the session means; services with codes of their own say what differs.
OTHERWISE = ''
REASONS = {Reason.NO_WORLD: INCORRECT_STATE, Reason.UNKNOWN: NOT_FOUND}
TRANSITIONS = {Reason.ALREADY: 'ALREADY_IN_TARGET_STATE',
               Reason.NO_WORLD: 'INCORRECT_TRANSITION', OTHERWISE: 'STATE_TRANSITION_ERROR'}


def installed(kind: str, name: str):
    """
    Look for an interface.

    :param kind: ``'srv'`` or ``'action'``
    :param name: of the type
    :return: the type, None if the installed simulation_interfaces lacks it or none is installed
    """
    try:
        module = __import__(f'simulation_interfaces.{kind}', fromlist=[name])
    except ImportError:
        return None
    return getattr(module, name, None)


class SimulationServices:
    """
    Offers what of simulation_interfaces makes sense for an imagined world.

    Every handler answers within ``service_timeout_s``: with an error if what was asked is not
    done by then. Without a session (the node is not active) all but the features answer
    INCORRECT_STATE.
    """

    def __init__(self, node, get_session, world_spec, params, on_quit):
        """
        Register what the installed version has.

        :param node: rclpy node to put the services on
        :param get_session: returns the session that answers, None while there is none
        :param world_spec: WorldSpec of the engine for the features, None while unknown
        :param params: values of the parameters of world_model
        :param on_quit: called shortly after a request to quit was answered
        :raises SpecError: service_prefix makes no valid names
        """
        self._node, self._get_session, self._params = node, get_session, params
        self._world_spec, self._on_quit = world_spec, on_quit
        self._quitting = False
        self._library = None
        self._files = ThreadPoolExecutor(max_workers=1, thread_name_prefix='worlds')
        self.waiting = Waiting(node)
        self._services, self._action = {}, None
        try:
            self._register()
        except NameValidationException as error:
            raise SpecError(f'service_prefix={params.service_prefix!r} makes no valid service '
                            f'names: {error}; use for example "" or "/gzserver".') from error

    def _register(self):
        prefix = self._params.service_prefix.rstrip('/')
        if prefix or self._params.service_prefix:
            prefix += '/'
        for name in SERVICES:
            srv_type = installed('srv', name)
            if srv_type is not None:
                snake = _snake(name)
                self._services[name] = self._node.create_service(
                    srv_type, prefix + snake, self._answering(getattr(self, f'_{snake}')),
                    callback_group=self.waiting.group)
        self._action_type = installed('action', ACTION)
        if self._action_type is not None:
            self._action = ActionServer(
                self._node, self._action_type, prefix + _snake(ACTION), self._simulate_steps,
                cancel_callback=lambda _: CancelResponse.ACCEPT, callback_group=self.waiting.group)

    def destroy(self) -> None:
        """Withdraw everything; call it before the node is destroyed."""
        if self._action is not None:
            self._action.destroy()
        for service in self._services.values():
            self._node.destroy_service(service)
        self.waiting.destroy()
        self._files.shutdown(wait=False)

    # How an answer comes about.

    def _answering(self, handler):
        """Wrap a handler: what it raises becomes a result, and nothing gets past here."""
        async def answer(request, response):
            try:
                session = self._session(handler)
                await handler(session, request, response)
                code, text = OK, _text_of(response)
            except Exception as error:  # the executor's edge: a handler may fail in any way
                response, code, text = type(response)(), self._code_of(error), str(error)
                if hasattr(getattr(response, 'state', None), 'state'):  # told in any case
                    response.state.state = self._state_number()
            if hasattr(response, 'result'):  # the features have none
                standard.set_result(response.result, code, text, response)
            return response
        return answer

    def _session(self, handler):
        """Return the session, or refuse; features are told in any state."""
        session = self._get_session()
        if handler == self._get_simulator_features:
            return session
        if session is None:
            raise Refusal(INCORRECT_STATE, 'The node world_model is not active; configure and '
                          'activate it.')
        if self._quitting and handler != self._get_simulation_state:
            raise Refusal(INCORRECT_STATE, 'The simulator is quitting.')
        return session

    def _code_of(self, error) -> str:
        if isinstance(error, (Refusal, WorldError)):
            return error.code
        if not isinstance(error, SpecError):
            text = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
            self._node.get_logger().error(
                standard.sendable(f'A simulation service failed. {text[-1500:]}'))
        return OPERATION_FAILED

    async def _done(self, outcome, reasons=REASONS, within_s=None):
        """
        Suspend until somebody else is done.

        :param outcome: concurrent future
        :param reasons: code by reason of a refusal, OTHERWISE for all others
        :param within_s: None takes service_timeout_s, 0 waits for ever
        :return: its result
        :raises Refusal: refused, failed, closed or not done in time
        """
        within_s = self._params.service_timeout_s if within_s is None else within_s
        is_done = await self.waiting.wait(outcome, within_s)
        otherwise = reasons.get(OTHERWISE, OPERATION_FAILED)
        if not is_done:
            raise Refusal(otherwise, f'Not done within service_timeout_s={within_s:g} s.')
        if outcome.cancelled():
            raise Refusal(INCORRECT_STATE, 'The world model is shutting down.')
        error = outcome.exception()
        if error is None:
            return outcome.result()
        if isinstance(error, Refused):
            raise Refusal(reasons.get(error.reason, otherwise), str(error)) from error
        if isinstance(error, SpecError):
            raise error
        raise Refusal(otherwise, f'The engine failed: {error}') from error

    # State and time.

    async def _get_simulator_features(self, session, request, response):
        features = response.features
        offered = [*self._services, *([ACTION] if self._action is not None else [])]
        names = [name for offer in offered for name in OFFERS.get(offer, ())]
        if self._params.reset_time_policy != TimePolicy.ZERO:
            names = [name for name in names if name != 'SIMULATION_RESET_TIME']
        features.features = sorted(getattr(type(features), name, standard.FEATURES[name])
                                   for name in names)
        spec = self._world_spec if session is None else session.world.spec
        info = {'docs': DOCS, 'mode': self._params.mode,
                'seed': self._params.seed if session is None else session.status.seed}
        if spec is not None:
            info.update(engine=spec.engine, model=spec.model, step_dt_s=spec.step_dt_s,
                        frames_per_step=spec.frames_per_step, frame_rate_hz=spec.frame_rate_hz)
        features.custom_info = json.dumps(info)

    async def _get_simulation_state(self, session, request, response):
        response.state.state = self._state_number()
        if session.status.state == State.ERROR and not self._quitting:
            raise Refusal(OPERATION_FAILED, session.status.message)

    def _state_number(self) -> int:
        session = self._get_session()
        state = State.NO_WORLD if session is None else session.status.state
        return standard.state_number(standard.QUITTING if self._quitting else state)

    async def _set_simulation_state(self, session, request, response):
        target = standard.state_name(request.state.state)
        if target is None:
            raise Refusal(FEATURE_UNSUPPORTED, f'There is no state {request.state.state}.')
        if target == standard.QUITTING:
            return await self._quit(session)
        if target in (State.NO_WORLD, State.LOADING):
            if session.status.state == target:
                raise Refusal('ALREADY_IN_TARGET_STATE', f'The state is {target} already.')
            raise Refusal('INCORRECT_TRANSITION', f'The state {target} cannot be set; use '
                          'unload_world or load_world.')
        if session.status.state == State.LOADING:
            raise Refusal('INCORRECT_TRANSITION', 'A world is being loaded; wait for it.')
        before = session.status.state
        change = {State.STOPPED: session.stop, State.PLAYING: session.play,
                  State.PAUSED: session.pause}[target]
        try:
            await self._done(change(), TRANSITIONS)
        except Refusal as refusal:
            # Steps that this very request ended were playing, and leave the world paused.
            if refusal.code != 'ALREADY_IN_TARGET_STATE' or before == target:
                raise

    async def _quit(self, session):
        """Stop what runs, answer, and only then end."""
        self._quitting = True
        try:
            await self._done(session.stop())
        except SpecError:
            pass  # nothing runs, or it cannot be stopped; the end comes all the same
        timer = self._node.create_timer(
            QUIT_DELAY_S, lambda: (timer.cancel(), self._on_quit()), clock=self.waiting.steady,
            callback_group=self.waiting.group)

    async def _reset_simulation(self, session, request, response):
        time_too, state_too = self._scopes(request.scope)
        if session.status.state in (State.NO_WORLD, State.LOADING):
            raise Refusal(INCORRECT_STATE, 'No world is loaded; load one first.')
        if time_too or state_too:
            await self._done(session.reset(time=time_too, state=state_too))
        if self._params.state_after_reset == State.PLAYING and self._params.mode != Mode.STEPPED:
            await self._play(session)

    def _scopes(self, scope):
        """Return whether time and state start over; spawned entities there are none."""
        if scope in (0, standard.SCOPE_ALL):
            return True, True
        if scope & ~(standard.SCOPE_TIME | standard.SCOPE_STATE | standard.SCOPE_SPAWNED):
            raise Refusal(FEATURE_UNSUPPORTED, f'scope={scope} has bits that no scope has.')
        time_too, state_too = bool(scope & standard.SCOPE_TIME), bool(scope & standard.SCOPE_STATE)
        if time_too and not state_too and self._params.reset_time_policy != TimePolicy.ZERO:
            raise Refusal(FEATURE_UNSUPPORTED, 'Time does not start over: reset_time_policy is '
                          f'{self._params.reset_time_policy}.')
        return time_too, state_too

    async def _play(self, session):
        try:
            await self._done(session.play(), TRANSITIONS)
        except Refusal as refusal:
            if refusal.code != 'ALREADY_IN_TARGET_STATE':
                raise Refusal(OPERATION_FAILED, str(refusal)) from refusal

    async def _step_simulation(self, session, request, response):
        limit_s = self._params.service_timeout_s
        deadline_s = time.monotonic() + SOFT_SHARE * limit_s
        steps = _Steps(request.steps)
        try:
            await self._make(session, steps, lambda: time.monotonic() > deadline_s)
        except Refusal as refusal:
            if time.monotonic() < deadline_s:
                raise
            raise Refusal(OPERATION_FAILED, f'{steps}: service_timeout_s={limit_s:g} s is over; '
                          f'use the action {_snake(ACTION)} for more.') from refusal

    async def _simulate_steps(self, goal):
        """Execute a goal of the action: as many steps as it takes, however long."""
        steps = _Steps(goal.request.steps, lambda *counts: self._report(goal, *counts))
        result, code, text = self._action_type.Result(), OK, ''
        try:
            session = self._session(self._simulate_steps)
            await self._make(session, steps, lambda: goal.is_cancel_requested, within_s=0)
        except Exception as error:  # the executor's edge
            code, text = self._code_of(error), str(error)
        if code == OK:
            goal.succeed()
        elif goal.is_cancel_requested:
            text = f'Canceled: {steps}.'
            goal.canceled()
        else:
            goal.abort()
        standard.set_result(result.result, code, text)
        return result

    def _report(self, goal, done, remaining):
        """Tell the client of a step; the session's thread calls this and must not suffer."""
        try:
            goal.publish_feedback(self._action_type.Feedback(completed_steps=done,
                                                             remaining_steps=remaining))
        except Exception as error:  # the graph is going down
            self._node.get_logger().warning(f'No feedback: {error}', once=True)

    async def _make(self, session, steps, should_stop, within_s=None):
        """Make steps, and count them; a world that is not paused makes none."""
        status = session.status
        if status.state != State.PAUSED:
            raise Refusal(OPERATION_FAILED, status.message if status.state == State.ERROR else
                          f'The world makes steps only while it is paused; it is {status.state}.')
        if should_stop():
            raise Refusal(OPERATION_FAILED, f'Interrupted: {steps}.')
        if steps.asked:
            await self._done(session.advance(steps.asked, steps.count, should_stop),
                             {OTHERWISE: OPERATION_FAILED}, within_s)

    # Worlds.

    async def _load_world(self, session, request, response):
        resource = getattr(request, 'world_resource', request)  # 1.x: fields of the request
        seed = self._params.seed
        world = await self._in_thread(lambda: self._worlds(session).load(
            resource.uri, resource.resource_string, seed=seed,
            fail_on_unsupported=request.fail_on_unsupported_element,
            ignore_assets=request.ignore_missing_or_unsupported_assets))
        await self._done(session.load(world))
        standard.world_to_msg(world, response.world)

    async def _unload_world(self, session, request, response):
        await self._done(session.unload(), {Reason.NO_WORLD: 'NO_WORLD_LOADED'})

    async def _get_current_world(self, session, request, response):
        world = session.definition
        if world is None:
            raise Refusal('NO_WORLD_LOADED', 'No world is loaded.')
        standard.world_to_msg(world, response.world)

    async def _get_available_worlds(self, session, request, response):
        standard.tags_fit(request.filter, ())  # refuses what it does not know
        if len(request.additional_sources) > MAX_SOURCES:
            raise Refusal(OPERATION_FAILED, f'{len(request.additional_sources)} sources are more '
                          f'than {MAX_SOURCES}; ask for fewer at a time.')
        worlds, refusal = await self._in_thread(
            lambda: self._find_worlds(session, request.additional_sources))
        if refusal is not None and not (request.continue_on_error and worlds):
            raise refusal
        resource = installed('msg', 'WorldResource')
        for world in worlds:
            if standard.tags_fit(request.filter, world.tags):
                response.worlds.append(resource())
                standard.world_to_msg(world, response.worlds[-1])
        response.result.error_message = '' if refusal is None else str(refusal)

    def _find_worlds(self, session, sources):
        """List worlds, and the refusal that is due if not all sources could be read."""
        library = self._worlds(session)
        worlds, failed = library.available(self._params.seed)
        missing = []
        for source in sources:
            try:
                worlds += library.find(source, self._params.seed)
            except WorldError as error:
                missing.append(str(error))
        worlds = list({world.uri: world for world in worlds}.values())
        if failed:
            return worlds, Refusal('DEFAULT_SOURCES_FAILED',
                                   f'Not readable: {"; ".join(failed + missing)}')
        if missing:
            return worlds, Refusal(NOT_FOUND, ' '.join(missing))
        return worlds, None

    def _worlds(self, session) -> WorldLibrary:
        """Return the library for the session's engine; in the thread of files only."""
        if self._library is None or self._library[0] is not session.world.spec:
            spec = session.world.spec
            self._library = spec, WorldLibrary(spec, self._params.world_path)
        return self._library[1]

    async def _in_thread(self, work):
        """Read files where slow disks hold up nobody."""
        return await self._done(self._files.submit(work))

    # Entities.

    async def _get_entities(self, session, request, response):
        entities = self._chosen(session, request.filters)
        response.entities = [entity.name for entity in entities]

    async def _get_entities_states(self, session, request, response):
        stamp_ns = session.status.stamp_ns
        message = installed('msg', 'EntityState')
        for entity in self._chosen(session, request.filters):
            response.entities.append(entity.name)
            response.states.append(message())
            standard.entity_to_msg(entity, stamp_ns, response.states[-1])

    async def _get_entity_state(self, session, request, response):
        stamp_ns = session.status.stamp_ns
        standard.entity_to_msg(self._entity(session, request.entity), stamp_ns, response.state)

    async def _get_entity_info(self, session, request, response):
        kind = self._entity(session, request.entity).category
        response.info.category.category = standard.CATEGORIES[kind]
        response.info.description = standard.DESCRIPTIONS[kind]
        response.info.tags = list(standard.TAGS[kind])

    async def _get_named_poses(self, session, request, response):
        message = installed('msg', 'NamedPose')
        for pose in self._definition(session).named_poses:
            if standard.tags_fit(request.tags, pose.tags):
                response.poses.append(message())
                standard.named_pose_to_msg(pose, response.poses[-1])

    async def _set_entity_state(self, session, request, response):
        entity = self._entity(session, request.entity)
        frame = self._frame(session, request.state.header.frame_id)
        pose = twist = None
        if getattr(request, 'set_pose', True):  # 1.x sets all there is
            pose = standard.pose_from_msg(request.state.pose, frame)
            self._check_place(session, entity, pose)
        if getattr(request, 'set_twist', True):
            twist = self._twist(session, entity, request.state.twist, frame, pose)
        if pose is None and twist is None:
            response.result.error_message = ('Nothing was set: set_pose and set_twist are false, '
                                             'and acceleration has no meaning here.')
            return
        await self._done(session.move(entity.name, pose, twist))

    def _check_place(self, session, entity, pose):
        spec, scene = session.world.spec, self._definition(session).scene
        radius_m, _ = standard.entity_size_m(entity, spec, scene)
        problem = misplaced(scene, float(pose[0]), float(pose[1]), radius_m,
                            spec.robot.footprint.height_m)
        if problem:
            raise Refusal('INVALID_POSE', problem)

    def _twist(self, session, entity, twist, frame, pose):
        """Read a new twist; objects are put down at rest and have none."""
        if entity.category == 'robot':
            yaw = entity.pose[2] if pose is None else pose[2]
            return standard.twist_from_msg(twist, frame[2], yaw, session.world.spec)
        if not standard.is_at_rest(twist):
            raise Refusal(OPERATION_FAILED, 'An object is put down at rest; it has no twist that '
                          'can be set.')
        return None

    def _frame(self, session, frame_id) -> np.ndarray:
        """Return where a frame is in the scene, (3,) x, y [m], yaw [rad]."""
        odom = self._params.frame_prefix + self._params.frames.odom
        if frame_id in ('', standard.WORLD_FRAME):
            return np.zeros(3)
        if frame_id == odom:
            return session.origin
        raise Refusal(NOT_FOUND, str(unknown_name('frame', frame_id[:100],
                                                  (standard.WORLD_FRAME, odom))))

    def _definition(self, session):
        world = session.definition
        if world is None or session.status.state == State.LOADING:
            raise Refusal(INCORRECT_STATE, 'No world is loaded; load one first.')
        return world

    def _chosen(self, session, filters):
        scene = self._definition(session).scene
        return standard.filtered(session.entities(), filters, session.world.spec, scene)

    def _entity(self, session, name):
        self._definition(session)
        entities = session.entities()
        if name not in entities:
            raise Refusal(NOT_FOUND, str(unknown_name('entity', name[:100], entities)))
        return entities[name]


class _Steps:
    """Counts the steps of one request; written by the session's thread."""

    def __init__(self, asked, on_step=None):
        self.asked, self.done = asked, 0
        self._on_step = on_step or (lambda done, remaining: None)

    def count(self, done, remaining):
        """Take note of a step."""
        self.done = done
        self._on_step(done, remaining)

    def __str__(self):
        return f'{self.done} of {self.asked} steps done, {self.asked - self.done} remain'


def _snake(name: str) -> str:
    return re.sub('(?<=[a-z])(?=[A-Z])', '_', name).lower()


def _text_of(response) -> str:
    return response.result.error_message if hasattr(response, 'result') else ''
