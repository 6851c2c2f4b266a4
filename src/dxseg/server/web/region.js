// The region around a click: where the model's own map, at another threshold, is connected with it.

import { boxAround, neighbors } from "./raster.js";

const START = 0.5; // of the probability at the click
const STEP = 0.8; // of the threshold, for each step larger
const LEAST = 2; // of 255: below it the map says nothing

/**
 * The pixels of the region as { box, covered }; null where the map says nothing.
 * `map` is an image of a class's probability, smaller than the image or equal; `level` steps larger.
 */
export function growRegion(map, { width, height }, { x, y }, level) {
  const levels = grays(map);
  const scale = { x: map.width / width, y: map.height / height };
  const start = Math.floor(y * scale.y) * map.width + Math.floor(x * scale.x);
  const threshold = START * levels[start] * STEP ** level;
  if (!(levels[start] >= LEAST) || threshold >= levels[start] || threshold < 0.5) return null;
  const { inside, points } = connected(levels, map, start, threshold);
  const box = boxAround(points.map((value, at) => value / (at % 2 ? scale.y : scale.x)), 2, { width, height });
  const covered = new Uint8Array(box.width * box.height);
  for (let row = 0, place = 0; row < box.height; row++) {
    for (let column = 0; column < box.width; column++, place++) {
      const at = { x: (box.x + column + 0.5) * scale.x - 0.5, y: (box.y + row + 0.5) * scale.y - 0.5 };
      const near = within(Math.round(at.y), map.height) * map.width + within(Math.round(at.x), map.width);
      covered[place] = inside[near] && interpolate(levels, map, at) >= threshold ? 1 : 0;
    }
  }
  return { box, covered };
}

/** The values of a map at places of an image, 0 to 1, as a function of x and y. */
export function mapOf(map, { width, height }) {
  const levels = grays(map);
  return (x, y) => levels[Math.floor((y * map.height) / height) * map.width + Math.floor((x * map.width) / width)] / 255;
}

function grays(map) {
  const context = new OffscreenCanvas(map.width, map.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0);
  const { data } = context.getImageData(0, 0, map.width, map.height);
  return Uint8Array.from({ length: map.width * map.height }, (_, place) => data[4 * place]);
}

/** The part of a map that is connected with a place, its edge one pixel wider; and the corners of its box. */
function connected(levels, { width, height }, start, threshold) {
  const inside = new Uint8Array(levels.length);
  let [left, top, right, bottom] = [width, height, 0, 0];
  const stack = [start];
  inside[start] = 1;
  while (stack.length) {
    const place = stack.pop();
    const [x, y] = [place % width, Math.floor(place / width)];
    [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
    if (levels[place] < threshold) continue; // the edge
    neighbors(place, { width, height }, (other) => {
      if (!inside[other]) {
        inside[other] = 1;
        stack.push(other);
      }
    });
  }
  return { inside, points: [left, top, right, bottom] };
}

function within(value, size) { return Math.min(Math.max(value, 0), size - 1); }

function interpolate(levels, { width, height }, { x, y }) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const at = (column, row) => levels[within(row, height) * width + within(column, width)];
  const across = (row) => at(left, row) * (left + 1 - x) + at(left + 1, row) * (x - left);
  return across(top) * (top + 1 - y) + across(top + 1) * (y - top);
}
