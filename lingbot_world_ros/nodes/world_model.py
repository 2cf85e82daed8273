# SPDX-License-Identifier: Apache-2.0
"""
Node ``world_model``: action embeddings in, frames and states of a world out.

A managed node: unconfigured has no weights, inactive has them loaded and publishes nothing,
active runs. By default it brings itself up (parameter ``autostart``).
"""
from concurrent.futures import Future as WorkerFuture, wait
from dataclasses import fields
from functools import partial
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Union

from lingbot_world_ros.actions.commands import MESSAGE_LENGTH
from lingbot_world_ros.actions.playback import require_free_camera
from lingbot_world_ros.engines.interface import WorldModel, WorldSpec
from lingbot_world_ros.engines.isolated import IsolatedWorld
from lingbot_world_ros.engines.registry import engine_entry, make_world
from lingbot_world_ros.errors import shown, SpecError, unknown_name
from lingbot_world_ros.messages.action_embedding import embedding_from_msg
from lingbot_world_ros.messages.encodings import rgb_from_msg
from lingbot_world_ros.msg import ActionEmbedding as ActionEmbeddingMsg, WorldSpec as WorldSpecMsg
from lingbot_world_ros.nodes import qos
from lingbot_world_ros.nodes.bond import ManagerBond
from lingbot_world_ros.nodes.lifecycle_service import refuse_strange_transitions
from lingbot_world_ros.nodes.newest import NewestOnly
from lingbot_world_ros.nodes.parameter_service import SafeParameterService
from lingbot_world_ros.nodes.parameters import declare, flat, given_values
from lingbot_world_ros.nodes.ros_process import spin_node
from lingbot_world_ros.nodes.simulation_services import SimulationServices
from lingbot_world_ros.nodes.spinner import Spinner
from lingbot_world_ros.nodes.world_publishers import WorldPublishers
from lingbot_world_ros.progress import Loading
from lingbot_world_ros.robots.drive import Drive
from lingbot_world_ros.session.frame import Frame
from lingbot_world_ros.session.latch import EmbeddingSource
from lingbot_world_ros.session.observer import SessionObserver
from lingbot_world_ros.session.session import Session
from lingbot_world_ros.session.spec import SessionSpec
from lingbot_world_ros.session.states import Mode, State
from lingbot_world_ros.session.status import SessionStatus
from lingbot_world_ros.settings.parameters import engine_options, WORLD_MODEL
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
from lingbot_world_ros.worlds.definition import IMAGE_SCENE, WorldDefinition
from lingbot_world_ros.worlds.learned import learned_folder
from lingbot_world_ros.worlds.library import WorldLibrary
from lingbot_world_ros.worlds.start_choice import check_prompt, find_start_image, started_from
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

LOG_PERIOD_S = 5.0
WATCH_PERIOD_S = 0.2
BEAT_S = 0.5
END_PATIENCE_S = 3.0  # for a step in progress; a launch file waits 5 s before it insists
INACTIVE = 'the node world_model is not active; configure and activate it'
_ENDED = {State.NO_WORLD: 'no world is loaded; load one first',
          State.ERROR: 'the engine of the world has failed; reset it'}
DISCOVERY_S = 3.5  # Fast DDS announces a node every 3 s, should its first calls go unheard


class Encoder(EmbeddingSource, Protocol):
    """An action encoder in the same process, or what stands where one is."""

    def link(self, sim_ns: Callable[[], int], on_command: Callable[[int], None],
             standstill: Callable[[], str], /) -> None:
        """Serve a session, see ``ActionEncoderNode``."""
        ...

    def begin(self, msg: WorldSpecMsg, drive: Drive, /) -> None:
        """Take over a new world."""
        ...

    def observe(self, stamp_ns: int, position: np.ndarray, velocity: np.ndarray, /) -> None:
        """Take note of where the joints are in a frame."""
        ...

    def stop(self, reason: str, /) -> None:
        """Take note that the world goes on with nothing it was asked for."""
        ...


