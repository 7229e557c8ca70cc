"""What a fleet's edges do for those who come from the open internet: TLS, and limits of what one address may."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from tests.certificates import certificate
from tests.fleet.runner import Commands

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

HSTS = "Strict-Transport-Security"
SMALL = ("--replicas", "1", "--shards", "1", "--edges", "1")


@asynccontextmanager
async def member(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[ClientConnection]:
    """One who follows a group over a WebSocket."""
    async with connect(f"{url}/ws/lobby/", ssl=tls) as socket:
        for kind in ("welcome", "subscribed"):
            assert f'"{kind}"' in str(await socket.recv())
        yield socket


async def shown(port: int, name: str | None = None) -> str:
    """Shake hands with an edge, as one who looks for a name or for none; gives its certificate's fingerprint."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anyone, server_hostname=name)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha256(found).hexdigest()


async def led(port: int) -> str:
    """Ask without TLS; gives where one is told to go."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /livez HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    found = (await reader.read()).decode()
    writer.close()
    return found.partition("\r\nLocation: ")[2].partition("\r\n")[0]


async def header(port: int, *, trusting: Path, name: str) -> str:
    """Ask by TLS; gives a header of the answer."""
    trust = ssl.create_default_context(cafile=str(trusting))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    writer.write(f"GET /livez HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    found = (await reader.read()).decode()
    writer.close()
    return found.partition(f"\r\n{name}: ")[2].partition("\r\n")[0]


async def told_expiries(commands: Commands) -> list[str]:
    """Ask the edge, as Prometheus does, when certificates expire that it has shown."""
    reader, writer = await asyncio.open_connection("127.0.0.1", commands.remembered()["ports"]["edge-0"])
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    found = (await reader.read()).decode()
    writer.close()
    return re.findall(r"^traefik_tls_certs_not_after\{.*", found, re.M)


def examined(commands: Commands) -> dict[str, str]:
    """Give what `inv doctor` says of the certificate; nothing where there is none to look at."""
    found = json.loads(commands("doctor", "--connections", "100", "--json").stdout)
    return next((check for check in found["checks"] if check["name"] == "certificate"), {})


async def test_one_that_expires_soon_is_warned_of_until_it_is_renewed(commands: Commands, tmp_path: Path) -> None:
    for name, days in (("1", 9), ("2", 90)):
        (tmp_path / name).mkdir()
        certificate(tmp_path / name, days)
    soon, renewed = (str(tmp_path / name / "certificate.pem") for name in ("1", "2"))
    await asyncio.to_thread(commands.ok, "up", *SMALL, "--tls-certificate", soon, "--tls-key", soon)
    (warning,) = commands.status()["warnings"]
    assert warning.startswith("the certificate that the edges show expires in 8 days: renew it, then `inv up --tls-c")
    assert examined(commands)["verdict"] == "warn"
    assert len(await told_expiries(commands)) == 1
    await asyncio.to_thread(commands.ok, "up", "--tls-certificate", renewed, "--tls-key", renewed)
    assert commands.status()["warnings"] == []
    found = examined(commands)
    assert (found["verdict"], found["have"]) == ("ok", "expires in 89 days")
    assert len(await told_expiries(commands)) == 2, "why the alert goes by the last of them"
    await asyncio.to_thread(commands.ok, "up", "--tls-certificate", "", "--tls-key", "")
    assert examined(commands) == {}


async def test_one_for_a_domain_is_shown_to_everybody_by_whatever_name_they_come(
    commands: Commands, tmp_path: Path
) -> None:
    """Commands come by an address, which no certificate of a public authority names; so do balancers that look."""
    own = certificate(tmp_path, names="DNS:chat.example.org")
    (pem, *_) = re.findall("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", own.read_text(), re.S)
    expected = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    await asyncio.to_thread(commands.ok, "up", *SMALL, "--tls-certificate", str(own), "--tls-key", str(own))
    for name in (None, "chat.example.org", "another.example.org"):
        assert await shown(commands.port, name) == expected, name
    assert (await asyncio.to_thread(commands.ok, "publish", "--group", "g", "--data", "1")).stdout.strip() == "1"


def certificate_in(folder: Path) -> Path:
    folder.mkdir()
    return certificate(folder)


async def test_a_certificate_comes_changes_and_goes_and_no_socket_is_lost(commands: Commands, tmp_path: Path) -> None:
    first, second = certificate_in(tmp_path / "1"), certificate_in(tmp_path / "2")
    commands.ok("up", *SMALL)
    secure = f"wss://127.0.0.1:{commands.port}"
    async with member(commands.url) as early:
        run = await asyncio.to_thread(commands.ok, "up", "--tls-certificate", str(first), "--tls-key", str(first))
        assert f"https://127.0.0.1:{commands.port}" in run.stdout
        trust = ssl.create_default_context(cafile=str(first))
        async with member(secure, trust) as late:
            before = await shown(commands.port)
            assert commands.ok("publish", "--group", "lobby", "--data", '"by TLS"').stdout.strip() == "1"
            first.write_text(second.read_text())
            await asyncio.to_thread(commands.ok, "up")
            assert await shown(commands.port) != before, "the file is read again"
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(f"{secure}/ws/", ssl=trust)
            await asyncio.to_thread(commands.ok, "promote")
            assert await shown(commands.port) != before, "a promote writes it too"
            assert await header(commands.port, trusting=second, name=HSTS) == "", "nobody is told what nobody asked for"
            assert await led(commands.port) == f"https://127.0.0.1:{commands.port}/livez"
            run = await asyncio.to_thread(commands.ok, "up", "--tls-certificate", "", "--tls-key", "")
            assert "by TLS only" not in run.stderr
            commands.ok("publish", "--group", "lobby", "--data", '"in the clear"')
            for socket in (early, late):
                assert '"by TLS"' in str(await socket.recv())
                assert '"in the clear"' in str(await socket.recv())
    assert not list(commands.directory.rglob("certificate*"))


async def test_browsers_are_told_to_come_by_tls_only_where_that_is_asked_for_and_it_can_be_taken_back(
    commands: Commands, tmp_path: Path
) -> None:
    own = certificate_in(tmp_path / "1")
    shows = ("--tls-certificate", str(own), "--tls-key", str(own))
    await asyncio.to_thread(commands.ok, "up", *SMALL, *shows, INVOKE_FLEET_HSTS_SECONDS="600")
    assert await header(commands.port, trusting=own, name=HSTS) == "max-age=600"
    run = await asyncio.to_thread(commands.ok, "up", "--tls-certificate", "", "--tls-key", "")
    assert "warning: browsers that were here come by TLS only for up to 600 s" in run.stderr
    run = await asyncio.to_thread(commands.ok, "up", *shows, INVOKE_FLEET_HSTS_SECONDS="0")
    assert await header(commands.port, trusting=own, name=HSTS) == "max-age=0"
    # Who was not here meanwhile has not heard of that: what was told first still counts.
    run = await asyncio.to_thread(commands.ok, "up", "--tls-certificate", "", "--tls-key", "")
    (left_s,) = re.findall(r"by TLS only for up to (\d+) s", run.stderr)
    assert 400 < int(left_s) < 600
    run = await asyncio.to_thread(commands.ok, "up", INVOKE_FLEET_HSTS_SECONDS="60")
    assert "fleet.hsts_seconds is 60, but without a certificate" in run.stderr
    await asyncio.to_thread(commands.ok, "down")
    run = await asyncio.to_thread(commands.ok, "up", *SMALL)
    assert "by TLS only for up to" in run.stderr, "it is remembered while the fleet is down"


def agreed(port: int, *options: str) -> str:
    """Have openssl shake hands with an edge; gives the protocol and the cipher, empty where they don't agree."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"^New, (\S+), Cipher is (\S+)$", done.stdout, re.M)
    return f"{found[1]} {found[2]}" if found and found[2] != "(NONE)" else ""


