"""Search: hard negatives for rows of pairs, by words (BM25) and by vectors, and an index folder to be searched by hand.

`mine_negatives` (negatives.py) is what training uses; `nearest` (dense.py) is the exact search that evaluation uses.
"""

from synth.retrieval.dense import DenseSearch, Encode, encoded, encoded_blocks, nearest
from synth.retrieval.negatives import Found, Mined, Rescore, mine_negatives
from synth.retrieval.options import MiningOptions
from synth.retrieval.ranking import Ranking

__all__ = [
    "DenseSearch",
    "Encode",
    "Found",
    "Mined",
    "MiningOptions",
    "Ranking",
    "Rescore",
    "encoded",
    "encoded_blocks",
    "mine_negatives",
    "nearest",
]
