"""Acquire a waveform, every frame of it: how fast they come, their mean, what was lost; and save them.

    waveform_acquisition.py PV [FRAMES] [FILE.npy]

It uses epicsx's own interface: frames arrive in blocks, each one array of (frames, samples).
"""

import sys
import time

import numpy as np

import epicsx

BLOCK = 10


def main(name, frames=100, path=None):
    blocks = []
    with epicsx.stream(name, block=BLOCK, depth=64 * BLOCK) as stream:
        blocks.append(stream.read(timeout=10))
        begun = time.perf_counter()
        while sum(map(len, blocks)) < frames:
            blocks.append(stream.read(timeout=10))
        seconds = time.perf_counter() - begun
        ledger = stream.ledger
    shapes = {block.data.shape[1:] for block in blocks}
    taken = sum(map(len, blocks))
    size = sum(block.data.nbytes for block in blocks)
    if len(blocks) > 1:
        rate = (taken - len(blocks[0])) / seconds
        print(f"{taken} frames in {len(blocks)} blocks, {size / 1e6:.1f} MB; {rate:.1f} frames/s")
    lost = sum(int(block.lost_before.sum()) for block in blocks)
    print(f"lost among them: {lost}; all that came: {ledger.received}, dropped: {ledger.dropped}")
    if len(shapes) > 1:
        sys.exit(f"the frames are of different lengths: {sorted(shapes)}")
    data = np.concatenate([block.data for block in blocks])
    stamps = np.concatenate([block.timestamp_ns for block in blocks])
    apart = f"{np.diff(stamps).mean() * 1e-6:.2f} ms" if taken > 1 else "alone"
    print(f"{data.shape[1]} samples of {data.dtype}, mean {data.mean():.6g}, frames {apart} apart")
    if path:
        np.save(path, data)
        print(f"saved as {path}")
    return 1 if lost else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3]), *sys.argv[3:4]))
