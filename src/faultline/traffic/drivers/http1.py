"""HTTP/1.1 over aiohttp, without a limit of connections unless one is asked for: a pool's ceiling
would quietly become that of the load.
"""

from __future__ import annotations

import aiohttp

from faultline.traffic.drivers import tls
from faultline.traffic.drivers.http_steps import MOST_BODY, Answer, Request
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import Load

_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "name not found"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ServerDisconnectedError, "disconnected"),
    (aiohttp.ClientPayloadError, "cut off"),
    (aiohttp.TooManyRedirects, "too many redirects"),
    (aiohttp.InvalidURL, "bad address"),
    (aiohttp.ClientResponseError, "bad answer"),
)


class _Session:
    def __init__(self, session: aiohttp.ClientSession, redirects: int) -> None:
        self._session, self._redirects = session, redirects

    async def exchange(self, request: Request) -> Answer:
        async with self._session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=request.body or None,
            allow_redirects=bool(self._redirects),
            max_redirects=self._redirects + 1,
        ) as answer:
            body = b""
            if request.wanted:
                body = await answer.content.read(MOST_BODY)
            async for _ in answer.content.iter_any():
                pass
        return Answer(answer.status, answer.headers, body)

    def close(self) -> None:
        self._session.detach()


class Client:
    """The connections of all users."""

    errors: tuple[type[Exception], ...] = (aiohttp.ClientError, ValueError)

    def __init__(self, load: Load) -> None:
        self._options, self._most = load.options, load.connections
        self._connector: aiohttp.TCPConnector | None = None

    async def open(self) -> None:
        self._connector = aiohttp.TCPConnector(
            limit=self._most,
            ssl=tls.context(self._options),
            force_close=not self._options["keep_alive"],
        )

    def session(self, *, cookies: bool) -> _Session:
        session = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.CookieJar(unsafe=True) if cookies else aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # whoever asks keeps it
            trust_env=False,
        )
        return _Session(session, self._options["redirects"])

    def kind(self, error: Exception) -> str:
        for cls, name in _BY_CLASS:
            if isinstance(error, cls):
                return name
        ours = isinstance(error, ValueError) and not isinstance(error, OSError)  # of TLS are both
        return "bad request" if ours else error_kind(error)

    async def close(self) -> None:
        if self._connector:
            await self._connector.close()
