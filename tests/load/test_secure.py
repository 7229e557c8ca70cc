"""wss: a certificate is checked, unless someone asks otherwise."""

from __future__ import annotations

from pathlib import Path

from tests.certificates import certificate, server_context
from tests.load.server import running
from tests.load.test_main import SMALL, load, report, tmp_path

__all__ = ["tmp_path"]


async def test_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    async with running(tls=server_context(path)) as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL, "--ca", str(path))
    assert (status, report(tmp_path)["messages"]["lost"]) == (0, 0)
    assert report(tmp_path)["messages"]["delivered"] > 0


async def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    async with running(tls=server_context(certificate(tmp_path))) as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL)
        assert status == 1
        assert "CERTIFICATE_VERIFY_FAILED" in report(tmp_path)["connections"]["failures"][0]["reason"]
        assert (await load(tmp_path, "run", "--url", server.url, *SMALL, "--insecure"))[0] == 0