class WorldModelNode(LifecycleNode):
    """Wire ``action_embedding`` to a session and the session to its publishers and services."""

    session: Optional[Session] = None  # while not configured, as the next two
    sensors: Optional[WorldPublishers] = None
    first_frame: Optional[WorkerFuture] = None
    _encoder: Optional[Encoder] = None
    _simulation: Optional[SimulationServices] = None

    def __init__(self, world: Optional[Callable[[], WorldModel]] = None,
                 encoder: Optional[Encoder] = None,
                 definition: Optional[WorldDefinition] = None,
                 observers: Sequence[SessionObserver] = (), **node_args: Any) -> None:
        """
        Declare everything; load and start the engine unless ``autostart`` is false.

        :param world: makes the engine, in place of the one that the parameter names
        :param encoder: action encoder in the same process, asked right before each step
        :param definition: of the world to start with, in place of that of the parameters
        :param observers: to be told beside the topics
        :param node_args: for ``rclpy.node.Node``
        :raises SpecError: a parameter, scene or the engine's files cannot be used
        """
        super().__init__('world_model', start_parameter_services=False, **node_args)
        try:
            self._set_up(world, encoder, definition, observers)
            if self.params.autostart:
                self._bring_up()
        except BaseException:
            self.destroy_node()  # else it stays in the graph until memory is cleaned up
            raise

    def _set_up(self, world: Optional[Callable[[], WorldModel]], encoder: Optional[Encoder],
                definition: Optional[WorldDefinition],
                observers: Sequence[SessionObserver]) -> None:
        """Declare everything; see ``__init__``."""
        SafeParameterService(self)
        refuse_strange_transitions(self)
        self._made_s, self._bond = time.monotonic(), ManagerBond(self)
        self.params = declare(self, WORLD_MODEL, self.on_parameter)
        if world is None:
            declare(self, engine_entry(self.params.engine).table(), values=self.params)
        options = {} if world else engine_options({**given_values(self), **flat(self.params)},
                                                  Loading())
        self._make_engine: Callable[[], WorldModel] = world or partial(
            make_world, self.params.engine, **options)
        self._checkpoint = options.get('checkpoint', '')
        self._encoder, self._given, self._observers = encoder, definition, observers
        self.problem: Optional[Exception] = None  # what the last failed transition was about
        self.on_quit: Callable[[], None] = lambda: None
        self._is_active = False
        if encoder is None:
            qos.Listener(self, ActionEmbeddingMsg, 'action_embedding', self.on_embedding,
                         qos.NEWEST)
        self._quiet_until_s: Dict[str, float] = {}  # by topic: a flood shall not flood the log
        self._prompts = NewestOnly(lambda text: self._ask(Session.set_prompt, text),
                                   partial(self._warn, 'prompt'))
        # The newest step when the newest image was taken.
        self._anchored_step: Optional[int] = None
        self._anchors = NewestOnly(self._ask_anchor, partial(self._warn, 'anchor_image'),
                                   self._may_anchor)
        topics = self.params.topics
        qos.Listener(self, String, topics.prompt, self.on_prompt, qos.NEWEST)
        qos.Listener(self, Image, topics.anchor_image, self.on_anchor_image, qos.NEWEST)
        self._simulation = SimulationServices(self, self.running_session, self.params,
                                              lambda: self.on_quit())
        self._waiting = self._simulation.waiting
        for srv_type, name in ((Trigger, 'reset'), (SetBool, 'pause'), (Trigger, 'step')):
            self.create_service(srv_type, f'~/{name}', getattr(self, f'on_{name}'),
                                callback_group=self._waiting.group)
        # Steady: with use_sim_time a ROS timer would wait for the clock this node publishes.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self.on_second, clock=steady)
        self.create_timer(BEAT_S, self.on_beat, clock=steady)
        self.create_timer(WATCH_PERIOD_S, self.on_watch, clock=steady)

    def destroy_node(self) -> None:
        """End the worker before its publishers go away."""
        self._drop_session(END_PATIENCE_S)
        if self._simulation is not None:
            self._simulation.destroy()
        super().destroy_node()
        # rclpy forgets this one, and with it the node would stay in the graph.
        self._state_machine.destroy_when_not_in_use()

    def running_session(self) -> Optional[Session]:
        """Return the session of an active node, else None."""
        return self.session if self._is_active else None

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the engine and prepare the topics."""
        return self._transition(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the world, or go on with it."""
        return self._transition(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let time stand still and publish nothing more."""
        return self._transition(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop engine and topics."""
        return self._transition(self._drop_session)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop engine and topics for good."""
        return self._transition(self._drop_session)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop engine and topics; the node can be configured again."""
        return self._transition(self._drop_session)

    def _transition(self, change: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            change()
        except SpecError as error:
            self.problem = error
            if not self.params.autostart:  # else whoever made the node is told
                self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would swallow it
            self.problem = error
            self.get_logger().error(''.join(traceback.format_exception(error)))
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _bring_up(self) -> None:
        for trigger in (self.trigger_configure, self.trigger_activate):
            try:
                result = trigger()
            except KeyboardInterrupt:
                self._drop_session(END_PATIENCE_S)
                raise
            if result != TransitionCallbackReturn.SUCCESS:
                problem, self.problem = self.problem, None
                self._drop_session()
                assert problem is not None  # the transition left it
                raise problem

    def _load_engine(self, make_engine: Callable[[], WorldModel]) -> WorldModel:
        """Make the engine, and say so if that may take minutes."""
        if not self._checkpoint:
            return make_engine()
        if self.params.start_image:  # told now, not after minutes
            find_start_image(self.params.start_image)
        self.get_logger().info(f'Loading engine {self.params.engine} from '
                               f'{shown(self._checkpoint)}; a large checkpoint takes minutes.')
        begin_s = time.monotonic()
        engine = make_engine()
        self.get_logger().info(f'{engine.spec.model} loaded in {time.monotonic() - begin_s:.1f} '
                               's. It encodes the prompt and imagines the first images.')
        return engine

    def _configure(self) -> None:
        params = self.params
        make_engine = self._make_engine
        if params.isolate_engine:
            make_engine = partial(IsolatedWorld, self._make_engine)
        engine = self._load_engine(make_engine)
        try:
            for name in ('camera_link', 'camera_path'):
                if getattr(params, name):
                    require_free_camera(name, engine.spec.engine, engine.spec.free_camera)
            self._definition = self._given or self._first_world(engine.spec)
            values = {f.name: getattr(params, f.name) for f in fields(SessionSpec)}
            spec = SessionSpec(**values)
            self.sensors = WorldPublishers(self, engine.spec, params)
            observers = [self.sensors, *self._observers]
            if self._encoder is not None:
                observers.append(_EncoderLink(self._encoder, self.sensors,
                                              engine.spec.robot.drive))
            self.session = Session(engine, spec, observers=observers, log=self.get_logger(),
                                   make_world=make_engine,
                                   is_wrist_watched=self.sensors.is_wrist_watched)
        except Exception:
            engine.close()
            raise
        if self._encoder is not None:
            session = self.session  # bound here: a late command may come after a cleanup
            self._encoder.link(lambda: session.sim_ns, session.command_arrived,
                               lambda: self._standstill(session))
            session.link(self._encoder)
        self._resume = False

    def _first_world(self, spec: WorldSpec) -> WorldDefinition:
        params, scene = self.params, self.params.scene
        # A learned world is its engine's only scene.
        name = '' if learned_folder(params.world) else params.world
        if params.start_image and IMAGE_SCENE in spec.scenes:
            scene = IMAGE_SCENE
        elif scene not in spec.scenes and scene == load_profile(DEFAULT_PROFILE)['scene']:
            scene, *_ = spec.scenes or (scene,)  # nobody chose, and not all engines have this one
        if not name and scene not in spec.scenes:
            raise unknown_name('scene', scene, spec.scenes)
        library = WorldLibrary(spec, params.world_path)
        world = library.load(name or scene, seed=params.seed)
        return started_from(world, spec, start_image=params.start_image, prompt=params.prompt)

    def _activate(self) -> None:
        assert self.session is not None  # it was configured
        if self.first_frame is None:
            self._check_clock()  # before a frame of this world goes out on the other's topics
            self.first_frame = self.session.start(self._definition)
            error = self._error_of(self.first_frame)
            if error is not None:
                self._drop_session()
                raise SpecError(f'The world does not start: {error}') from error
        elif self._resume and self.params.mode != Mode.STEPPED:
            error = self._error_of(self.session.play())
            if error is not None:
                raise error
        self._is_active = True
        if not self.params.autostart:  # else nobody manages it
            self._bond.form()

    def _standstill(self, session: Session) -> str:
        """Say why a world follows no goal of an action, '' if it does."""
        if self.running_session() is not session:
            return INACTIVE
        return _ENDED.get(session.status.state, '')

    def _stop(self) -> None:
        """Follow nothing any more."""
        self._bond.part()
        self._is_active = False
        if self._encoder is not None:
            self._encoder.stop(INACTIVE)

    def _deactivate(self) -> None:
        assert self.session is not None  # it was configured
        self._stop()
        self._resume = self.session.status.state == State.PLAYING
        if self._resume:
            self._error_of(self.session.pause())

    def _error_of(self, asked: WorkerFuture) -> Optional[BaseException]:
        """Wait for an answer, and look after the engine, as a transition holds up ``on_watch``."""
        assert self.session is not None  # it was asked
        while not asked.done():
            wait([asked], WATCH_PERIOD_S)
            self.session.check_engine()
        return asked.exception()

    def _drop_session(self, patience_s: Optional[float] = None) -> None:
        self._stop()
        if self.session is not None:
            self.session.close(patience_s)
        if self.sensors is not None:
            self.sensors.destroy()
        self.session = self.sensors = self.first_frame = None

    # Input

    def refuse_second_clock(self, spinner: Spinner) -> None:
        """
        Look for another clock; two on one topic make every time-dependent node jump.

        Blocks until this node is ``DISCOVERY_S`` old, because before that nobody can tell.

        :param spinner: that spins this node; when it is time to end the search ends too
        :raises SpecError: something else publishes on the clock topic in this ROS domain
        """
        if self.sensors is None or not self.params.publish_clock:
            return
        self._check_clock()
        while time.monotonic() - self._made_s <= DISCOVERY_S and not spinner.wait(0.05):
            self._check_clock()

    def _check_clock(self) -> None:
        topic = self.resolve_topic_name(self.params.topics.clock)
        if not self.params.publish_clock or self.count_publishers(topic) < 2:
            return
        raise SpecError(
            f'ROS domain {self.context.get_domain_id()} is in use: something else publishes '
            f'{topic} there. End it, choose another domain (ROS_DOMAIN_ID=7 ...), or give this '
            'world its own namespace, clock and frames (namespace w1, topics.clock:=clock, '
            'frame_prefix:=w1/).')

    def on_parameter(self, name: str, value: Any) -> None:
        """Hand a changed parameter over to the session."""
        if self.session is None:
            return
        if name == 'seed':
            self.session.set_seed(value)
        elif name == 'mode':
            self.session.set_mode(value)
        elif name in {f.name for f in fields(SessionSpec)}:
            self.session.change_spec(**{name: value})

    def on_embedding(self, msg: ActionEmbeddingMsg) -> None:
        """Hand the newest embedding over to the session."""
        session = self.running_session()
        if session is None:
            return
        try:
            session.set_embedding(embedding_from_msg(msg))
        except SpecError as error:
            self._warn('action_embedding', error)

    def on_prompt(self, msg: String) -> None:
        """Go on with another text; the newest counts."""
        session = self.running_session()
        if session is None:
            return
        try:
            check_prompt(session.world.spec, msg.data)
        except SpecError as error:
            return self._warn('prompt', error)
        self._prompts.put(msg.data)

    def on_anchor_image(self, msg: Image) -> None:
        """Go on from an image; the newest counts."""
        session = self.running_session()
        if session is None:
            return
        spec = session.world.spec
        if not spec.takes_images:
            return self._warn('anchor_image', f'refused, engine {spec.engine!r} takes no images.')
        try:
            self._anchors.put(rgb_from_msg(msg))
        except SpecError as error:
            self._warn('anchor_image', f'refused. {error}')

    def _ask_anchor(self, rgb: np.ndarray) -> WorkerFuture:
        asked = self._ask(Session.anchor_image, rgb)
        asked.add_done_callback(self._anchored)
        return asked

    def _anchored(self, asked: WorkerFuture) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._anchored_step = asked.result().step

    def _may_anchor(self) -> bool:
        """Let a step follow each image, or a stream of images would keep time at a stand."""
        session = self.running_session()
        return (session is None or session.status.state != State.PLAYING
                or session.spec.mode != Mode.REALTIME
                or session.status.step != self._anchored_step)

    def _ask(self, request: Callable[[Session, Any], WorkerFuture], value: Any) -> WorkerFuture:
        """Hand a request over to the session, if there is still one."""
        session = self.running_session()
        if session is not None:
            return request(session, value)
        gone: WorkerFuture = WorkerFuture()
        gone.cancel()
        return gone

    def _warn(self, topic: str, problem: Union[str, BaseException]) -> None:
        now_s, text = time.monotonic(), str(problem)
        if now_s >= self._quiet_until_s.get(topic, 0.0):
            self._quiet_until_s[topic] = now_s + LOG_PERIOD_S
            text = text if text.startswith(topic) else f'{topic}: {text}'
            self.get_logger().warning(shown(text, MESSAGE_LENGTH))

    # std_srvs, for machines without simulation_interfaces

    async def on_reset(self, request: Trigger.Request,
                       response: Trigger.Response) -> Trigger.Response:
        """Start the scene over with its seed."""
        return await self._answer(response, lambda session: session.reset())

    async def on_pause(self, request: SetBool.Request,
                       response: SetBool.Response) -> SetBool.Response:
        """Pause (data: true) or play (data: false)."""
        goal = State.PAUSED if request.data else State.PLAYING
        return await self._answer(response, lambda session: (
            _as_it_is(session) if session.status.state == goal
            else session.pause() if request.data else session.play()))

    async def on_step(self, request: Trigger.Request,
                      response: Trigger.Response) -> Trigger.Response:
        """Advance a paused world by one step."""
        return await self._answer(response, lambda session: session.advance(1))

    def on_second(self) -> None:
        """Report to operators, also while nothing moves."""
        if self.session is None or self.sensors is None:
            return
        self.sensors.publish_diagnostics(self.session.status)

    def on_beat(self) -> None:
        """Give a sign of life while nothing moves; else every step does."""
        session, sensors = self.running_session(), self.sensors
        if session is None or sensors is None:
            return
        # In lockstep it may stand for long, and who is to send a command may wait for a picture.
        if session.status.state == State.PLAYING and session.spec.mode != Mode.LOCKSTEP:
            return
        sensors.repeat_status()
        if session.status.state not in (State.NO_WORLD, State.LOADING):
            sensors.on_standstill()

    def on_watch(self) -> None:
        """Look after the engine from outside its thread."""
        if self.session is not None:
            self.session.check_engine()
        self._anchors.go_on()

    async def _answer(self, response: Any, request: Callable[[Session], WorkerFuture]) -> Any:
        """Wait for the worker without holding up the executor, then fill in the response."""
        session = self.running_session()
        if session is None:
            response.success, response.message = False, 'the node is not active'
            return response
        outcome = request(session)
        if not await self._waiting.wait(outcome, self.params.service_timeout_s):
            response.success = False
            response.message = ('not done within service_timeout_s='
                                f'{self.params.service_timeout_s:g} s')
            return response
        error = 'the node is shutting down' if outcome.cancelled() else outcome.exception()
        response.success = error is None
        response.message = str(error or f'{outcome.result().state} at '
                               f'{outcome.result().stamp_ns * 1e-9:.3f} s of sim time')
        return response


class _EncoderLink(SessionObserver):
    """Tell the encoder in this process what world begins, before the first step of it."""

    def __init__(self, encoder: Encoder, sensors: WorldPublishers, drive: Drive) -> None:
        self._encoder, self._sensors, self._drive = encoder, sensors, drive

    def on_reset(self, status: SessionStatus) -> None:
        self._encoder.begin(self._sensors.world_spec(status), self._drive)

    on_mode = on_reset

    def on_frame(self, frame: Frame) -> None:
        self._encoder.observe(frame.stamp_ns, frame.joint_position, frame.joint_velocity)

    def on_status(self, status: SessionStatus) -> None:
        if status.state in _ENDED:
            self._encoder.stop(_ENDED[status.state])


def _as_it_is(session: Session) -> WorkerFuture:
    """Return the status as a request that has nothing to do."""
    done: WorkerFuture = WorkerFuture()
    done.set_result(session.status)
    return done


def main(args: Optional[List[str]] = None) -> int:
    """Run the node until it is interrupted; return the exit code."""
    return spin_node(WorldModelNode, args, begin)


def begin(node: WorldModelNode, spinner: Spinner) -> None:
    """Look for a second clock and say what runs; ``node`` spins already."""
    node.on_quit = spinner.stop
    node.refuse_second_clock(spinner)
    if node.session is not None:
        spec, status = node.session.world.spec, node.session.status
        node.get_logger().info(f'{spec.engine} ({spec.model}), scene {status.scene}, '
                               f'seed {status.seed}.')
