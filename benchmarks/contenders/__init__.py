"""Everything that serves iris in the comparison, one file each, in the order of the table."""

from benchmarks.contenders.bare import Bare
from benchmarks.contenders.contender import Contender, ContenderUnavailable, Server
from benchmarks.contenders.litserve import LitServe, LitServeBatching
from benchmarks.contenders.mlserver import MLServer, MLServerBatching
from benchmarks.contenders.mosec import Mosec, MosecBatching
from benchmarks.contenders.nstarx import NStarX
from benchmarks.contenders.serve_best import ServeBest
from benchmarks.contenders.serve_default import ServeDefault

CONTENDERS: tuple[type[Contender], ...] = (NStarX, ServeDefault, ServeBest, Bare)
PEERS: tuple[type[Contender], ...] = (LitServe, LitServeBatching, MLServer, MLServerBatching, Mosec, MosecBatching)

__all__ = ["CONTENDERS", "PEERS", "Contender", "ContenderUnavailable", "Server"]
