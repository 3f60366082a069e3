"""The addresses that a server listens on, and what keeps it from them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from engine.daemon import listen as listen_module
from engine.daemon.listen import another_port, listen, why_taken
from tests.addresses import needs_ipv6


@contextmanager
def listening(host: str, port: int = 0) -> Iterator[list[tuple[str, int]]]:
    """The addresses."""
    with ExitStack() as opened:
        yield [opened.enter_context(each).getsockname()[:2] for each in listen(host, port)]


class Address(NamedTuple):
    ip: str
    port: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def foreign(address: str, port: int) -> SimpleNamespace:
    """Another program that listens, as psutil tells of it."""
    return SimpleNamespace(status=psutil.CONN_LISTEN, laddr=Address(address, port), pid=None)


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_loopback_host_means_both_addresses_with_one_port(host: str) -> None:
    with listening(host) as addresses:
        port = addresses[0][1]

        assert addresses == [("127.0.0.1", port), ("::1", port)]


@needs_ipv6
def test_a_free_port_is_free_at_both_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system offers one that is taken at ::1, first."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        offered = iter([taken.getsockname()[1]])
        bound = listen_module._bound
        monkeypatch.setattr(listen_module, "_bound", lambda hosts, _: bound(hosts, next(offered, 0)))

        with listening("127.0.0.1") as addresses:
            assert addresses[0][1] == addresses[1][1] != taken.getsockname()[1]


@needs_ipv6
def test_a_port_that_is_taken_at_one_of_them_is_refused_and_the_other_let_go() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"in use|listens"):
            listen("127.0.0.1", port)

        socket.create_server(("127.0.0.1", port)).close()


def test_where_there_is_no_ipv6_it_listens_on_the_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen_module, "_has_address", lambda address: False)

    with listening("localhost") as addresses:
        assert [host for host, _ in addresses] == ["127.0.0.1"]


def test_another_host_is_listened_on_alone() -> None:
    with listening("0.0.0.0") as addresses:
        assert [host for host, _ in addresses] == ["0.0.0.0"]


def test_a_port_of_a_program_on_all_addresses_is_refused_though_windows_would_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [foreign("0.0.0.0", port)])

    with pytest.raises(OSError, match="another program"):
        listen("127.0.0.1", port)


def test_a_program_on_another_address_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [foreign("10.0.0.1", port)])

    with listening("127.0.0.1", port) as addresses:
        assert addresses[0] == ("127.0.0.1", port)


def test_a_range_of_ports_that_windows_keeps_is_called_by_its_name() -> None:
    error = PermissionError(13, "An attempt was made to access a socket in a way forbidden")
    error.winerror = 10013  # type: ignore[attr-defined]

    assert "excludedportrange" in why_taken(50_000, error)


@pytest.mark.parametrize("port", [1, 8000, 39_999, 40_000, 65_535])
def test_the_port_that_is_proposed_is_one_and_lies_far_away(port: int) -> None:
    assert (0 < another_port(port) <= 65_535, abs(another_port(port) - port)) == (True, 10_000)
