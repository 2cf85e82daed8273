# SPDX-License-Identifier: Apache-2.0
"""A campaign: cases for every target in turns, what they did, and what was found."""
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
import time

from fuzz.corpus import CASES
from fuzz.probe import NoAnswer, PATIENCE_S, Probe
from fuzz.system import Died, Finding, System
from fuzz.targets import DYNAMIC, SIM, TARGETS
from fuzz.values import heavy, INF, LongList, LongText, MAX_WEIGHT, NAN, weight
from hypothesis import given, HealthCheck, Phase, seed, settings
from ros_domain import Domain

SERVICE_TIMEOUT_S = 0.3  # of the attacked nodes
SLOW_S = 2.0  # for one request on a quiet machine; a thousand times what it takes
NUM_HEAVY = 4  # messages of the largest size to each address, before memory counts
BATCH = 12  # messages between two looks
ENOUGH = 12  # findings after which a target is left alone
MEMORY_SHARE, MEMORY_MB = 0.02, 4.0  # growth after the first round that is allowed
# What answers many questions at once may take more than a line; set_parameters is rclpy's own.
MANY_IN_ONE = ('get_available_worlds', 'world_model/set_parameters_atomically',
               'action_encoder/set_parameters_atomically')
BY_NAME = {target.name: target for target in TARGETS}
NAMES = {'nan': NAN, 'inf': INF, 'LongText': LongText, 'LongList': LongList}
ROS_ARGS = {
    'composed': ('mode:=stepped', 'cmd_vel_type:=twist'),
    'separate': ('mode:=stepped', 'cmd_vel_type:=twist_stamped'),
    # An embedding that is valid for a moment makes a step wait for the next one, for this long.
    'world': ('mode:=stepped', 'action_timeout_s:=0.05'),
    'lockstep': ('mode:=lockstep', 'cmd_vel_type:=twist', 'lockstep_timeout_s:=3600.0')}
LOOKS = ('state', 'frame', 'stamp_ns', 'step', 'digest', 'seed', 'world', 'pose', 'joints')
LINK = '<link name="x"/>'
HEAVY_FILES = (('urdf', f'<robot name="r">{LINK * 60_000}</robot>'),
               ('world_text', 'a: b\n' * 150_000), ('profile', 'a: b\n' * 50_000),
               ('world_text', f'tags: [{"a, " * 9_000}]'))
STATES = {0: 'stopped', 1: 'playing', 2: 'paused', 4: 'no_world'}


