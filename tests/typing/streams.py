"""Streams, images and recordings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import epicsx


def frames() -> None:
    with epicsx.stream("w", depth=8, overflow="error", coherent=False) as stream:
        assert_type(stream, epicsx.Stream)
        assert_type(stream.ledger, epicsx.Ledger)
        assert_type(stream.coherent, bool | None)
        frame: epicsx.Frame = stream.read(timeout=1.0)
        assert_type(frame.data, NDArray[Any])
        assert_type(frame.lost_before, int)
        assert_type(frame.gap, bool)
        assert_type(np.asarray(frame), NDArray[Any])
    assert_type(epicsx.Channel("w").stream(block=10), epicsx.Stream)


def blocks(block: epicsx.Block) -> None:
    assert_type(block.timestamp_ns, NDArray[np.int64])
    assert_type(block.gap, NDArray[np.bool_])
    assert_type(len(block), int)


def images() -> None:
    with epicsx.images("13SIM1:image1:") as images:
        assert_type(images, epicsx.ImageStream)
        image = images.read(timeout=2.0)
        assert_type(image, epicsx.Image)
        assert_type(image.unique_id, int | None)
        for each in images:
            assert_type(each, epicsx.Image)


async def async_frames() -> None:
    async with epicsx.stream("w") as stream:
        async for frame in stream:
            print(frame)
