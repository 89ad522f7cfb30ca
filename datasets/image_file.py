"""One image file as an array of pixels, or the reason why not.

>>> read_image("photo.jpg", size=64).shape                                   # doctest: +SKIP
(64, 64, 3)
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..core.errors import VideoDecodeError
from .storage import open_binary

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

T = TypeVar("T")
Path = str | os.PathLike[str]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_ORIENTATION = 0x0112  # the EXIF tag

# What Pillow's readers raise on damaged files, besides OSError.
_DAMAGE = (SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, MemoryError)
_DAMAGE += (struct.error, zlib.error)


def read_image(path: Path, size: int | None = None) -> np.ndarray:
    """An image file (JPEG, PNG, WebP, BMP) as uint8 RGB ``[H, W, 3]``, turned as its EXIF data say.

    Transparency is dropped, 16-bit grey becomes 8-bit, the first frame of an animation counts.

    Args:
        size: None for the full size; else the short side is scaled to ``size`` pixels (bilinear,
            antialiased) and the centre ``size`` × ``size`` is cut out.

    Raises:
        VideoDecodeError: missing, empty, truncated, damaged, another kind of file, or so large
            that it may be a decompression bomb.
    """
    from PIL import Image, ImageOps

    def decode(image: Picture) -> np.ndarray:
        if size:
            image.draft("RGB", (2 * size, 2 * size))  # large JPEGs decode at a fraction of size
        image = _rgb(ImageOps.exif_transpose(image))
        if size:
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            image = image.resize((size, size), Image.Resampling.BILINEAR, box)
        return np.array(image)

    return _open(path, decode)


def check_image(path: Path, *, decode: bool) -> tuple[int, int, str]:
    """Height and width of an image file as shown, and its format (``jpeg``); decodes all of it if
    ``decode`` is set.

    Raises:
        VideoDecodeError: as :func:`read_image`.
    """

    def look(image: Picture) -> tuple[int, int, str]:
        if decode:
            image.load()
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        shape = (width, height) if turned else (height, width)
        return *shape, (image.format or "").lower()

    return _open(path, look)


def _open(path: Path, use: Callable[[Picture], T]) -> T:
    """``use(image)`` of the image file, or a VideoDecodeError that says what is wrong with it."""
    from PIL import Image, UnidentifiedImageError

    def bad(reason: str) -> VideoDecodeError:
        return VideoDecodeError(path, reason, "pillow")

    try:
        with open_binary(os.fspath(path)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not file.seek(0, os.SEEK_END):
                raise bad("the file is empty (0 bytes)")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                return use(image)
    except FileNotFoundError as error:
        raise bad("no such file") from error
    except IsADirectoryError as error:
        raise bad("a folder or device, not an image file") from error
    except UnidentifiedImageError as error:
        raise bad("not a JPEG, PNG, WebP or BMP image") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = f"{(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
        raise bad(f"larger than {limit}: it may be a decompression bomb") from error
    except (*_DAMAGE, OSError) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise bad(f"truncated or damaged: {said}") from error


def _rgb(image: Picture) -> Picture:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip rather than scale
        from PIL import Image

        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    return image.convert("RGB")
