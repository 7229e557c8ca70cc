"""What the docker engine would run: its files and containers, and the errors of its settings."""

from __future__ import annotations

import asyncio
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import yaml
from docker.errors import APIError, ImageNotFound
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shards.errors import ShardsError, UsageError
from shards.fleet import layout
from shards.fleet.engines import edge
from shards.fleet.engines.docker import compose, connections, daemon, figures, files, stack
from shards.fleet.engines.docker.engine import DockerEngine, stranded
from shards.fleet.engines.docker.options import DockerOptions, Limits
from shards.fleet.engines.docker.stack import Stack
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = DockerOptions(ROOT)
FLEET = compose.fresh(FleetSpec(edges=2))
MADE: dict[str, Any] = yaml.safe_load(compose.render(FLEET, OPTIONS))
SERVICES: dict[str, Any] = MADE["services"]


def test_the_committed_files_are_what_is_rendered_for_the_defaults() -> None:
    state = compose.fresh(FleetSpec.read({"edges": "auto"}, OPTIONS.nofile))
    for name, text in compose.written(state, OPTIONS).items():
        assert (ROOT / "docker" / name).read_text() == text, f"`inv render --into docker` writes {name} anew"


def test_fleets_of_several_files_run_side_by_side() -> None:
    """Those of the committed file and of another port had the same ports for their parts."""
    fleets = [compose.fresh(FleetSpec(port=port, replicas=20, edges=4)) for port in (8000, 8100, 9000, 12_600, 27_586)]
    ports = [port for fleet in fleets for port in {*fleet.ports.values(), fleet.spec.port}]
    assert len(ports) == len(set(ports))
    assert max(ports) < 32_768, "from there on Linux gives them to connections that go out"


def test_the_head_names_what_puts_images_and_secrets_where_the_file_finds_them() -> None:
    head = compose.render(compose.fresh(FleetSpec("other")), OPTIONS, "/srv/my fleet").partition("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    commands = {line[1:].split("  images")[0].strip() for line in head.splitlines() if "inv build" in line}
    assert commands == {"inv build --into '/srv/my fleet' --project other"}
    assert "docker compose -f '/srv/my fleet/compose.yml' up -d" in head
    assert "/srv/my fleet/secrets/grafana" in head
    assert "docker/" not in head
    assert "a test keeps it so" not in head
    assert "#   inv build   " in compose.render(FLEET, OPTIONS)


@pytest.mark.parametrize(
    ("nofile", "cpus", "told"),
    [
        (65_536, 4, ""),
        (20_000, 4, "SHARDS_NOFILE=20000"),
        (65_536, 2, "SHARDS_APP_CPUS=2 SHARDS_EDGE_CPUS=2"),
        (
            4096,
            1.5,
            "SHARDS_NOFILE=4096 SHARDS_APP_CPUS=1.5 SHARDS_REDIS_CPUS=1.5 SHARDS_SHARED_CPUS=1.5 SHARDS_EDGE_CPUS=1.5",
        ),
    ],
    ids=["enough", "files", "cores", "both"],
)
def test_compose_is_told_what_a_host_lacks_and_only_there(nofile: int, cpus: float, told: str) -> None:
    command = compose.started("a b", compose.smaller(OPTIONS, nofile, cpus))
    assert command == f"{told} docker compose -f 'a b/compose.yml' up -d".lstrip()
    names = {word.partition("=")[0] for word in told.split()}
    assert all(f"${{{name}:-" in compose.render(FLEET, OPTIONS) for name in names)


def test_the_image_installs_what_the_project_says_the_service_needs() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "docker" / "requirements.in").read_text().splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")} - {"async-timeout>=4.0.3"}
    assert wanted - {"django>=5.2,<5.3"} <= set(declared)


