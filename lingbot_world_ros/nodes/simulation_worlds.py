# SPDX-License-Identifier: Apache-2.0
"""Which worlds there are, and another one in place of this: services of simulation_interfaces."""
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, Optional, Sequence, Tuple

from lingbot_world_ros.engines.interface import WorldSpec
from lingbot_world_ros.messages import simulation as standard
from lingbot_world_ros.messages.simulation import NOT_FOUND, OPERATION_FAILED, Refusal
from lingbot_world_ros.nodes.simulation_answers import Answers, installed
from lingbot_world_ros.session.states import Reason
from lingbot_world_ros.worlds.definition import WorldDefinition, WorldError
from lingbot_world_ros.worlds.library import WorldLibrary

MAX_SOURCES = 32  # of GetAvailableWorlds


class WorldServices:
    """Loads and lists worlds; files are read in a thread, where slow disks hold up nobody."""

    def __init__(self, answers: Answers):
        """
        Prepare.

        :param answers: what all services share
        """
        self._answers = answers
        self._library: Optional[Tuple[WorldSpec, WorldLibrary]] = None
        self._files = ThreadPoolExecutor(max_workers=1, thread_name_prefix='worlds')
        self.handlers = {'LoadWorld': self.load, 'UnloadWorld': self.unload,
                         'GetCurrentWorld': self.get_current,
                         'GetAvailableWorlds': self.get_available}

    def destroy(self) -> None:
        """End the thread."""
        self._files.shutdown(wait=False)

    async def load(self, request: Any, response: Any) -> None:
        """Put another world in place of the one that is loaded."""
        session = self._answers.session()
        resource = getattr(request, 'world_resource', request)  # 1.x: fields of the request
        seed = self._answers.params.seed
        world = await self._in_thread(lambda: self._worlds(session.world.spec).load(
            resource.uri, resource.resource_string, seed=seed,
            fail_on_unsupported=request.fail_on_unsupported_element,
            ignore_assets=request.ignore_missing_or_unsupported_assets))
        await self._answers.done(session.load(world))
        standard.world_to_msg(world, response.world)

    async def unload(self, request: Any, response: Any) -> None:
        """Drop the world."""
        await self._answers.done(self._answers.session().unload(),
                                 {Reason.NO_WORLD: 'NO_WORLD_LOADED'})

    async def get_current(self, request: Any, response: Any) -> None:
        """Describe the world that is loaded."""
        world = self._answers.session().definition
        if world is None:
            raise Refusal('NO_WORLD_LOADED', 'No world is loaded.')
        standard.world_to_msg(world, response.world)

    async def get_available(self, request: Any, response: Any) -> None:
        """List the worlds that can be loaded."""
        spec = self._answers.session().world.spec
        standard.tags_fit(request.filter, ())  # refuses what it does not know
        if len(request.additional_sources) > MAX_SOURCES:
            raise Refusal(OPERATION_FAILED, f'{len(request.additional_sources)} sources are more '
                          f'than {MAX_SOURCES}; ask for fewer at a time.')
        worlds, refusal = await self._in_thread(
            lambda: self._find(spec, request.additional_sources))
        if refusal is not None and not (request.continue_on_error and worlds):
            raise refusal
        resource = installed('msg', 'WorldResource')
        for world in worlds:
            if standard.tags_fit(request.filter, world.tags):
                response.worlds.append(resource())
                standard.world_to_msg(world, response.worlds[-1])
        response.result.error_message = '' if refusal is None else str(refusal)

    def _find(self, spec: WorldSpec, sources: Sequence[str]
              ) -> Tuple[List[WorldDefinition], Optional[Refusal]]:
        """List worlds, and the refusal that is due if not all sources could be read."""
        library, seed = self._worlds(spec), self._answers.params.seed
        worlds, failed = library.available(seed)
        missing = []
        for source in sources:
            try:
                worlds += library.find(source, seed)
            except WorldError as error:
                missing.append(str(error))
        worlds = list({world.uri: world for world in worlds}.values())
        if failed:
            return worlds, Refusal('DEFAULT_SOURCES_FAILED',
                                   f'Not readable: {"; ".join(failed + missing)}')
        if missing:
            return worlds, Refusal(NOT_FOUND, ' '.join(missing))
        return worlds, None

    def _worlds(self, spec: WorldSpec) -> WorldLibrary:
        """Return the library for an engine; in the thread of files only."""
        if self._library is None or self._library[0] is not spec:
            self._library = spec, WorldLibrary(spec, self._answers.params.world_path)
        return self._library[1]

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await self._answers.done(self._files.submit(work))
