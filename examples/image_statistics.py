"""Print what the images of an area detector are like, how fast they come, and what was lost.

image_statistics.py PREFIX [IMAGES] [SECONDS]

PREFIX is that of an NDPluginStdArrays, such as 13SIM1:image1:, SECONDS how long to wait for an image.
"""

import sys
import time

import epicsx


def main(prefix, images=10, seconds=10.0):
    if images < 1:
        sys.exit(f"a number of images of at least 1 is wanted, not {images}")
    with epicsx.images(prefix) as stream:
        begun = None
        for _ in range(images):
            try:
                image = stream.read(timeout=seconds)
            except epicsx.CATimeoutError as error:
                sys.exit(str(error))
            begun = begun or time.perf_counter()
            data = image.data
            if image.changed:
                print("from here on the images are of another kind")
            print(
                f"{image!r}: mean {data.mean():.2f}, min {data.min()}, max {data.max()}, "
                f"{image.lost_before} lost before"
            )
        took = time.perf_counter() - begun
        ledger = stream.ledger
    print(f"{images} images, {(images - 1) / took if took else 0:.1f} per second")
    print(
        f"{ledger.inferred_lost or 0} did not come, {ledger.dropped} were dropped, "
        f"{stream.unmatched} of these not matched"
    )
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3]), *map(float, sys.argv[3:4])))