@pytest.mark.parametrize(
    ("source", "locked"),
    [("pyproject.toml", "requirements.lock"), ("docker/requirements.in", "docker/requirements.txt")],
)
def test_what_is_asked_for_is_pinned_within_its_range_each_file_by_its_hash(source: str, locked: str) -> None:
    text = (ROOT / source).read_text()
    if source.endswith(".toml"):
        asked = [Requirement(one) for one in tomllib.loads(text)["project"]["dependencies"]]
    else:
        asked = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    entries = (ROOT / locked).read_text().replace("\\\n", " ").splitlines()
    pinned = [entry.partition(" --hash=")[0] for entry in entries if not entry.lstrip().startswith("#")]
    assert all("--hash=sha256:" in entry for entry in entries if not entry.lstrip().startswith("#"))
    versions: dict[str, list[str]] = {}
    for one in map(Requirement, pinned):
        versions.setdefault(canonicalize_name(one.name), []).append(str(one.specifier).removeprefix("=="))
    for one in asked:
        assert all(map(one.specifier.contains, versions[canonicalize_name(one.name)])), f"{one}: run `nox -s lock`"


def test_what_an_image_gets_does_not_depend_on_the_python_that_gathers_it() -> None:
    pinned = (ROOT / "docker" / "requirements.txt").read_text()
    assert "python_version" not in pinned
    assert "python_full_version" not in pinned


def test_there_is_no_python_in_the_directory_that_has_the_sdks_name() -> None:
    assert not list((ROOT / "docker").rglob("*.py"))


def test_every_service_of_both_colors_is_there_and_the_idle_one_waits() -> None:
    wanted = {"redis_blue", "redis_green", "redis_shared", "shared-0", "shared-1"}
    wanted |= {"traefik_0", "traefik_1", "pause_edge"}
    wanted |= {f"app_{color}_{i}" for color in ("blue", "green") for i in range(3)} | {f"pause_{i}" for i in range(3)}
    assert set(SERVICES) == wanted | {"prepare", "prometheus", "grafana"}
    green = {f"app_green_{i}" for i in range(3)}
    assert {name for name, one in SERVICES.items() if one.get("profiles") == ["green"]} == green
    assert {name for name, one in SERVICES.items() if one.get("profiles")} == green | {"prometheus", "grafana"}


def test_replicas_are_told_what_was_chosen_and_who_they_are_is_not_for_it_to_say() -> None:
    told = {"SHARDS_RATE_LIMIT": "20", "SHARDS_REPLICA": "mine", "DJANGO_SETTINGS_MODULE": "mine"}
    state = replace(FLEET, settings=told)
    environment = yaml.safe_load(compose.render(state, OPTIONS))["services"]["app_blue_0"]["environment"]
    assert (environment["SHARDS_RATE_LIMIT"], environment["SHARDS_REPLICA"]) == ("20", "blue-0")
    assert environment["DJANGO_SETTINGS_MODULE"] == "app.settings"
    own = replace(state, spec=replace(FLEET.spec, app="mysite.asgi:application"))
    environment = yaml.safe_load(compose.render(own, OPTIONS))["services"]["app_blue_0"]["environment"]
    assert environment["DJANGO_SETTINGS_MODULE"] == "mine"


def test_both_colors_of_a_number_share_a_network_and_no_port() -> None:
    for number in range(3):
        blue, green = (SERVICES[f"app_{color}_{number}"] for color in ("blue", "green"))
        assert blue["network_mode"] == green["network_mode"] == f"service:pause_{number}"
        assert blue["environment"]["SHARDS_PORT"] != green["environment"]["SHARDS_PORT"]
        inner = {port.rpartition(":")[2] for port in SERVICES[f"pause_{number}"]["ports"]}
        assert inner == {blue["environment"]["SHARDS_PORT"], green["environment"]["SHARDS_PORT"]}


def test_colors_share_what_is_shared_and_nothing_else() -> None:
    for color in ("blue", "green"):
        told = SERVICES[f"app_{color}_0"]["environment"]
        assert told["COLOR"] == color
        assert told["CHANNEL_REDIS_URL"] == f"redis://redis_{color}:6379/0"
        assert told["MESSAGE_REDIS_URL"] == "redis://redis_shared:6379/0"
        assert told["DJANGO_SETTINGS_MODULE"] == "app.settings"
        assert "handoff:/run/shards" in SERVICES[f"app_{color}_0"]["volumes"]


