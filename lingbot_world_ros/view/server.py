# SPDX-License-Identifier: Apache-2.0
"""
The web server of the operator's page: static files and one WebSocket per page.

It holds no state of the world: pictures and states come from a ``Robot`` (nodes/view.py) and
commands go there. Pictures are never queued: a page that is slow gets the newest one.

What a page sends is read by ``messages``. It is told, as JSON with a ``type``: ``hello`` (its id),
``world`` and ``map`` (what ``Robot`` returns by these names, when it changes), ``status`` (what
``Robot.status`` returns, who drives and how many watch, ten times a second), ``done`` (the answer
to a ``do``), ``note`` (text for the user) and ``pong``. Pictures are binary, see ``pictures``.
"""
import asyncio
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address
import json
import os
from pathlib import Path
from socket import gethostname
import time
from typing import Any, Awaitable, Callable, Dict, List, Optional, Protocol, Set, Tuple
from urllib.parse import quote, urlsplit

from aiohttp import web, WSCloseCode, WSMsgType
from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.view.controls import Controls
from lingbot_world_ros.view.messages import (Drive, Joint, MAX_BYTES, Message, parse, Show,
                                             WorldRequest)
from lingbot_world_ros.view.pictures import COLOUR, DEPTH, packed, TRUTH

PAGE = Path(__file__).resolve().parent / 'page'
FIRST_PORT, NUM_PORTS = 8420, 20  # tried one after the other where none is asked for
PERIOD_S = 0.1  # between two words on how the world is doing
MAX_PAGES = 32
MAX_WAITING = 200  # messages for a page that does not read them, before it is dropped
MAX_REQUESTS = 32  # at a time, of all pages
CLOSING_S = 2.0  # for pages to hear that the server ends
COOKIE = 'lingbot_world_{}'  # browsers do not tell ports apart
EVERY_ADDRESS = ('0.0.0.0', '::')
LOCAL_NAMES = ('localhost', '127.0.0.1', '::1')
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; img-src 'self' blob: data:; "
                               "connect-src 'self' ws: wss:; frame-ancestors 'none'; "
                               "base-uri 'none'; form-action 'none'",
    'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-cache'}


class Robot(Protocol):
    """What the server asks of the side that speaks ROS; every method returns at once."""

    def world(self) -> dict:
        """Return what the message ``world`` tells, without its type."""

    def map(self) -> dict:
        """Return what the message ``map`` tells; another object when that changes."""

    def status(self) -> dict:
        """Return what the message ``status`` tells of the world, without type and pages."""

    def watch(self, colour: bool, depth: bool, truth: bool) -> None:
        """Say which pictures are looked at."""

    def drive(self, drive: Drive) -> None:
        """Publish velocities; those of joints that are left out are let go."""

    def move_joint(self, name: str, position: float) -> None:
        """
        Publish a joint position.

        :raises SpecError: there is no such joint
        """

    def stop(self, everything: bool = False) -> None:
        """
        Publish zero once, for what was asked to move and joints on their way to a position.

        :param everything: for the base too when somebody else drives it
        """

    def request(self, asked: WorldRequest) -> 'asyncio.Future[Tuple[bool, str]]':
        """Ask for something; the future tells whether it was done, and what came of it."""


@dataclass
class _Page:
    """One open page: its socket and what it shall be told next."""

    id: str
    socket: web.WebSocketResponse
    transport: Optional[asyncio.Transport]  # None: gone already
    wake: asyncio.Event
    shows: Show = Show(False, False)
    world: Optional[dict] = None  # as last told
    map: Optional[dict] = None  # the same

    def __post_init__(self) -> None:
        self.texts: List[str] = []
        self.pictures: Dict[int, bytes] = {}

    def tell(self, kind: str, **content: Any) -> None:
        """Send a message, after those that wait."""
        self.texts.append(json.dumps({'type': kind, **content}, allow_nan=False))
        self.wake.set()
        if len(self.texts) > MAX_WAITING:
            self.drop()

    def drop(self) -> None:
        """Cut the connection; closing it would wait for a page that does not read."""
        if self.transport is not None:
            self.transport.abort()

    def show(self, kind: int, picture: bytes) -> None:
        """Send a picture in place of an older one of its kind that still waits."""
        self.pictures[kind] = picture
        self.wake.set()