def test_what_is_not_modern_is_not_agreed_on(commands: Commands, tmp_path: Path) -> None:
    """openssl's own lowest level, so that it is the edge that refuses."""
    own, weak = certificate_in(tmp_path / "1"), "DEFAULT:@SECLEVEL=0"
    commands.ok("up", *SMALL, "--tls-certificate", str(own), "--tls-key", str(own))
    assert agreed(commands.port, "-tls1_3").startswith("TLSv1.3 ")
    assert agreed(commands.port, "-tls1_2").startswith("TLSv1.2 ECDHE-")
    for old in ("-tls1", "-tls1_1"):
        assert agreed(commands.port, old, "-cipher", weak) == "", old
    for cipher in ("AES128-GCM-SHA256", "AES256-SHA", "ECDHE-RSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        assert agreed(commands.port, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0") == "", cipher


def test_a_certificate_that_nobody_could_believe_is_refused_and_nothing_changes(
    commands: Commands, tmp_path: Path
) -> None:
    first, second = certificate_in(tmp_path / "1"), certificate_in(tmp_path / "2")
    other_key = second.with_name("key.pem")
    (tmp_path / "no.pem").write_text("nonsense")
    for certificate_file, key, words in (
        (first, other_key, "key values mismatch"),
        (tmp_path / "no.pem", other_key, "PEM"),
        (tmp_path / "none.pem", other_key, "No such file"),
        (first, "", "go together"),
    ):
        refused = commands("up", *SMALL, "--tls-certificate", str(certificate_file), "--tls-key", str(key))
        assert (refused.code, len(refused.stderr.strip().splitlines())) == (2, 1), refused.stderr
        assert words in refused.last
    assert not commands.remembered()["ports"]