def test_only_the_fleets_port_may_be_reached_from_elsewhere() -> None:
    ports = [port for one in SERVICES.values() for port in one.get("ports", ())]
    state = compose.fresh(FleetSpec(host="0.0.0.0"))
    opened = yaml.safe_load(compose.render(state, OPTIONS))["services"]
    public = [port for one in opened.values() for port in one.get("ports", ()) if not port.startswith("127.0.0.1:")]
    assert public == ["0.0.0.0:8000:8000"]
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_limits_are_the_guides_and_every_container_has_them() -> None:
    for name, one in SERVICES.items():
        if name.startswith("pause") or name == "prepare":
            continue
        limits = one["deploy"]["resources"]["limits"]
        wanted = ("4G", "4.0") if name.startswith(("app", "traefik")) else ("4G", "2.0")
        if name in layout.MONITORING:
            assert [re.sub(r".*:-(.*)}", r"\1", limits[key]) for key in ("memory", "cpus")] == ["1G", "1.0"]
            continue
        if name in ("redis_blue", "redis_green"):
            wanted = ("2G", "2.0")
        assert [re.sub(r".*:-(.*)}", r"\1", limits[key]) for key in ("memory", "cpus")] == list(wanted), name
        assert one["ulimits"]["nofile"]["hard"] == "${SHARDS_NOFILE:-65536}"


def test_no_secret_is_an_environment_variable_or_an_argument() -> None:
    for name, one in SERVICES.items():
        # What names a file is none.
        told = {
            key: value for key, value in one.get("environment", {}).items() if not value.startswith("/run/secrets/")
        }
        said = " ".join([*told, *told.values(), *one.get("command", [])])
        assert not re.search(r"password|secret|token", said, re.IGNORECASE), name


def test_containers_of_replicas_and_servers_are_given_no_password_of_the_admin(tmp_path: Path) -> None:
    fleet = FleetDir(tmp_path, "p")
    fleet.create()
    beside = fleet.path / "docker"
    for earlier in ("app", "redis"):
        (beside / "secrets" / earlier).mkdir(parents=True)
    (beside / "secrets" / "app" / "redis").write_text(fleet.password())
    files.write_secrets(beside, fleet)
    given = {path.relative_to(beside / "secrets").as_posix(): path for path in beside.rglob("secrets/*/*")}
    assert set(given) == {
        *(f"app/{name}" for name in ("redis-app", "django", "tokens", "shards")),
        *("redis/password", "redis/redis.conf", "grafana/password"),
    }
    assert not [name for name, path in given.items() if fleet.password() in path.read_text()]
    assert given["app/redis-app"].read_text() == given["redis/password"].read_text() == fleet.app_password()
    assert (beside / "secrets").stat().st_mode & 0o777 == 0o700
    for name in ("app_blue_0", "app_green_0", "prepare"):
        assert "./secrets/app:/run/secrets:ro" in SERVICES[name]["volumes"]
        assert not [mount for mount in SERVICES[name]["volumes"] if "secrets/redis" in mount]


def test_containers_of_compose_have_the_limits_of_those_that_commands_make() -> None:
    for name, one in SERVICES.items():
        if name in layout.MONITORING:
            continue
        assert one["logging"] == {"driver": "json-file", "options": stack.LOG_FILES}, name
        if "deploy" in one:
            assert one["memswap_limit"] == one["deploy"]["resources"]["limits"]["memory"], name
    grace = {name: one["stop_grace_period"] for name, one in SERVICES.items()}
    assert int(grace["traefik_0"].removesuffix("s")) > edge.GRACE_S, "an edge waits for its sockets before it is killed"


