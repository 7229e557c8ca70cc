"""The peers, in the order of the table. Each module knows how to install and start one of them, and nothing else."""

from __future__ import annotations

from bench.peers import channels, nchan, ours, socketio, uws
from bench.peers.base import Peer

PEERS: dict[str, Peer] = {
    peer.name: peer for peer in (ours.OURS, channels.PUBSUB, channels.CORE, socketio.SOCKETIO, nchan.NCHAN, uws.UWS)
}