class Campaign:
    """A context manager; ``run`` attacks one target, ``findings`` has what must not be."""

    def __init__(self, root: Path, log=lambda text: None, is_long=False, slow_s=PATIENCE_S):
        """
        Prepare; processes start when they are first attacked.

        :param root: empty folder
        :param log: called with each line worth telling
        :param is_long: prepare for looking at memory
        :param slow_s: a request that takes longer is a finding; a guard if not told otherwise
        """
        self.slow_s = slow_s
        self._is_long = is_long
        self._root, self._log = root, log
        self._stack = ExitStack()
        self._systems, self._probes, self._domains = {}, {}, {}
        self._num_started = 0
        self.findings, self.restarts = [], Counter()
        self.outcomes = {target.name: Counter() for target in TARGETS}
        self.slowest = {target.name: (0.0, None) for target in TARGETS}
        self.memory = {}  # system -> [usage after each round]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (*self._systems.values(), *self._probes.values()):
            process.close()
        self._stack.close()

    @property
    def num_cases(self) -> int:
        """How many cases were tried."""
        return sum(sum(counts.values()) for counts in self.outcomes.values())

    def run(self, target, num_cases, seed_number):
        """
        Attack one target.

        :param target: of ``TARGETS``
        :param num_cases: at most
        :param seed_number: the same gives the same cases
        """
        attack = _ATTACKS[target.door](self, target)

        def try_(case):
            if sum(f.target == target.name for f in self.findings) < ENOUGH:
                attack.try_(case)

        generate = settings(max_examples=num_cases, database=None, deadline=None,
                            suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        cases = target.cases.filter(lambda case: weight(case) <= MAX_WEIGHT)
        seed(seed_number)(generate(given(cases)(try_)))()
        attack.end()
        self.check_health(target)

    def replay(self, name, case):
        """
        Try one case alone.

        :param name: of a target
        :param case: plain data
        :return: findings, empty if all is well
        """
        before = len(self.findings)
        attack = _ATTACKS[BY_NAME[name].door](self, BY_NAME[name])
        attack.try_(case)
        attack.end()
        self.check_health(BY_NAME[name], case)
        return self.findings[before:]

    def run_corpus(self, fits=lambda target: True):
        """Try every case that once found something."""
        for name, case in CASES:
            if fits(BY_NAME[name]):
                self.replay(name, case)

    def found(self, target, case, problem):
        """Note a finding."""
        finding = Finding(target.name, case, problem)
        same = finding.kind in {other.kind for other in self.findings}
        self.findings.append(finding)
        if not same:
            self._log(f'FOUND {target.name}: {finding}')
        return finding

    def count(self, target, outcome, seconds=0.0, case=None, number=1):
        """Note what became of a case."""
        self.outcomes[target.name][outcome] += number
        if seconds > self.slowest[target.name][0]:
            self.slowest[target.name] = seconds, case

    def system(self, target) -> System:
        """Return the process that a target is in; a new one if there is none."""
        name = target.system
        if name not in self._systems:
            self._num_started += 1
            root = self._root / f'{name}_{self._num_started}'
            if name == 'direct':
                self._systems[name] = System(root, slow_s=self.slow_s)
                for _ in range(NUM_HEAVY if self._is_long else 0):
                    for call, text in HEAVY_FILES:
                        self._systems[name].call(call, text)
            else:
                if name not in self._domains:
                    self._domains[name] = self._stack.enter_context(Domain())
                system = System(root, name, _ros_args(root, name), self._domains[name],
                                'playing' if name == 'lockstep' else 'paused', self.slow_s)
                self._systems[name] = system
                self._probes[name] = Probe(
                    self._domains[name], self._num_started,
                    lambda *publisher: system.call('hears', list(publisher))[0]['text'],
                    lambda topic: system.call('taken', topic)[0]['text'])
                if name != 'lockstep':
                    _warm_up(self.probe(target), system)
                if self._is_long:
                    _fill(self.probe(target), system, name)
            self._systems[name].call('watch', True)
        return self._systems[name]

    def probe(self, target) -> Probe:
        """Return the attacker's node for a target."""
        return self._probes[target.system]

    def bury(self, target):
        """Forget a process that does not answer; the next case starts another."""
        self.restarts[target.system] += 1
        for processes in (self._systems, self._probes):
            if target.system in processes:
                processes.pop(target.system).close()

    def lost(self, target, error) -> str:
        """Bury a process that does not answer; say what ended it as far as can be known."""
        system = self._systems[target.system]
        try:
            _, reason = system.call('look', None)  # says what ended the executor
        except Died as died:
            reason = str(died)
        text = f'the node is gone: {error}\n{reason}\n{system.log_tail()}'
        self.bury(target)
        return text

    def check_health(self, target, case=None):
        """Ask something simple, and look at the log."""
        if target.system not in self._systems:
            return
        system = self._systems[target.system]
        try:
            if target.system != 'direct':
                self.probe(target).call(f'{SIM}/GetSimulationState', 'get_simulation_state', {},
                                        self.slow_s)
            problem = system.wrong_log()
        except (Died, NoAnswer) as error:
            problem = self.lost(target, error)
        if problem:
            self.found(target, case, problem)

    def end_round(self):
        """Note how much every process holds."""
        for name, system in self._systems.items():
            self.memory.setdefault(name, []).append((self.num_cases, system.usage()))

    def leaks(self) -> list:
        """Say which process holds more than after the first round."""
        out = []
        for name, rounds in self.memory.items():
            (_, first), (_, last) = rounds[0], rounds[-1]
            allowed = max(MEMORY_SHARE * first['rss_mb'], MEMORY_MB)
            if len(rounds) > 1 and not self.restarts[name]:
                if last['rss_mb'] > first['rss_mb'] + allowed:
                    out.append(f'{name}: memory grew from {first["rss_mb"]:.1f} to '
                               f'{last["rss_mb"]:.1f} MB')
                for what in ('threads', 'files'):
                    if last[what] > first[what]:
                        out.append(f'{name}: {what} grew from {first[what]} to {last[what]}')
        return out


def _ros_args(root, name):
    values = ('scene:=a', 'initial_state:=paused', f'world_path:={root / "worlds"}',
              f'service_timeout_s:={SERVICE_TIMEOUT_S}', *ROS_ARGS[name])
    return [part for value in values for part in ('-p', value)]


def _fill(probe, system, name):
    """
    Let the middleware take its largest buffers.

    Fast DDS never gives back what a message once needed, so that memory tells of leaks only when
    every endpoint has seen the largest message there is.
    """
    for target in TARGETS:
        case = heavy(f'{target.kind}.Request' if target.door == 'service' else target.kind,
                     MAX_WEIGHT) if target.system == name and target.kind else {}
        for _ in range(NUM_HEAVY if case else 0):
            if target.door == 'service':
                probe.call(target.kind, target.address, case)
            elif target.door == 'topic':
                probe.publish(target.kind, target.address, case)
                probe.call(f'{SIM}/GetSimulationState', 'get_simulation_state', {})
    system.call('restore', None)


def _warm_up(probe, system):
    """Let both sides load what they load late."""
    system.call('restore', None)
    for _ in range(12):  # a server answers into the void that does not know its client yet
        with suppress(NoAnswer):
            probe.call(f'{SIM}/StepSimulation', 'step_simulation', {'steps': 2}, 5.0)
            break
    for _ in range(3):
        probe.call(f'{SIM}/StepSimulation', 'step_simulation', {'steps': 2})
        probe.call(f'{SIM}/GetAvailableWorlds', 'get_available_worlds', {})
        probe.call(f'{SIM}/LoadWorld', 'load_world', {'world_resource': {'uri': 'a'}})
        system.call('restore', None)


class _Call:
    """Through the side door, without ROS."""

    def __init__(self, campaign, target):
        self._campaign, self._target = campaign, target

    def try_(self, case):
        """Try a case; return findings."""
        campaign, target = self._campaign, self._target
        try:
            answer, problem = self._ask(campaign.system(target), case)
        except Died as error:
            campaign.bury(target)
            campaign.count(target, 'died')
            return [campaign.found(target, case, str(error))]
        campaign.count(target, answer['outcome'], answer['seconds'], case)
        return [campaign.found(target, case, problem)] if problem else []

    def _ask(self, system, case):
        return system.call(self._target.address or self._target.name.split()[0], case)

    def end(self):
        """Nothing waits."""


class _Command(_Call):
    """Through the side door to a handler of the encoder."""

    def _ask(self, system, case):
        answer, problem = system.call('command', [self._target.kind, case])
        if not problem and self._target.must_refuse(case) and answer['outcome'] != 'refused':
            problem = f'{answer["outcome"]}, but must be refused'
        return answer, problem

    def end(self):
        """Leave nothing commanded behind."""
        try:
            self._campaign.system(self._target).call('restore', None)
        except Died:
            self._campaign.bury(self._target)


class _Topic:
    """Over DDS, in batches: those that must be refused together, and the others."""

    def __init__(self, campaign, target):
        self._campaign, self._target = campaign, target
        self._batches = {True: [], False: []}

    def try_(self, case):
        """Try a case, maybe later; return findings."""
        must = self._target.must_refuse(case)
        self._batches[must].append(case)
        return self._flush(must) if len(self._batches[must]) >= BATCH else []

    def end(self):
        """Try what waits."""
        for must in (True, False):
            self._flush(must)

    def _flush(self, must):
        batch, self._batches[must] = self._batches[must], []
        if not batch:
            return []
        campaign, target = self._campaign, self._target
        problem, counts = self._send(batch, must)
        if counts is None:
            campaign.count(target, 'sent', number=len(batch))
        else:
            campaign.count(target, 'refused', number=counts[1])
            campaign.count(target, 'accepted', number=max(len(batch) - counts[1], 0))
        if not problem:
            return []
        for case in batch if len(batch) > 1 else []:
            alone, _ = self._send([case], must)
            if alone:
                return [campaign.found(target, case, alone)]
        return [campaign.found(target, batch[0] if len(batch) == 1 else batch, problem)]

    def _send(self, batch, must):
        """Send, step, look; return a problem and (accepted, refused), None if unknown."""
        campaign, target = self._campaign, self._target
        system, probe = campaign.system(target), campaign.probe(target)
        try:
            system.call('restore', None)
            self._settle(probe)
            before, _ = system.call('look', None)
            started_s = time.monotonic()
            for case in batch:
                content = system.filled_in(case) if isinstance(case, dict) else case
                probe.publish(target.kind, target.address, content)
                self._barrier(probe)
                if target.system == 'separate' and case is batch[-1]:
                    self._settle(probe)
                if target.system != 'lockstep':
                    answer = probe.call(f'{SIM}/StepSimulation', 'step_simulation', {})
            seconds = (time.monotonic() - started_s) / len(batch)
            after, _ = system.call('look', None)
            probe.end_raw()
        except (Died, NoAnswer) as error:
            return campaign.lost(target, error), None
        campaign.count(target, 'sent', seconds, batch[0], 0)
        before, after = before['text'], after['text']
        problem = system.wrong_log()
        if not problem and target.system != 'lockstep' and answer.result.result != 1:
            problem = f'does not step any more: {answer.result.error_message}'
        if not problem and after['wrong']:
            problem = after['wrong']
        moved = after['has_moved'] or any(before[k] != after[k] for k in ('pose', 'joints'))
        if target.system == 'lockstep' and must and after['steps_made']:
            problem = problem or f'{after["steps_made"]} steps without an accepted command'
        if not problem and must and moved:
            problem = f'moved the robot: {before} became {after}'
        if after['message']:
            problem = problem or system.wrong_text(after['message'])
        refused = (after['rejected'] - before['rejected'] + after['rejected_embeddings']
                   - before['rejected_embeddings'])
        return problem, (after['accepted'] - before['accepted'], refused)

    def _barrier(self, probe):
        """Return when what was sent has been taken."""
        for _ in range(2):
            probe.call(f'{SIM}/GetSimulationState', 'get_simulation_state', {})
        if self._target.system == 'separate':
            probe.call('rcl_interfaces/srv/GetParameters', 'action_encoder/get_parameters', {})

    def _settle(self, probe):
        """Let an encoder in another process hear of a new start, and tell what it makes of it."""
        if self._target.system == 'separate':
            until_s = time.monotonic() + 0.12  # two of its periods
            probe.wait_for(lambda: time.monotonic() > until_s, 'time')
            self._barrier(probe)


class _Burst:
    """Over DDS, many messages and requests that do not wait for each other."""

    def __init__(self, campaign, target):
        self._campaign, self._target = campaign, target

    def try_(self, case):
        """Try a case; return findings."""
        campaign, target = self._campaign, self._target
        system, probe = campaign.system(target), campaign.probe(target)
        content = [(BY_NAME[name], system.filled_in(part)) for name, part in case]
        started_s = time.monotonic()
        try:
            for sent, part in content:
                if sent.door == 'topic':
                    probe.publish(sent.kind, sent.address, part)
            probe.call_all([(sent.kind, sent.address, part) for sent, part in content
                            if sent.door == 'service'])
            seconds = time.monotonic() - started_s
            for topic in {sent.address for sent, _ in content if sent.door == 'topic'}:
                probe.wait_until_taken(topic)
            _restore(system, probe, with_parameters=True)
        except (Died, NoAnswer) as error:
            campaign.count(target, 'died')
            return [campaign.found(target, case, campaign.lost(target, error))]
        campaign.count(target, 'sent', seconds, case)
        problem = system.wrong_log()
        return [campaign.found(target, case, problem)] if problem else []

    def end(self):
        """Nothing waits."""


class _Service:
    """Over DDS, one request after the other."""

    def __init__(self, campaign, target):
        self._campaign, self._target = campaign, target
        self._num_tried = 0

    def try_(self, case):
        """Try a case; return findings."""
        campaign, target = self._campaign, self._target
        system, probe = campaign.system(target), campaign.probe(target)
        try:
            before, _ = system.call('look', None)
            before, started_s = before['text'], time.monotonic()
            response = probe.call(target.kind, target.address, system.filled_in(case))
            seconds = time.monotonic() - started_s
            after, problem = system.call('look', None)
            problem = problem or self._wrong(case, response, before, after['text'], system)
            if not problem and seconds > campaign.slow_s:
                problem = f'answered after {seconds:.1f} s'
            if self._spoiled(before, after['text'], response):
                _restore(system, probe, 'set_parameters' in target.address)
        except (Died, NoAnswer) as error:
            campaign.count(target, 'died')
            return [campaign.found(target, case, campaign.lost(target, error))]
        campaign.count(target, 'accepted' if _is_ok(response) else 'refused', seconds, case)
        self._num_tried += 1
        if not problem and self._num_tried % BATCH == 0:
            problem = system.wrong_log()
        return [campaign.found(target, case, problem)] if problem else []

    def end(self):
        """Nothing waits."""

    def _wrong(self, case, response, before, after, system):
        name = self._target.address
        for text in _texts_of(response):
            if name in MANY_IN_ONE:
                text = text[:400]
            problem = text and system.wrong_text(text)
            if problem:
                return problem
        if getattr(getattr(response, 'result', None), 'result', 1) == 0 and not _texts_of(
                response)[0]:
            return 'the zero default of Result was sent without a word'
        changed = [key for key in LOOKS if before.get(key) != after.get(key)]
        if after.get('wrong'):
            return after['wrong']
        if not self._target.may_change and changed:
            return f'changed {", ".join(changed)}: {before} became {after}'
        if changed and not _is_ok(response) and not self._may_fail_midway(case):
            return f'refused, but changed {", ".join(changed)}: {before} became {after}'
        if after.get('has_moved') and name != 'set_entity_state':
            return f'moved the robot: {before} became {after}'
        return _expected(name, case, response, before, after)

    def _may_fail_midway(self, case):
        """Steps that were made before the time was over stay made."""
        return 'step' in self._target.address or 'change_state' in self._target.address

    def _spoiled(self, before, after, response):
        return (before != after or after['state'] != 'paused' or after['world'] != 'a'
                or 'set_parameters' in self._target.address and _is_ok(response))


def _restore(system, probe, with_parameters=False):
    """Bring everything back for the next case."""
    if with_parameters:
        for node in ('world_model', 'action_encoder'):
            _set_defaults(probe, node)
    state = probe.call('lifecycle_msgs/srv/GetState', 'world_model/get_state', {})
    for transition in {1: (1, 3), 2: (3,)}.get(state.current_state.id, ()):
        probe.call('lifecycle_msgs/srv/ChangeState', 'world_model/change_state',
                   {'transition': {'id': transition}})
    probe.call('action_msgs/srv/CancelGoal', 'simulate_steps/_action/cancel_goal', {})
    _, problem = system.call('restore', None)
    if problem:
        raise Died(f'cannot go on: {problem}')


def _expected(name, case, response, before, after):
    """Say what is wrong with a state after a request was granted."""
    if not _is_ok(response):
        return ''
    wanted = {}
    if name == 'set_simulation_state':
        wanted = {'state': STATES.get(case.get('state', {}).get('state', 0))}
    elif name == 'reset_simulation':
        wanted = {'state': before['state']}
    elif name == 'step_simulation':
        num_steps = case.get('steps', 1)
        wanted = {'state': before['state'], 'step': before['step'] + num_steps}
    elif name == 'load_world':
        wanted = {'state': 'stopped'}
    elif name == 'unload_world':
        wanted = {'state': 'no_world'}
    wrong = [f'{key} is {after.get(key)}, not {value}' for key, value in wanted.items()
             if after.get(key) != value]
    return f'granted, but {", ".join(wrong)}' if wrong else ''


def _set_defaults(probe, node):
    values = {'seed': (2, 'integer', 0), 'speed': (3, 'double', 1.0),
              'action_timeout_s': (3, 'double', 0.5), 'lockstep_timeout_s': (3, 'double', 1.0),
              'step_timeout_s': (3, 'double', 10.0), 'jpeg_quality': (2, 'integer', 90),
              'service_timeout_s': (3, 'double', SERVICE_TIMEOUT_S),
              'cmd_timeout_s': (3, 'double', 0.5), 'policy_frequency': (3, 'double', 15.0),
              'use_sim_time': (1, 'bool', False)}
    assert set(DYNAMIC) <= set(values)
    probe.call('rcl_interfaces/srv/SetParameters', f'{node}/set_parameters', {'parameters': [
        {'name': name, 'value': {'type': kind, f'{word}_value': value}}
        for name, (kind, word, value) in values.items()]})


def _is_ok(response):
    """Say whether a response grants what was asked."""
    result = getattr(response, 'result', None)
    if hasattr(result, 'result'):
        return result.result == 1
    if hasattr(result, 'successful'):
        return result.successful
    if hasattr(response, 'results'):
        return any(r.successful for r in response.results)
    return getattr(response, 'success', True)


def _texts_of(response):
    """Return every text that tells why."""
    result = getattr(response, 'result', None)
    return [getattr(result, 'error_message', ''), getattr(response, 'message', ''),
            getattr(result, 'reason', ''), *(r.reason for r in getattr(response, 'results', ()))]


_ATTACKS = {'call': _Call, 'command': _Command, 'topic': _Topic, 'raw': _Topic,
            'service': _Service, 'burst': _Burst}
