"""HTTPS, for clients that are given the certificate and for the gateway's own."""

import datetime
import ssl
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.daemon import Endpoint, claim, find
from engine.errors import BadInput
from engine.remote.client import GatewayClient
from engine.settings import Home, Settings
from openai_shim.app import create_app
from openai_shim.http.context import GatewayContext
from openai_shim.serve.server import serving
from openai_shim.serve.tls import Tls, configured_tls
from tests.openai_shim.fakes import EMBEDDER, FakeEngine, soon
from tests.openai_shim.fakes import settings as fake_settings


def make_certificate(folder: Path, name: str) -> None:
    """NAME.pem and NAME.key: signed by itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    make_certificate(tmp_path, "own")
    found = configured_tls(Settings(Home(tmp_path), tls_certificate="own.pem", tls_key="own.key"))
    assert found
    return found


async def test_clients_that_trust_the_certificate_are_answered(tls: Tls, tmp_path: Path) -> None:
    home = Home(tmp_path)
    authorities = ssl.create_default_context(cadata=tls.certificate)
    with claim(home, "127.0.0.1", 0, auto_started=False, certificate=tls.certificate) as claimed:
        context = GatewayContext(FakeEngine().as_engine, fake_settings(), (), claimed.endpoint)
        async with (
            serving(create_app(context), claimed.sockets, tls.context),
            httpx2.AsyncClient(verify=authorities, trust_env=False) as http,
            httpx2.AsyncClient(trust_env=False) as stranger,
        ):
            reply = await http.post(f"{claimed.endpoint.url}/v1/embeddings", json={"input": "a"})
            with pytest.raises(httpx2.ConnectError):
                await stranger.get(f"{claimed.endpoint.url}/healthz")

    assert claimed.endpoint.url.startswith("https://127.0.0.1:")
    assert (reply.status_code, reply.json()["model"]) == (200, EMBEDDER)


async def test_the_gateways_own_clients_know_it_by_its_certificate(tls: Tls, tmp_path: Path) -> None:
    home = Home(tmp_path)

    async def locate() -> Endpoint:
        found = await find(home)
        assert found
        return found

    with claim(home, "127.0.0.1", 0, auto_started=True, certificate=tls.certificate) as claimed:
        context = GatewayContext(FakeEngine().as_engine, fake_settings(), (), claimed.endpoint)
        async with serving(create_app(context), claimed.sockets, tls.context):
            async with GatewayClient(locate) as client:
                health = await soon(client.health())
            assert health.status == "ok"
            assert await soon(find(home)) == claimed.endpoint


async def test_they_talk_to_no_other_one(tls: Tls, tmp_path: Path) -> None:
    """Not even to one whose certificate has the right names: the token is for this gateway alone."""
    make_certificate(tmp_path, "other")
    other = configured_tls(Settings(Home(tmp_path), tls_certificate="other.pem", tls_key="other.key"))
    assert other
    home = Home(tmp_path)
    with claim(home, "127.0.0.1", 0, auto_started=True, certificate=tls.certificate) as claimed:
        context = GatewayContext(FakeEngine().as_engine, fake_settings(), (), claimed.endpoint)
        async with serving(create_app(context), claimed.sockets, other.context):
            assert await soon(find(home)) is None


@pytest.mark.parametrize("content", [None, "nonsense"], ids=["absent", "nonsense"])
def test_files_that_are_no_certificate_are_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "own.pem").write_text(content)
    with pytest.raises(BadInput, match=r"own\.pem"):
        configured_tls(Settings(Home(tmp_path), tls_certificate="own.pem", tls_key="own.key"))


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="together"):
        Settings(Home(tmp_path), tls_certificate="own.pem")
