"""Make the data set that travels to a GPU: python tests/gpu/make_shards.py FOLDER (`make gpu-prepare` does)."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.textured import pack_textured

MOST_BYTES = 40 * 2**20
"""It shall travel with the code: some machines take 64 MiB in all."""


def main(out: Path) -> None:
    """Forty clips to train on and eight to evaluate, 16 frames each."""
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as videos:
        index = pack_textured(Path(videos), out, train=40, val=8, num_frames=16, per_shard=8)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(index.table)} clips, {size / 2**20:.1f} MiB")
    assert size < MOST_BYTES, "too large to travel"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