class Server:
    """Serve the page of one robot. All methods belong to the thread of the event loop."""

    def __init__(self, robot: Robot, *, host: str = '127.0.0.1', port: int = 0, token: str = ''):
        """
        Prepare; nothing listens before ``start``.

        :param robot: the side that speaks ROS
        :param host: address to listen on
        :param port: TCP port; 0 is the first free one from 8420 on
        :param token: without it nothing is answered; '' only for addresses of this machine
        :raises SpecError: another machine could connect and there is no token
        """
        if not token and not is_local(host):
            raise SpecError(f'host={host!r} lets other machines drive the robot; that needs a '
                            'token.')
        self._robot, self._host, self._port, self._token = robot, host, port, token
        self._controls = Controls()
        self._num_pages = self._sequence = 0
        self._pages: Dict[str, _Page] = {}
        self._newest: Dict[int, bytes] = {}  # pictures by kind, for pages that come late
        self._num_requests, self._ends = 0, False
        self._runner: Optional[web.AppRunner] = None
        self._ticking: Optional[asyncio.Future] = None

    @property
    def url(self) -> str:
        """Where to look; the token is in it."""
        host = self._host or 'localhost'
        if host in EVERY_ADDRESS:
            host = gethostname()  # what others may know this machine by
        elif ':' in host:
            host = f'[{host}]'
        return f'http://{host}:{self._port}/' + (
            f'?token={quote(self._token, safe="")}' if self._token else '')

    async def start(self) -> None:
        """
        Listen.

        :raises SpecError: the port is taken, or the address is none of this machine
        """
        app = web.Application(middlewares=[self._guard])
        app.router.add_get('/', self._on_index)
        app.router.add_get('/ws', self._on_socket)
        app.router.add_get('/reach', self._on_reach)
        app.router.add_static('/', PAGE)
        self._runner = runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        await self._listen(runner)
        self._ticking = asyncio.ensure_future(self._tick())

    async def _listen(self, runner: web.AppRunner) -> None:
        ports = [self._port] if self._port else range(FIRST_PORT, FIRST_PORT + NUM_PORTS)
        for port in ports:
            try:
                await web.TCPSite(runner, self._host, port).start()
            except OSError as error:
                problem = error
            else:
                self._port = port
                return
        await runner.cleanup()
        tried = f'{ports[0]}' if len(ports) == 1 else f'{ports[0]} to {ports[-1]}'
        raise SpecError(f'The page cannot listen on {self._host}, port {tried}: '
                        f'{_reason(problem)}. End what listens there or choose '
                        'another port.') from problem

    async def stop(self) -> None:
        """Stop the robot if a page drives it, tell all pages, and listen no more."""
        self._ends = True  # else a key that is held would go on driving until its page is closed
        if self._controls.holder is not None:
            self._robot.stop()
        if self._ticking is not None:
            self._ticking.cancel()
        pages = list(self._pages.values())
        if pages:
            await asyncio.wait([asyncio.ensure_future(page.socket.close(
                code=WSCloseCode.GOING_AWAY, message=b'the server ends')) for page in pages],
                timeout=CLOSING_S)
        for page in pages:
            page.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    def check(self) -> None:
        """Raise what ended the server from within, if something did."""
        if self._ticking is not None and self._ticking.done():
            self._ticking.result()

    def on_picture(self, kind: int, stamp_s: float, jpeg: bytes) -> None:
        """
        Show a picture on all pages that want it.

        :param kind: pictures.COLOUR, DEPTH or TRUTH
        :param stamp_s: sim time
        :param jpeg: the picture
        """
        self._sequence += 1
        self._newest[kind] = picture = packed(kind, self._sequence, stamp_s, jpeg)
        for page in self._pages.values():
            if kind in _kinds(page.shows):
                page.show(kind, picture)

    @web.middleware
    async def _guard(self, request: web.Request,
                     handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
                     ) -> web.StreamResponse:
        """Answer only those who may ask, and tell browsers what the page may do."""
        try:
            # Scripts come with it too; without them a page could not say what is wrong.
            self._check_origin(request, request.headers.get('Origin')
                               if request.path in ('/', '/ws') else None)
            self._check_token(request)
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _check_origin(self, request: web.Request, origin: Optional[str]) -> None:
        """Refuse what a page of somebody else makes a browser ask here."""
        host = _name_of(f'//{request.host}')
        tunnel = ('If a tunnel brought you here, take one that keeps the address: ssh -L '
                  f'{self._port}:127.0.0.1:{self._port} <machine>.\n')
        if is_local(self._host) and host not in (*LOCAL_NAMES, self._host):
            raise web.HTTPForbidden(text=f'This page is served as {self._host}, not as '
                                    f'{quoted(host)}. {tunnel}')
        if origin is not None and origin.partition('://')[2] != request.host:
            raise web.HTTPForbidden(text=f'A page from {quoted(origin)} may not ask here: it is '
                                    f'served as {quoted(request.host)}. {tunnel}')

    def _check_token(self, request: web.Request) -> None:
        """Refuse who does not know the token; any bytes may come in its place."""
        given = request.query.get('token') or request.cookies.get(COOKIE.format(self._port), '')
        if self._token and not compare_digest(given.encode(errors='surrogatepass'),
                                              self._token.encode(errors='surrogatepass')):
            raise web.HTTPUnauthorized(text='This page needs a token: open the address that was '
                                       'printed when it started, with ?token=... at its end.\n')

    async def _on_index(self, request: web.Request) -> web.StreamResponse:
        if self._token and 'token' in request.query:  # out of the address, into a cookie
            answer = web.Response(status=303, headers={'Location': '/'})
            answer.set_cookie(COOKIE.format(self._port), self._token, httponly=True,
                              samesite='Lax')  # Strict would lose it where a link led here
            return answer
        return web.FileResponse(PAGE / 'index.html')

    async def _on_reach(self, request: web.Request) -> web.StreamResponse:
        """Say why a socket would be refused: a browser does not tell its page."""
        self._check_origin(request, request.query.get('origin'))
        self._check_room()
        return web.Response(status=204)

    def _check_room(self) -> None:
        if len(self._pages) >= MAX_PAGES:
            raise web.HTTPServiceUnavailable(text=f'{MAX_PAGES} pages are open already. Close '
                                             'one.\n')

    async def _on_socket(self, request: web.Request) -> web.StreamResponse:
        self._check_room()
        socket = web.WebSocketResponse(max_msg_size=4 * MAX_BYTES, heartbeat=5.0, timeout=1.0,
                                       compress=False)
        await socket.prepare(request)
        self._num_pages += 1
        page = _Page(str(self._num_pages), socket, request.transport, asyncio.Event())
        self._pages[page.id] = page
        self._watch()
        sending = asyncio.ensure_future(self._send(page))
        try:
            self._greet(page)
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    self._hear(page, message.data)
        finally:
            sending.cancel()
            self._leave(page)
        return socket

    def _greet(self, page: _Page) -> None:
        page.tell('hello', you=page.id, period_s=PERIOD_S)
        self._tell_world(page, self._robot.world())
        self._tell_map(page, self._robot.map())
        self._tell_status(page, self._robot.status())
        if COLOUR in self._newest:
            page.show(COLOUR, self._newest[COLOUR])

    def _leave(self, page: _Page) -> None:
        self._pages.pop(page.id, None)
        if self._controls.release(page.id):
            self._robot.stop()
        self._watch()

    def _watch(self) -> None:
        kinds: Set[int] = set().union(*(_kinds(page.shows) for page in self._pages.values()))
        for kind in (DEPTH, TRUTH):
            if kind not in kinds:
                self._newest.pop(kind, None)
        self._robot.watch(*(kind in kinds for kind in (COLOUR, DEPTH, TRUTH)))

    async def _send(self, page: _Page) -> None:
        """Send what there is, one after the other; pictures that came meanwhile replace older."""
        try:
            while True:
                await page.wake.wait()
                page.wake.clear()
                texts, page.texts = page.texts, []
                pictures, page.pictures = page.pictures, {}
                for picture in pictures.values():
                    await page.socket.send_bytes(picture)
                for text in texts:
                    await page.socket.send_str(text)
        except (ConnectionError, RuntimeError):  # it is closing: the reader notices
            pass

    def _hear(self, page: _Page, text: str) -> None:
        try:
            self._act(page, parse(text))
        except SpecError as error:
            page.tell('note', level='error', text=str(error))

    def _act(self, page: _Page, message: Message) -> None:
        now_s = time.monotonic()
        self._stop_if_silent(now_s)
        if self._ends:
            return
        if isinstance(message, Show):
            self._show(page, message)
        elif isinstance(message, Drive):
            self._drive(page, message, now_s)
        elif isinstance(message, Joint):
            if self._controls.use(page.id, now_s):
                self._robot.move_joint(message.name, message.position)
        elif isinstance(message, WorldRequest):
            self._do(page, message, now_s)
        elif message.kind == 'ping':
            page.tell('pong', t=message.t)
        elif message.kind == 'stop':
            if self._controls.use(page.id, now_s, moves=False):
                self._robot.stop(everything=True)
        elif message.kind == 'take':
            if self._controls.take(page.id, now_s):
                self._robot.stop()
        elif self._controls.release(page.id):
            self._robot.stop()

    def _show(self, page: _Page, shows: Show) -> None:
        page.shows = shows
        self._watch()
        for kind in _kinds(shows) & set(self._newest):
            page.show(kind, self._newest[kind])

    def _drive(self, page: _Page, drive: Drive, now_s: float) -> None:
        if drive.is_stop and self._controls.holder != page.id:
            return  # who does not drive need not stop, and does not take the controls by it
        if self._controls.use(page.id, now_s, moves=not drive.is_stop):
            self._robot.drive(drive)

    def _do(self, page: _Page, asked: WorldRequest, now_s: float) -> None:
        if not self._controls.use(page.id, now_s):
            page.tell('done', id=asked.id, ok=False, text='Another page drives; take the controls '
                      'first.')
            return
        if self._num_requests >= MAX_REQUESTS:
            page.tell('done', id=asked.id, ok=False, text=f'{MAX_REQUESTS} requests are not '
                      'answered yet; wait for them.')
            return

        def done(future: 'asyncio.Future[Tuple[bool, str]]') -> None:
            self._num_requests -= 1
            if not future.cancelled():
                error = future.exception()
                ok, text = future.result() if error is None else (False, f'It failed: {error}')
                page.tell('done', id=asked.id, ok=ok, text=text)

        self._num_requests += 1
        self._robot.request(asked).add_done_callback(done)

    def _stop_if_silent(self, now_s: float) -> None:
        """Stop a robot whose driver went silent; before controls change hands, too."""
        if self._controls.is_silent(now_s):
            self._robot.stop()

    async def _tick(self) -> None:
        """Tell pages how the world is doing, and look after who drives."""
        while True:
            await asyncio.sleep(PERIOD_S)
            now_s = time.monotonic()
            self._stop_if_silent(now_s)
            self._controls.expire(now_s)
            if not self._pages:
                continue
            world, plan, status = self._robot.world(), self._robot.map(), self._robot.status()
            for page in self._pages.values():
                if page.world != world:
                    self._tell_world(page, world)
                if not page.texts:  # a page that does not read is not told more and more
                    if page.map is not plan:
                        self._tell_map(page, plan)
                    self._tell_status(page, status)

    def _tell_world(self, page: _Page, world: dict) -> None:
        page.world = world
        page.tell('world', **world)

    def _tell_map(self, page: _Page, plan: dict) -> None:
        page.map = plan
        page.tell('map', **plan)

    def _tell_status(self, page: _Page, status: dict) -> None:
        controls = self._controls
        driver = {'mine': controls.holder == page.id, 'held': controls.holder is not None,
                  'since_s': (0.0 if controls.holder is None else
                              round(time.monotonic() - controls.since_s, 1))}
        page.tell('status', **status, driver=driver, watchers=len(self._pages) - 1)


def is_local(host: str) -> bool:
    """Tell whether only this machine can connect to an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def _reason(problem: OSError) -> str:
    """Say why nothing can listen there; asyncio says it twice."""
    number = problem.errno or 0
    return os.strerror(number).lower() if number > 0 else str(problem)


def _name_of(address: str) -> str:
    """Return the host of a network location, without port; '' if it is none."""
    try:
        return urlsplit(address).hostname or ''
    except ValueError:
        return ''


def _kinds(shows: Show) -> Set[int]:
    return {COLOUR, *((DEPTH,) if shows.depth else ()), *((TRUTH,) if shows.truth else ())}
