// Outlines of a label map in tiles: after a change only the tiles it touches are traced again.

const TILE = 256; // pixels

export class Outline {
  #tiles = new Map(); // "column,row" -> [Path2D of class 1, of class 2, ...]

  /** Trace the tiles that a box touches. */
  update(labels, { width, height }, classes, box) {
    const last = (size) => Math.floor((size - 1) / TILE);
    const from = (start) => Math.max(0, Math.floor((start - 1) / TILE));
    const to = (end, size) => Math.min(last(size), Math.floor(end / TILE));
    for (let row = from(box.y); row <= to(box.y + box.height, height); row++) {
      for (let column = from(box.x); column <= to(box.x + box.width, width); column++) {
        const paths = trace(labels, { width, height }, classes, column * TILE, row * TILE);
        if (paths) this.#tiles.set(`${column},${row}`, paths);
        else this.#tiles.delete(`${column},${row}`);
      }
    }
  }

  clear() { this.#tiles.clear(); }

  /** Stroke the outline of a class, the first class is 1, in the context's style. */
  stroke(context, value) {
    for (const paths of this.#tiles.values()) if (paths[value - 1]) context.stroke(paths[value - 1]);
  }
}

/** The edges between the pixels of a tile and those left of and above them; null without any. */
function trace(labels, { width, height }, classes, left, top) {
  const right = Math.min(left + TILE, width);
  const bottom = Math.min(top + TILE, height);
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x]);
  // The last tile also has the edges of the image.
  const [endX, endY] = [right === width ? right + 1 : right, bottom === height ? bottom + 1 : bottom];
  const paths = Array.from({ length: classes }, () => null);
  const add = (value, x, y, toX, toY) => {
    if (!value) return;
    const path = (paths[value - 1] ??= new Path2D());
    path.moveTo(x, y);
    path.lineTo(toX, toY);
  };
  for (let y = top; y < endY; y++) {
    pieces(left, right, (x) => at(x, y), (x) => at(x, y - 1), (value, x, end) => add(value, x, y, end, y));
  }
  for (let x = left; x < endX; x++) {
    pieces(top, bottom, (y) => at(x, y), (y) => at(x - 1, y), (value, y, end) => add(value, x, y, x, end));
  }
  return paths.some(Boolean) ? paths : null;
}

/** Long straight pieces where two lines of pixels differ, for the class on either side. */
function pieces(start, end, one, other, add) {
  let [from, values] = [start, null];
  const close = (place) => { if (values) values.forEach((value) => add(value, from, place)); };
  for (let place = start; place < end; place++) {
    const [first, second] = [one(place), other(place)];
    if (first === second) {
      close(place);
      values = null;
    } else if (!values || values[0] !== first || values[1] !== second) {
      close(place);
      [from, values] = [place, [first, second]];
    }
  }
  close(end);
}
