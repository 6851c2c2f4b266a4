// Run lengths of COCO, uncompressed: down the columns, 0 first. Label maps are Uint8Array by rows.

import { boxOf } from "./raster.js";

/** The runs of all classes of a mask, by name. */
export function encode(mask, classes) {
  return Object.fromEntries(classes.map((name, place) => [name, encodeClass(mask, place + 1)]));
}

/** The label map of runs by class name; throws an Error where classes or size are others. */
export function decode(runs, classes, { width, height }) {
  const found = Object.keys(runs);
  if (found.length !== classes.length || !classes.every((name) => found.includes(name))) {
    throw new Error(`A mask of the classes ${found.join(", ")} does not fit a model of ${classes.join(", ")}.`);
  }
  for (const name of classes) {
    const [high, wide] = runs[name].size;
    if (high !== height || wide !== width) throw new Error(`A mask of ${wide} x ${high} pixels does not fit the image of ${width} x ${height}.`);
  }
  const labels = new Uint8Array(width * height);
  classes.forEach((name, place) => decodeClass(runs[name], place + 1, labels));
  return labels;
}

/** Only the box of the class is visited: most of a large image is background. */
function encodeClass(mask, value) {
  const { labels, height, width } = mask;
  const box = boxOf(labels, mask, value);
  if (!box) return { size: [height, width], counts: [height * width] };
  const counts = [];
  let inside = false;
  let length = box.x * height;
  const turn = () => {
    counts.push(length);
    inside = !inside;
    length = 0;
  };
  for (let x = box.x; x < box.x + box.width; x++) {
    if (inside && box.y) turn(); // a run that reaches the lower edge
    length += box.y;
    for (let y = box.y, place = y * width + x; y < box.y + box.height; y++, place += width) {
      if ((labels[place] === value) !== inside) turn();
      length++;
    }
    length += height - box.y - box.height;
  }
  counts.push(length + (width - box.x - box.width) * height);
  return { size: [height, width], counts };
}

function decodeClass({ size: [height, width], counts }, value, labels) {
  let place = 0;
  counts.forEach((length, number) => {
    for (const end = place + length; place < end; place++) {
      if (number % 2) labels[(place % height) * width + Math.floor(place / height)] = value;
    }
  });
}
