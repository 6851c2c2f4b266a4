// A label map in the colors of its classes, in tiles: a browser copies a whole canvas after each change.

import { color } from "./colors.js";

const TILE = 512; // pixels

export class Fill {
  opacity = 0.2;
  #tiles = new Map(); // "column,row" -> { canvas, x, y }

  /** Paint what a box touches; tiles without a class take no memory. */
  update(labels, size, classes, box) {
    const colors = Uint32Array.from({ length: classes + 1 }, (_, value) => (value ? packed(color(value)) : 0));
    for (let y = box.y - (box.y % TILE); y < box.y + box.height; y += TILE) {
      for (let x = box.x - (box.x % TILE); x < box.x + box.width; x += TILE) {
        const tile = { x, y, width: Math.min(TILE, size.width - x), height: Math.min(TILE, size.height - y) };
        this.#paint(labels, size.width, colors, tile, common(tile, box));
      }
    }
  }

  clear() { this.#tiles.clear(); }

  /** Draw all tiles; their edges lie on screen pixels, so that no seams show. */
  draw(context) {
    const { a: scale, e: left, f: top } = context.getTransform();
    context.save();
    context.resetTransform();
    context.globalAlpha = this.opacity;
    context.imageSmoothingEnabled = false;
    for (const { canvas, x, y } of this.#tiles.values()) {
      const [fromX, fromY] = [Math.round(x * scale + left), Math.round(y * scale + top)];
      const [toX, toY] = [Math.round((x + canvas.width) * scale + left), Math.round((y + canvas.height) * scale + top)];
      context.drawImage(canvas, fromX, fromY, toX - fromX, toY - fromY);
    }
    context.restore();
  }

  #paint(labels, width, colors, tile, box) {
    const image = new ImageData(box.width, box.height);
    const pixels = new Uint32Array(image.data.buffer);
    let filled = 0;
    for (let row = 0, place = 0; row < box.height; row++) {
      let from = (box.y + row) * width + box.x;
      for (const end = from + box.width; from < end; from++, place++) filled |= pixels[place] = colors[labels[from]];
    }
    const name = `${tile.x},${tile.y}`;
    if (!filled && !this.#tiles.has(name)) return;
    const canvas = this.#tiles.get(name)?.canvas ?? new OffscreenCanvas(tile.width, tile.height);
    canvas.getContext("2d").putImageData(image, box.x - tile.x, box.y - tile.y);
    this.#tiles.set(name, { canvas, x: tile.x, y: tile.y });
  }
}

/** What two boxes have in common. */
function common(one, other) {
  const [x, y] = [Math.max(one.x, other.x), Math.max(one.y, other.y)];
  const end = (start, size) => Math.min(one[start] + one[size], other[start] + other[size]);
  return { x, y, width: end("x", "width") - x, height: end("y", "height") - y };
}

function packed(text) {
  const [red, green, blue] = text.match(/\w\w/g).map((part) => parseInt(part, 16));
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
}
