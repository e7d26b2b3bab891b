"""A picture for the docs: a screenshot with 256 colours, at a third of its size.

The browser decodes and counts. Kept is the most frequent colour of each region of colours, so that a red word stays
red, and then what is most frequent; the others become the nearest of these.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

_COLOURS = 256
# Returns the picture's size, its colours, and for each pixel which one it has, as base64.
_COUNT = """async ([png, most]) => {
  const blob = await (await fetch("data:image/png;base64," + png)).blob();
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const colours = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a - b);
  const regions = new Map(colours.toReversed().map((colour) => [colour & 0xe0e0e0, colour]));
  const first = new Set(regions.values());
  colours.sort((a, b) => first.has(b) - first.has(a));
  const kept = colours.slice(0, most);
  const parts = (colour) => [colour & 255, (colour >> 8) & 255, (colour >> 16) & 255];
  const distance = (a, b) => parts(a).reduce((sum, part, n) => sum + (part - parts(b)[n]) ** 2, 0);
  const nearest = (colour) =>
    kept.reduce((best, one, n) => {
      const far = distance(colour, one);
      return far < best[0] ? [far, n] : best;
    }, [Infinity, 0])[1];
  const places = new Map(colours.map((colour, n) => [colour, n < most ? n : nearest(colour)]));
  let text = "";
  for (const pixel of pixels) text += String.fromCharCode(places.get(pixel));
  return { width, height, colours: kept.map(parts), places: btoa(text) };
}"""


def with_few_colours(png: bytes, page: Page) -> bytes:
    """The same picture as a PNG with a palette.

    Args:
        page: any; it counts.
    """
    found = page.evaluate(_COUNT, [base64.b64encode(png).decode(), _COLOURS])
    width, height = found["width"], found["height"]
    places = base64.b64decode(found["places"])
    # Each row begins with its filter, 0: none, which is best with a palette.
    rows = b"".join(b"\0" + places[row * width : (row + 1) * width] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = b"".join(bytes(colour) for colour in found["colours"])
    parts = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
