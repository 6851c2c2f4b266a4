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
  const paths = Array.from({ length: classes }, () => null);
  const add = (value, x, y, toX, toY) => {
    if (!value) return;
    const path = (paths[value - 1] ??= new Path2D());
    path.moveTo(x, y);
    path.lineTo(toX, toY);
  };
  lines(left, right, top, bottom, height, rowOf(labels, width, left, right), (value, y, x, end) => add(value, x, y, end, y));
  const column = columnOf(labels, width, left, right, top, bottom);
  lines(top, bottom, left, right, width, column, (value, x, y, end) => add(value, x, y, x, end));
  return paths.some(Boolean) ? paths : null;
}

const rowOf = (labels, width, left, right) => (y) => labels.subarray(y * width + left, y * width + right);

/** Columns of a tile and the one left of it, copied so that they lie in memory as rows do. */
function columnOf(labels, width, left, right, top, bottom) {
  const [size, first] = [bottom - top, Math.max(0, left - 1)];
  const turned = new Uint8Array((right - first) * size);
  for (let y = top; y < bottom; y++) {
    for (let x = first, to = y - top; x < right; x++, to += size) turned[to] = labels[y * width + x];
  }
  return (x) => turned.subarray((x - first) * size, (x - first + 1) * size);
}

/** Visit the edges between each line of a tile and the one before; beyond the image is background. */
function lines(start, end, first, last, size, lineOf, add) {
  const background = new Uint8Array(end - start);
  let before = first > 0 ? lineOf(first - 1) : background;
  // The last tile also has the edge of the image.
  for (let line = first; line < (last === size ? last + 1 : last); line++) {
    const own = line < size ? lineOf(line) : background;
    pieces(own, before, start, (value, from, to) => add(value, line, from, to));
    before = own;
  }
}

/** Long straight pieces where two lines of pixels differ, for the class on either side. */
function pieces(own, before, offset, add) {
  let from = -1; // where the current piece began
  for (let place = 0; place <= own.length; place++) {
    const differs = place < own.length && own[place] !== before[place];
    if (from >= 0 && !(differs && own[place] === own[from] && before[place] === before[from])) {
      add(own[from], from + offset, place + offset);
      add(before[from], from + offset, place + offset);
      from = -1;
    }
    if (differs && from < 0) from = place;
  }
}
