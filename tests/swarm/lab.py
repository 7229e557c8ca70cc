"""A swarm of several real Docker daemons on one host, each in a network namespace of its own.

The nodes hang on a bridge in one more namespace, where the host's packet filter has no say; the host has an address
there too. A node's link can be taken down, and all its processes killed, as if its power was cut.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import psutil
import requests
from docker.errors import DockerException

START_S, STOP_S = 60.0, 20.0


def missing() -> str | None:
    """Say what this host lacks for a swarm of its own; None: nothing."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    lacking = [program for program in ("dockerd", "ip", "nsenter", "unshare") if shutil.which(program) is None]
    return f"no {', '.join(lacking)} on PATH" if lacking else None


def run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@dataclass
class Node:
    """One host of the swarm."""

    name: str
    address: str
    namespace: str
    link: str
    switch: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.directory}/sock"

    @contextlib.contextmanager
    def daemon(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.url, timeout=120)
        try:
            yield client
        finally:
            client.close()

    def plug(self) -> None:
        """Give it its network."""
        run("ip", "netns", "add", self.namespace)
        run("ip", "-n", self.switch, "link", "add", self.link, "type", "veth", *self._inside())
        run("ip", "-n", self.switch, "link", "set", self.link, "master", "switch", "up")
        run("ip", "-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            run("ip", "-n", self.namespace, "link", "set", device, "up")

    def _inside(self) -> list[str]:
        return ["peer", "name", "eth0", "netns", self.namespace]

    def start(self) -> None:
        """Start its daemon, with whatever it had before."""
        self.directory.mkdir(exist_ok=True)
        (self.directory / "pid").unlink(missing_ok=True)
        (self.directory / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
        words = [
            "dockerd",
            *("--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/exec"),
            *("--pidfile", f"{self.directory}/pid", "-H", self.url, "--log-level", "warn"),
        ]
        # Nodes are told apart by their hostnames.
        script = f"hostname {self.name}; exec {' '.join(words)}"
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--uts", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, START_S, f"the daemon of {self.name} does not answer: see {self.directory}/log")

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        # Before the SDK: where nobody listens yet, it leaves its socket open.
        with socket.socket(socket.AF_UNIX) as knocks:
            if knocks.connect_ex(f"{self.directory}/sock"):
                return False
        with contextlib.suppress(DockerException, requests.RequestException), self.daemon() as client:
            return bool(client.ping())
        return False

    def cut(self) -> None:
        """Take its link down."""
        run("ip", "-n", self.switch, "link", "set", self.link, "down")

    def mend(self) -> None:
        """Put its link up again."""
        run("ip", "-n", self.switch, "link", "set", self.link, "up")

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut would."""
        while found := self.processes():
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=5)
        if self.process is not None:
            self.process.wait()

    def processes(self) -> list[psutil.Process]:
        """Find the processes in its network: its daemon, and all containers, which are in the network of their host."""
        inode = Path(f"/run/netns/{self.namespace}").stat().st_ino
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process.pid}/ns/net").stat().st_ino == inode:
                    found.append(process)
        return found

    def stop(self) -> None:
        """End its daemon, and whatever is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        if Path(f"/run/netns/{self.namespace}").exists():
            self.kill()
            run("ip", "netns", "delete", self.namespace)


@dataclass
class Lab:
    """A swarm on this host; the first node is its manager."""

    count: int = 3
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        token = secrets.token_hex(2)
        # Short, since sockets are below it.
        self.directory = Path(tempfile.mkdtemp(prefix=f"swarm-{token}-", dir="/tmp"))
        self._switch, self._host = f"sw-{token}", f"sw-{token}"
        self._network = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.nodes += map(self._node, range(1, self.count + 1))

    def _node(self, i: int) -> Node:
        name = f"node{i}"
        address, namespace = f"{self._network}.{10 + i}", f"{self._switch}-{i}"
        return Node(name, address, namespace, f"n{i}", self._switch, self.directory / name)

    @property
    def manager(self) -> Node:
        return self.nodes[0]

    def environment(self) -> dict[str, str]:
        """Give what commands need to work with this swarm."""
        others = ",".join(node.url for node in self.nodes[1:])
        return {"INVOKE_FLEET_ENGINE": "swarm", "DOCKER_HOST": self.manager.url, "INVOKE_DOCKER_DAEMONS": others}

    def start(self, images: Sequence[str]) -> None:
        """Start the nodes, join them, and bring the images that others build on to the manager."""
        run("ip", "netns", "add", self._switch)
        run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", "switch", "up")
        run("ip", "link", "add", self._host, "type", "veth", "peer", "name", "host", "netns", self._switch)
        run("ip", "-n", self._switch, "link", "set", "host", "master", "switch", "up")
        run("ip", "address", "add", f"{self._network}.1/24", "dev", self._host)
        run("ip", "link", "set", self._host, "up")
        for node in self.nodes:
            node.plug()
            node.start()
        self._join()
        with contextlib.closing(docker.from_env()) as here, self.manager.daemon() as there:
            for image in images:
                there.images.load(here.images.get(image).save(named=image))

    def _join(self) -> None:
        manager = self.manager
        with manager.daemon() as client:
            client.swarm.init(advertise_addr=manager.address, listen_addr=f"{manager.address}:2377")
        for node in self.nodes[1:]:
            self._take_in(node)

    def _take_in(self, node: Node) -> None:
        manager = self.manager
        with manager.daemon() as client:
            client.swarm.reload()
            token = client.swarm.attrs["JoinTokens"]["Worker"]
        with node.daemon() as client:
            client.swarm.join(
                [f"{manager.address}:2377"], token, listen_addr=f"{node.address}:2377", advertise_addr=node.address
            )

    @contextlib.contextmanager
    def left(self, node: Node) -> Iterator[None]:
        """Have a node leave the swarm, with what runs there; it joins again afterwards, as another one by its id."""
        with node.daemon() as client:
            client.swarm.leave(force=True)
        try:
            self._until(node, "down")
            yield
        finally:
            # The one that it was stays listed, as it does where nobody removes it.
            self._take_in(node)
            self._until(node, "ready")

    @contextlib.contextmanager
    def drained(self, node: Node) -> Iterator[None]:
        """Have the swarm end what runs on a node, and start nothing there; it takes parts again afterwards."""
        self._make(node, "drain")
        try:
            yield
        finally:
            self._make(node, "active")

    @contextlib.contextmanager
    def killed(self, node: Node) -> Iterator[None]:
        """Kill a node, and wait until the swarm has noticed; it is back afterwards."""
        node.kill()
        try:
            self._until(node, "down")
            yield
        finally:
            node.start()
            self._until(node, "ready")

    def _until(self, node: Node, state: str) -> None:
        wrong = f"the swarm has not noticed that {node.name} is {state}"
        until(lambda: self.state_of(node) == state, START_S, wrong)

    def _make(self, node: Node, availability: str) -> None:
        with self.manager.daemon() as client:
            for one in client.nodes.list():
                if one.attrs["Description"].get("Hostname") == node.name and one.attrs["Status"]["State"] == "ready":
                    one.update({**one.attrs["Spec"], "Availability": availability})

    @contextlib.contextmanager
    def one_more(self) -> Iterator[Node]:
        """Have one more node join the swarm; it has left, and is gone, afterwards."""
        node = self._node(len(self.nodes) + 1)
        self.nodes.append(node)
        try:
            node.plug()
            node.start()
            self._take_in(node)
            yield node
        finally:
            with contextlib.suppress(DockerException, requests.RequestException), node.daemon() as client:
                client.swarm.leave()
            self.nodes.remove(node)
            node.stop()
            self._forget(node)

    def _forget(self, node: Node) -> None:
        until(lambda: self.state_of(node) in ("down", ""), START_S, f"the swarm has not noticed that {node.name} left")
        with self.manager.daemon() as client:
            for one in client.nodes.list():
                if one.attrs["Description"]["Hostname"] == node.name:
                    client.api.remove_node(one.id, force=True)

    def state_of(self, node: Node) -> str:
        """Say how the swarm finds a node: ``ready``, ``down``…; empty: it is none of its nodes."""
        with self.manager.daemon() as client:
            listed = [one.attrs for one in client.nodes.list()]
        said = [str(one["Status"]["State"]) for one in listed if one["Description"].get("Hostname") == node.name]
        # One that has left and joined again is listed as often.
        return "ready" if "ready" in said else next(iter(said), "")

    def stop(self) -> None:
        """Leave nothing: no process, namespace, mount or file."""
        for node in self.nodes:
            node.stop()
        subprocess.run(["ip", "link", "delete", self._host], check=False, capture_output=True)
        if Path(f"/run/netns/{self._switch}").exists():
            run("ip", "netns", "delete", self._switch)
        # What the killed ones had mounted; the innermost first.
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((one for one in mounts if one.startswith(f"{self.directory}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def lab(images: Sequence[str], count: int = 3) -> Iterator[Lab]:
    """Give a swarm that is gone afterwards."""
    found = Lab(count)
    try:
        found.start(images)
        yield found
    finally:
        found.stop()


def until(question: Callable[[], bool], deadline_s: float, wrong: str) -> None:
    end = time.monotonic() + deadline_s
    while not question():
        assert time.monotonic() < end, wrong
        time.sleep(0.1)
