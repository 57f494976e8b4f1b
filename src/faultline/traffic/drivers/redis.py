"""Commands of Redis over redis-py."""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis_py
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from faultline.traffic.driver import Turn
from faultline.traffic.kinds import cause_kind, error_kind
from faultline.traffic.model import Load
from faultline.traffic.template import Data


class Driver:
    """A request is the next command, or the next `pipeline` of them at once."""

    errors: tuple[type[Exception], ...] = (RedisError,)

    def __init__(self, load: Load) -> None:
        options = load.options
        self._commands = [Data(command) for command in options["commands"]]
        self._depth: int = options["pipeline"]
        names = [str(command[0]).upper() for command in options["commands"]]
        self._parts = names if len(set(names)) > 1 and self._depth == 1 else [""] * len(names)
        self._next = load.index % len(names)
        # Its commands are typed as what they answer synchronously, too.
        self._client: Any = redis_py.Redis(connection_pool=_pool(load))

    async def open(self) -> None:
        return

    async def turn(self, turn: Turn) -> None:
        chosen: list[list[Any]] = []
        part = self._parts[self._next]
        for _ in range(self._depth):
            chosen.append(self._commands[self._next].fill(turn.values))
            self._next = (self._next + 1) % len(self._commands)
        await turn.ask(part, lambda: self._exchange(chosen))

    async def _exchange(self, commands: list[list[Any]]) -> str:
        if len(commands) == 1:
            await self._client.execute_command(*commands[0])
            return ""
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return next((self.kind(each) for each in answers if isinstance(each, Exception)), "")

    def kind(self, error: Exception) -> str:
        if isinstance(error, AuthenticationError):
            return "login refused"
        if type(error) is ResponseError:  # redis-py takes the word ERR away
            word = str(error).split(" ", 1)[0]
            return word if word.isupper() else "ERR"
        if isinstance(error, ResponseError):
            return type(error).__name__.removesuffix("Error")
        if isinstance(error, RedisError):
            return cause_kind(error, "disconnected")
        return error_kind(error)

    async def close(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


def _pool(load: Load) -> redis_py.BlockingConnectionPool:
    options = load.options
    given: dict[str, Any] = {
        "max_connections": load.connections or load.in_flight,
        "timeout": None,  # whoever waits for a connection is timed as a whole
        "db": options["db"],
        "username": options["user"] or None,
        "password": options["password"],
        "retry": Retry(NoBackoff(), 0),  # what fails is counted, not tried again
        "protocol": 2,
    }
    if options["host"].startswith("/"):
        given |= {"connection_class": redis_py.UnixDomainSocketConnection, "path": options["host"]}
        return redis_py.BlockingConnectionPool(**given)
    given |= {"host": options["host"], "port": options["port"]}
    if options["tls"]:
        given |= {
            "connection_class": redis_py.SSLConnection,
            "ssl_cert_reqs": "required" if options["verify"] else "none",
            "ssl_check_hostname": options["verify"],
            "ssl_ca_certs": options["ca"] or None,
            "ssl_certfile": options["certificate"] or None,
            "ssl_keyfile": options["key"] or None,
            "ssl_password": options["key_password"],
        }
    return redis_py.BlockingConnectionPool(**given)
