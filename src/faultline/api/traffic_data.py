"""Traffic to stores and queues: Redis, SQL databases, Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.api.probe_base import Port
from faultline.api.secret import SecretRef
from faultline.api.tls import TlsFields
from faultline.api.traffic_parts import FedTraffic, Value, no_password

Command = Annotated[list[Value], Field(min_length=1, max_length=1000)]


class RedisTraffic(TlsFields, FedTraffic):
    """Commands of Redis, one after the other and again from the first. A request is `pipeline` of
    them at once.
    """

    type: Literal["redis"]
    """The protocol."""
    host: str = "127.0.0.1"
    """Name, address, or the path of a socket."""
    port: Port = 6379
    """Port."""
    db: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """The number of the database."""
    user: str = ""
    """The name, if the server has several users."""
    password: SecretRef | None = None
    """Where the password lies."""
    commands: Annotated[list[Command], Field(min_length=1, max_length=1000)]
    """Commands with their arguments: `[SET, "cart:{{number}}", "{{uuid}}"]`."""
    pipeline: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many commands are sent at once."""
    tls: bool = False
    """Whether to speak TLS."""
    verify: bool = True
    """Whether the certificate of the server must be valid."""

    def where(self) -> str:
        host = self.host if self.host.startswith("/") else f"{self.host}:{self.port}"
        names = dict.fromkeys(str(command[0]).upper() for command in self.commands)
        return f"{', '.join(names)} at redis {host}"

    def texts(self) -> Iterable[tuple[str, object]]:
        return ((f"commands.{number}", each) for number, each in enumerate(self.commands))

    @model_validator(mode="after")
    def _user_with_a_password(self) -> RedisTraffic:
        if self.user and self.password is None:
            raise ValueError("expected a password with user")
        return self


class Statement(Model):
    """One statement of SQL."""

    name: Annotated[str, Field(max_length=100)] = ""
    """What its figures are called; without it, its first word and its number."""
    sql: Annotated[str, Field(min_length=1)]
    """The statement; `:name` stands for a parameter. It is sent as it stands: what changes belongs
    into parameters."""
    params: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Value] = Field(
        default_factory=dict[str, Value]
    )
    """The parameters: `{id: "{{number}}"}`. What is nothing but `{{name}}` keeps its type."""


class SqlTraffic(FedTraffic):
    """Statements of SQL; a turn is all of them, one after the other. PostgreSQL is spoken to by
    psycopg; every other database by SQLAlchemy, one thread per connection.
    """

    type: Literal["sql"]
    """The protocol."""
    url: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\+[a-z0-9_]+)?://")]
    """The database as SQLAlchemy names it, without a password: `postgresql://user@host/db`,
    `sqlite:////var/lib/shop.db`."""
    password: SecretRef | None = None
    """Where the password lies."""
    statements: Annotated[list[Statement], Field(min_length=1, max_length=100)]
    """What a turn does."""
    transaction: bool = False
    """Whether a turn is one transaction, and its end is measured as the step `commit`; without it
    every statement is."""
    connections: Annotated[int, Field(ge=1, le=10_000)] | None = 20
    """How many connections at most, over all workers; who finds none free waits, and the wait
    counts."""

    def where(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def texts(self) -> Iterable[tuple[str, object]]:
        return (
            (f"statements.{number}.params", each.params)
            for number, each in enumerate(self.statements)
        )

    @model_validator(mode="after")
    def _no_password_in_the_address(self) -> SqlTraffic:
        no_password(self.url)
        return self


class KafkaTraffic(TlsFields, FedTraffic):
    """Messages of Kafka. A request is one message, until the brokers have it or until it has come
    back to a reader of the topic.
    """

    type: Literal["kafka"]
    """The protocol."""
    servers: Annotated[list[str], Field(min_length=1)]
    """Brokers to begin with, as `host:port`."""
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    """The topic."""
    message_key: str = ""
    """The key of each message; without it, messages go to partitions in turn."""
    message: str = "{{number}} {{uuid}}"
    """What a message says."""
    mode: Literal["roundtrip", "produce"] = "roundtrip"
    """`roundtrip`: until the message was read again; `produce`: until the brokers have it."""
    acks: Literal["all", "leader", "none"] = "all"
    """Who must have a message before the brokers say that they have it."""
    user: str = ""
    """The name, if the brokers ask for one (SASL)."""
    password: SecretRef | None = None
    """Where the password lies."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-256"
    """How the password is shown."""
    tls: bool = False
    """Whether to speak TLS."""
    verify: bool = True
    """Whether the certificates of the brokers must be valid."""

    def where(self) -> str:
        return f"topic {self.topic} at kafka {', '.join(self.servers)}"

    def texts(self) -> Iterable[tuple[str, object]]:
        return (("messageKey", self.message_key), ("message", self.message))

    @model_validator(mode="after")
    def _user_with_a_password(self) -> KafkaTraffic:
        if bool(self.user) != (self.password is not None):
            raise ValueError("expected user and password together")
        if self.connections is not None:
            raise ValueError("expected no connections: a worker has one to each broker")
        return self