def test_there_is_room_for_some_more_edges_and_for_one_that_stands_in() -> None:
    assert layout.edge_room(FLEET) == 4
    many = compose.fresh(FleetSpec(edges=6))
    assert layout.edge_room(many) == 6
    published = {one.port for one in Stack(many, OPTIONS).pause("pause_edge").publish}
    assert many.ports["edge-6"] in published, "one stands in while another is restarted"
    assert layout.edge_room(replace(FLEET, spec=replace(FLEET.spec, engine="local"))) is None


def test_shards_have_one_name_for_workers_and_one_for_this_host() -> None:
    inside = [shard.url for shard in layout.shards(FLEET)]
    assert inside == ["redis://shared-0:6379/0", "redis://shared-1:6379/0"]
    assert [layout.reached(FLEET, url) for url in inside] == [
        f"redis://127.0.0.1:{FLEET.ports[name]}/0" for name in ("shared-0", "shared-1")
    ]
    assert layout.reached(FLEET, "redis://elsewhere:6379/0") == "redis://elsewhere:6379/0"


def test_ports_of_a_shared_network_outlast_the_parts_that_use_them() -> None:
    left = layout.without_ports(FLEET, ["blue-2", "edge-1", "shared-1"])
    assert {"blue-2", "green-2", "edge-1"} <= set(left.ports)
    assert "shared-1" not in left.ports


def test_edges_share_the_hosts_cores() -> None:
    part = layout.edge_parts(FLEET)[1]
    assert Stack(FLEET, OPTIONS, cores=8).of(part).environment["GOMAXPROCS"] == "4"
    assert stack.edge_port(part) == 8081