async def test_a_replica_that_is_busy_for_seconds_is_not_left_out(commands: Commands) -> None:
    commands.ok("up", *SMALL)
    [replica] = commands.status()["replicas"]
    os.kill(replica["pid"], signal.SIGSTOP)
    try:
        # By now the edge has asked it how it is, and has no answer.
        await asyncio.sleep(3)
        waiting = asyncio.create_task(answered(commands.url))
        await asyncio.sleep(0.5)
    finally:
        os.kill(replica["pid"], signal.SIGCONT)
    assert await waiting == 101


async def refusal(url: str, address: str = "127.0.0.1") -> Response | None:
    """Try to connect from an address; gives the answer that it gets instead."""
    try:
        async with connect(f"{url}/ws/lobby/", local_addr=(address, 0)):
            return None
    except InvalidStatus as refused:
        return refused.response


async def answered(url: str, address: str = "127.0.0.1") -> int:
    """Try to connect from an address; gives the status of the answer."""
    found = await refusal(url, address)
    return found.status_code if found else 101


async def test_an_address_has_no_more_sockets_than_it_may(commands: Commands) -> None:
    commands.ok("up", *SMALL, INVOKE_FLEET_ADDRESS_SOCKETS="3")
    async with AsyncExitStack() as held:
        sockets = [await held.enter_async_context(member(commands.url)) for _ in range(3)]
        assert await answered(commands.url) == 429
        assert await answered(commands.url, "127.0.0.2") == 101, "another address is none of its business"
        await sockets[0].close()
        # The edge learns of it when the replica's end of the connection has closed as well.
        async with asyncio.timeout(10):
            while await answered(commands.url) != 101:
                await asyncio.sleep(0.05)


async def test_an_address_connects_no_faster_than_it_may(commands: Commands) -> None:
    commands.ok("up", *SMALL, INVOKE_FLEET_ADDRESS_CONNECTS="5")
    told = [await refusal(commands.url, "127.0.0.3") for _ in range(60)]
    assert told[:8] == [None] * 8, "twice as many at once"
    refusals = [one for one in told if one]
    assert {one.status_code for one in refusals} == {429}
    assert all(int(one.headers["Retry-After"]) >= 0 for one in refusals)
    await asyncio.to_thread(commands.ok, "up", INVOKE_FLEET_ADDRESS_CONNECTS="0")
    assert {await answered(commands.url, "127.0.0.3") for _ in range(60)} == {101}


async def test_what_address_a_client_is_at_is_for_the_edge_to_say(commands: Commands) -> None:
    """Not for the client, whatever it sends: whose account it is on at a worker goes by that."""
    limits = {"SHARDS_ADDRESS_SHARE": "0.02", "SHARDS_RATE_LIMIT": "50"}
    await asyncio.to_thread(commands.ok, "up", *SMALL, **limits)

    async def pings(address: str, claimed: str) -> list[str]:
        said = dict.fromkeys(("X-Forwarded-For", "X-Real-Ip"), claimed) | {"Forwarded": f"for={claimed}"}
        async with connect(f"{commands.url}/ws/", local_addr=(address, 0), additional_headers=said) as socket:
            await socket.recv()
            for _ in range(40):
                await socket.send('{"type":"ping"}')
            answers = [json.loads(await socket.recv()) for _ in range(40)]
        return [answer.get("code", answer["type"]) for answer in answers]

    # 100 at once for an address, and one more a second.
    told = [await pings("127.0.0.4", f"203.0.113.{number}") for number in range(6)]
    assert told[0] == ["pong"] * 40
    assert "rate_limited" in told[-1], "another address each time was believed"
    assert await pings("127.0.0.5", "127.0.0.4") == ["pong"] * 40, "it takes nobody else's"


async def test_an_edge_that_goes_also_asks_those_back_who_were_handed_over(commands: Commands) -> None:
    commands.ok("up", *SMALL)
    async with member(commands.url) as early:
        await asyncio.to_thread(commands.ok, "promote")
        async with member(commands.url) as late:
            await asyncio.to_thread(commands.ok, "restart", "edge-0")
            for socket in (early, late):
                await socket.wait_closed()
                assert socket.close_code == 1012
    async with asyncio.timeout(10), member(commands.url):
        pass
