// The region that a box or a click proposes: a random walk on the image. Its prior is what is drawn and the model's map,
// and around a click what is as light as the place of the click.

import { boxAround } from "./raster.js";
import { walk } from "./walk.js";

const SIDE = 96; // cells of the grid, at most
const POINTS = 3; // of the image on each side of a cell
const BINS = 16; // of the gray values of a box
export const tuned = {
  contrast: 0.035, // of gray values 0 to 1: a step over it is unlikely
  trust: 0.002, // in the prior, after a click
  trustInBox: 0.05,
  drawn: 0.9, // how much what is drawn counts in it; the model's map counts the rest
  reach: 1.5, // of a click's radius: how far its gray value counts
  alike: 0.25, // of gray values: how far they are alike
  sure: 0.3, // of a click's radius: what surely belongs to it
  first: 0.12, // of the image's longer side: the radius of a click where nothing is drawn
};

/**
 * Propose a region of an image { width, height }.
 *
 * `gray(x, y)` and `map(x, y)` are values of 0 to 1, `drawn(x, y)` is whether a pixel is drawn. `clicks` are
 * { x, y, inside }; the last one says that it is wrong there, in the middle of what is wrong. `frame` is a box around
 * the region, instead of a click. Returns the box that was decided about, and which of its pixels are `covered`.
 */
export function propose(picture, clicks, frame, image) {
  const last = clicks.at(-1);
  const radius = last ? radiusOf(last, picture.drawn, image) : 0;
  const box = frame ? grown(frame, 0.25, image) : around(last, Math.max(3 * radius, 16), image);
  const scale = Math.min(1, SIDE / Math.max(box.width, box.height));
  const grid = { width: Math.max(2, Math.round(box.width * scale)), height: Math.max(2, Math.round(box.height * scale)) };
  const cell = { x: box.width / grid.width, y: box.height / grid.height };
  const at = ({ x, y }) => ({ x: (x - box.x) / cell.x, y: (y - box.y) / cell.y });
  const cells = sample(picture, box, grid, cell);
  const seeds = new Int8Array(grid.width * grid.height).fill(-1);
  if (frame) fence(cells, seeds, { from: at(frame), to: at({ x: frame.x + frame.width, y: frame.y + frame.height }) }, grid);
  for (const click of clicks) mark(seeds, at(click), click === last ? (tuned.sure * radius) / cell.x : 1, click.inside, grid);
  if (last) lean(cells, at(last), (tuned.reach * radius) / cell.x, last.inside, grid);
  const trust = new Float32Array(seeds.length).fill(frame ? tuned.trustInBox : tuned.trust);
  const chance = walk({ ...cells, seeds, trust }, grid, tuned.contrast);
  return { box, covered: cover(chance, grid, box, cell) };
}

/** How far it is from a click to the next pixel that is right there: drawn, or not. */
function radiusOf({ x, y }, drawn, { width, height }) {
  const most = tuned.first * Math.max(width, height);
  const own = drawn(Math.floor(x), Math.floor(y));
  let nearest = most ** 2;
  const [left, right] = [Math.max(0, Math.floor(x - most)), Math.min(width - 1, Math.ceil(x + most))];
  for (let row = Math.max(0, Math.floor(y - most)); row <= Math.min(height - 1, y + most); row++) {
    const above = (row + 0.5 - y) ** 2;
    for (let column = left; column <= right && above < nearest; column++) {
      if (drawn(column, row) !== own) nearest = Math.min(nearest, above + (column + 0.5 - x) ** 2);
    }
  }
  return Math.max(Math.sqrt(nearest), 1.5);
}

function around({ x, y }, half, image) { return boxAround([x - half, y - half, x + half, y + half], 0, image); }

function grown({ x, y, width, height }, share, image) {
  return boxAround([x - share * width, y - share * height, x + (1 + share) * width, y + (1 + share) * height], 0, image);
}

/** Means of the image over the cells, and the prior before clicks. */
function sample({ gray, map, drawn }, box, grid, cell) {
  const count = grid.width * grid.height;
  const cells = { gray: new Float32Array(count), prior: new Float32Array(count), map: new Float32Array(count) };
  const points = POINTS ** 2;
  for (let place = 0; place < count; place++) {
    const [column, row] = [place % grid.width, Math.floor(place / grid.width)];
    let [light, marked] = [0, 0];
    for (let point = 0; point < points; point++) {
      const x = Math.floor(box.x + (column + ((point % POINTS) + 0.5) / POINTS) * cell.x);
      const y = Math.floor(box.y + (row + (Math.floor(point / POINTS) + 0.5) / POINTS) * cell.y);
      light += gray(x, y);
      marked += drawn(x, y);
    }
    cells.map[place] = map(box.x + (column + 0.5) * cell.x, box.y + (row + 0.5) * cell.y);
    cells.gray[place] = light / points;
    cells.prior[place] = (tuned.drawn * marked) / points + (1 - tuned.drawn) * cells.map[place];
  }
  return cells;
}