@pytest.mark.parametrize(
    "name,value,words",
    [
        ("app_memory", "1", "docker.app_memory must be 6M or more"),
        ("edge_memory", "much", "docker.edge_memory must be 6M or more"),
        ("redis_cpus", "0", "docker.redis_cpus must be a number of cores"),
        ("shared_cpus", "two", "docker.shared_cpus must be a number of cores"),
        ("nofile", "10", "docker.nofile must be 1,024"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told(name: str, value: str, words: str) -> None:
    values = yaml.safe_load((ROOT / "invoke.yaml").read_text())["docker"]
    assert DockerOptions.read(ROOT, values) == OPTIONS, "invoke.yaml says what the defaults are"
    with pytest.raises(UsageError, match=re.escape(words)):
        DockerOptions.read(ROOT, {**values, name: value})


def test_memory_is_read_as_docker_writes_it() -> None:
    assert Limits("64m", 1).memory_bytes == 64 * 2**20
    assert Limits("4G", 1).memory_bytes == Limits("4GB", 1).memory_bytes == 4 * 2**30


@pytest.mark.parametrize("cache", ["total_inactive_file", "inactive_file"])
def test_usage_leaves_out_the_cache_and_counts_cores(cache: str) -> None:
    def sample(cpu_s: float) -> dict[str, Any]:
        memory = {"usage": 100, "stats": {cache: 40}, "limit": 1000}
        return {"memory_stats": memory, "cpu_stats": {"cpu_usage": {"total_usage": int(cpu_s * 1e9)}}}

    used = figures.usage(sample(1.0), sample(1.5), 0.25, 4.0)
    assert (used.rss_bytes, used.memory_limit_bytes, used.cpu_percent, used.cpu_limit_percent) == (60, 1000, 200.0, 400)


def test_what_befell_a_container_is_told() -> None:
    limits = {"HostConfig": {"Memory": 64 * 2**20}}
    assert figures.befell({**limits, "RestartCount": 0, "State": {"OOMKilled": False}}) == ""
    assert figures.befell({**limits, "RestartCount": 1, "State": {}}) == "Docker started it again 1 time"
    assert "more than the 64 MB" in figures.befell({**limits, "State": {"OOMKilled": True}})


@pytest.mark.parametrize(
    ("labels", "mends"),
    [({}, "inv up"), (None, "inv up"), ({"com.docker.compose.project": "p"}, "docker compose -f FILE up -d")],
)
def test_what_docker_could_not_start_is_told_with_its_reason_and_what_does(labels: Any, mends: str) -> None:
    """As after a restart of the daemon, where what holds a network was not up yet."""
    error = f"cannot join network of a non running\ncontainer: {'0123456789ab' + 'c' * 52}"
    told = figures.befell({"Config": {"Labels": labels}, "State": {"Running": False, "Error": error}})
    reason = "cannot join network of a non running container: 0123456789ab"
    assert told == f"Docker could not start it ({reason}): `{mends}` tries again"
    # What it says of an earlier try is over.
    assert figures.befell({"State": {"Running": True, "Error": error}}) == ""


def test_what_was_stopped_by_hand_is_told_with_what_starts_it() -> None:
    ended = {"Running": False, "Status": "exited", "ExitCode": 137, "Error": ""}
    assert (
        figures.befell({"State": ended}) == "it has ended (exit code 137), and Docker leaves it so: `inv up` starts it"
    )
    assert figures.befell({"State": {**ended, "Status": "restarting"}}) == ""


@pytest.mark.parametrize(
    "said,words",
    [
        ("write /var/lib/docker/x: no space left on device", "the disk of Docker is full"),
        ("driver failed: Bind for 127.0.0.1:8000 failed: port is already allocated", "port 8000 is in use"),
        ('Conflict. The container name "/p-shared-0" is already in use by 12', "`docker rm -f p-shared-0`"),
        ("what nobody\nhas thought of", "Docker says: what nobody has thought of"),
    ],
)
def test_what_the_daemon_refuses_is_one_line_that_says_what_to_do(said: str, words: str) -> None:
    with pytest.raises(ShardsError, match=re.escape(words)) as refused, daemon.errors():
        raise APIError("500", explanation=said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("image", "project"),
    [("shards-redis:my-fleet", "my-fleet"), ("shards-edge:p", "p"), ("shards-app:a-b-dev", "a-b"), ("other:1", "NAME")],
)
def test_an_image_that_is_not_there_is_told_with_the_fleet_that_lacks_it(image: str, project: str) -> None:
    with pytest.raises(ShardsError) as refused, daemon.errors():
        raise ImageNotFound("404", explanation=f"No such image: {image}")
    assert str(refused.value) == f"No such image: {image}; `inv build --project {project}` makes it"


@pytest.mark.parametrize(
    "reason,words",
    [
        (
            "('Connection aborted.', PermissionError(13, 'Permission denied'))",
            "group",
        ),
        ("Error while fetching server API version: FileNotFoundError(2, 'No such file or directory')", "start Docker"),
        ("client version 1.24 is too old. Minimum supported API version is 1.41", "must be 20.10 or newer"),
        ("something else", "something else"),
        (
            "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read timeout=60)",
            "did not answer within 60 s: it is busy",
        ),
    ],
)
def test_a_daemon_that_cannot_be_used_is_one_line_that_says_what_to_do(reason: str, words: str) -> None:
    said = daemon.unreachable(reason)
    assert words in said
    assert "\n" not in said


def test_a_busy_daemon_is_not_taken_for_none() -> None:
    with pytest.raises(ShardsError, match="did not answer within 70 s") as refused, daemon.errors():
        raise requests.ReadTimeout("UnixHTTPConnectionPool(host='localhost'): Read timed out. (read timeout=70)")
    assert "start Docker" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["ssh://root@10.99.99.9", "ssh://localhost", "tcp://192.0.2.1:2375", "192.0.2.1:2375", "https://192.0.2.1"]
)
def test_the_docker_engine_refuses_a_daemon_of_another_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)

    def opened() -> Any:
        raise AssertionError("it is not even opened")

    engine = DockerEngine(FleetSpec("p", "docker"), FleetDir(tmp_path, "p"), DockerOptions(ROOT), opened, print)
    with pytest.raises(UsageError, match="needs the daemon of this host") as refused:
        engine.check(port_is_ours=True)
    assert "--engine swarm" in str(refused.value)
    with pytest.raises(UsageError, match="needs the daemon of this host"):
        asyncio.run(engine.alive())


@pytest.mark.parametrize("url", [None, "", "unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"])
def test_a_daemon_of_this_host_may_be_asked_by_any_way(monkeypatch: pytest.MonkeyPatch, url: str | None) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    if url is not None:
        monkeypatch.setenv("DOCKER_HOST", url)
    daemon.refuse_elsewhere()


def test_no_daemon_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ShardsError, match="start Docker, or use --engine local"):
        daemon.connect()


def _container(service: str, part: str, status: str, started: str) -> Any:
    labels = {stack.SERVICE_LABEL: service, stack.PART_LABEL: part}
    return SimpleNamespace(labels=labels, status=status, attrs={"State": {"StartedAt": started}})


@pytest.mark.parametrize(
    ("holder", "names"),
    [
        (("running", "2026-01-01T10:00:00.5Z"), []),
        # Docker has started it again: those who share its network are in one that is gone.
        (("running", "2026-01-01T10:00:02.000000001Z"), ["app_blue_0"]),
        (("exited", "2026-01-01T10:00:00.5Z"), ["app_blue_0", "app_green_0"]),
        (None, ["app_blue_0", "app_green_0"]),
    ],
    ids=["well", "started again", "dead", "removed"],
)
def test_who_is_in_a_network_that_is_gone_is_found(holder: tuple[str, str] | None, names: list[str]) -> None:
    found = {
        "app_blue_0": _container("app_blue_0", "blue-0", "running", "2026-01-01T10:00:01.123456789Z"),
        # It is not running: whoever starts it has it join anew.
        "app_green_0": _container("app_green_0", "green-0", "exited", "2026-01-01T10:00:01Z"),
        "app_blue_1": _container("app_blue_1", "blue-1", "running", "2026-01-01T09:00:00Z"),
        "redis_blue": _container("redis_blue", "redis_blue", "running", "2026-01-01T09:00:00Z"),
    }
    if holder:
        found["pause_0"] = _container("pause_0", "", *holder)
    assert stranded("pause_0", found) == names


KERNEL_SAYS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 100 1 0 100 0 0 10 0
   1: 020012AC:1F40 010012AC:D431 01 00000000:00000000 00:00000000 00000000 65532        0 101 1 0 20 4 30 10 -1
   2: 020012AC:9C40 030012AC:1F41 01 00000000:00000000 00:00000000 00000000 65532        0 102 1 0 20 4 30 10 -1
   3: 020012AC:9C41 030012AC:1F41 01 00000000:00000000 00:00000000 00000000 65532        0 999 1 0 20 4 30 10 -1
   4: 020012AC:9C42 030012AC:1F41 06 00000000:00000000 00:00000000 00000000 65532        0 0 3 0 0 0 0
/proc/7/fd:
lrwx------ 1 65532 65532 64 Nov 29 10:00 3 -> socket:[100]
lrwx------ 1 65532 65532 64 Nov 29 10:00 4 -> socket:[101]
lrwx------ 1 65532 65532 64 Nov 29 10:00 5 -> socket:[102]
lrwx------ 1 65532 65532 64 Nov 29 10:00 6 -> /etc/traefik/traefik.yml
"""


def test_where_an_edge_has_connected_to_is_told_from_its_clients_and_from_other_edges() -> None:
    assert connections.read(KERNEL_SAYS, (8000, 8080)) == {("172.18.0.2", 0x9C40)}
    assert connections.read("sh: not found", (8000,)) == set()


@pytest.mark.parametrize(
    ("said", "address"),
    [
        # Of IPv4, by a socket that could do both.
        ("0000000000000000FFFF0000020012AC", "172.18.0.2"),
        ("000080FE00000000FF2D3E0204030201", "fe80::23e:2dff:102:304"),
    ],
)
def test_addresses_of_ipv6_are_read_and_those_of_ipv4_are_written_alike(said: str, address: str) -> None:
    row = f"2: {said}:9C40 {said}:1F41 01 00000000:00000000 00:00000000 00000000 65532 0 102 1 0 20 4 30 10 -1"
    assert connections.read(f"{row}\n3 -> socket:[102]\n", ()) == {(address, 0x9C40)}