/** Visit the cells with their distance from a place. */
function eachFrom({ x, y }, { width, height }, visit) {
  for (let place = 0; place < width * height; place++) {
    visit(place, Math.hypot((place % width) + 0.5 - x, Math.floor(place / width) + 0.5 - y));
  }
}

function mark(seeds, at, radius, inside, grid) {
  eachFrom(at, grid, (place, distance) => {
    if (distance <= Math.max(radius, 0.8)) seeds[place] = inside ? 1 : 0;
  });
}

/** Around a click, what is as light as its place is likely to belong to it. */
function lean({ gray, prior }, at, reach, inside, grid) {
  let [sum, count] = [0, 0];
  eachFrom(at, grid, (place, distance) => {
    if (distance > Math.max(reach / 3, 1)) return;
    sum += gray[place];
    count++;
  });
  const light = sum / Math.max(count, 1);
  eachFrom(at, grid, (place, distance) => {
    const alike = Math.exp(-(((gray[place] - light) / tuned.alike) ** 2));
    const weight = Math.exp(-((distance / reach) ** 2)) * alike;
    prior[place] = (1 - weight) * prior[place] + weight * inside;
  });
}

/** Nothing is outside of a box; inside, what is in its middle, or as light as that, is likely. */
function fence({ gray, prior, map }, seeds, { from, to }, grid) {
  const radius = new Float32Array(seeds.length); // 1 on the ellipse that touches the box
  const counts = { inside: new Float32Array(BINS).fill(1), outside: new Float32Array(BINS).fill(1) };
  const bin = (value) => Math.min(BINS - 1, Math.floor(value * BINS));
  for (let place = 0; place < seeds.length; place++) {
    const [column, row] = [(place % grid.width) + 0.5, Math.floor(place / grid.width) + 0.5];
    const [x, y] = [(2 * (column - from.x)) / (to.x - from.x) - 1, (2 * (row - from.y)) / (to.y - from.y) - 1];
    radius[place] = Math.hypot(x, y);
    if (Math.abs(x) > 1 || Math.abs(y) > 1) {
      seeds[place] = 0;
      counts.outside[bin(gray[place])]++;
    } else if (radius[place] < 0.7) counts.inside[bin(gray[place])]++;
    if (radius[place] < 0.4) seeds[place] = 1;
  }
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const [inside, outside] = [total(counts.inside), total(counts.outside)];
  const known = map.some((value) => value > 0.3);
  for (let place = 0; place < seeds.length; place++) {
    const [own, other] = [counts.inside[bin(gray[place])] / inside, counts.outside[bin(gray[place])] / outside];
    const round = 1 / (1 + Math.exp(8 * (radius[place] - 0.95)));
    const guess = 0.6 * round + (0.4 * own) / (own + other);
    prior[place] = known ? 0.6 * guess + 0.4 * map[place] : guess;
  }
}

/** The pixels of a box where the chance, between the centers of the cells, is at least a half. */
function cover(chance, grid, box, cell) {
  const covered = new Uint8Array(box.width * box.height);
  const across = between(box.width, grid.width, cell.x);
  const down = between(box.height, grid.height, cell.y);
  const line = new Float32Array(grid.width);
  for (let row = 0, place = 0; row < box.height; row++) {
    const [top, low, part] = [down.first[row] * grid.width, down.second[row] * grid.width, down.part[row]];
    for (let column = 0; column < grid.width; column++) {
      line[column] = chance[top + column] * (1 - part) + chance[low + column] * part;
    }
    for (let column = 0; column < box.width; column++, place++) {
      const right = across.part[column];
      covered[place] = line[across.first[column]] * (1 - right) + line[across.second[column]] * right >= 0.5;
    }
  }
  return covered;
}

/** For each pixel of a side the two cells that it lies between, and how far it is from the first. */
function between(pixels, cells, size) {
  const found = { first: new Uint16Array(pixels), second: new Uint16Array(pixels), part: new Float32Array(pixels) };
  for (let pixel = 0; pixel < pixels; pixel++) {
    const at = Math.min(Math.max((pixel + 0.5) / size - 0.5, 0), cells - 1);
    found.first[pixel] = Math.floor(at);
    found.second[pixel] = Math.min(Math.floor(at) + 1, cells - 1);
    found.part[pixel] = at - Math.floor(at);
  }
  return found;
}
