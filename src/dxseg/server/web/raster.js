// Shapes as pixels, and regions of a label map: functions of plain arrays.
// A box is { x, y, width, height } in pixels of the image.

const HALF = 128;

/** The smallest box around (x, y, x, y, ...) and a margin, cut at the image. */
export function boxAround(points, margin, { width, height }) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let at = 0; at < points.length; at += 2) {
    left = Math.min(left, points[at]);
    right = Math.max(right, points[at]);
    top = Math.min(top, points[at + 1]);
    bottom = Math.max(bottom, points[at + 1]);
  }
  const x = Math.max(0, Math.floor(left - margin));
  const y = Math.max(0, Math.floor(top - margin));
  return {
    x, y,
    width: Math.max(0, Math.min(width, Math.ceil(right + margin)) - x),
    height: Math.max(0, Math.min(height, Math.ceil(bottom + margin)) - y),
  };
}

/** Which pixels of a box a round brush along a line covers at least half. */
export function lineCover(points, width, box) {
  return cover(box, (context) => {
    const [x, y] = points;
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    path(context, points.length > 2 ? points : [x, y, x + 0.01, y]); // a dot
    context.stroke();
  });
}

/** Which pixels of a box a polygon covers at least half. */
export function polygonCover(points, box) {
  return cover(box, (context) => {
    path(context, points);
    context.fill();
  });
}

function path(context, points) {
  context.beginPath();
  for (let at = 0; at < points.length; at += 2) context.lineTo(points[at], points[at + 1]);
}

function cover(box, draw) {
  const context = new OffscreenCanvas(box.width, box.height).getContext("2d", { willReadFrequently: true });
  context.translate(-box.x, -box.y);
  draw(context);
  const { data } = context.getImageData(0, 0, box.width, box.height);
  const covered = new Uint8Array(box.width * box.height);
  for (let place = 0; place < covered.length; place++) covered[place] = data[4 * place + 3] >= HALF ? 1 : 0;
  return covered;
}

/** Copy a box out of a label map of a width. */
export function cut(labels, width, box) {
  const part = new Uint8Array(box.width * box.height);
  for (let row = 0; row < box.height; row++) {
    const start = (box.y + row) * width + box.x;
    part.set(labels.subarray(start, start + box.width), row * box.width);
  }
  return part;
}

/** Copy a box into a label map of a width. */
export function paste(part, labels, width, box) {
  for (let row = 0; row < box.height; row++) {
    labels.set(part.subarray(row * box.width, (row + 1) * box.width), (box.y + row) * width + box.x);
  }
}

/** The box of a class and one pixel around it, cut at the image; null without the class. */
export function boxOf(labels, { width, height }, value) {
  const points = [];
  let [left, right] = [Infinity, -1];
  for (let y = 0; y < height; y++) {
    const row = labels.subarray(y * width, (y + 1) * width);
    const first = row.indexOf(value);
    if (first < 0) continue;
    left = Math.min(left, first);
    right = Math.max(right, row.lastIndexOf(value));
    if (!points.length) points.push(y);
    points[1] = y;
  }
  return points.length ? boxAround([left, points[0], right + 1, points[1] + 1], 1, { width, height }) : null;
}

/** Fill background that a class encloses; `part` is a box with a margin around the class. */
export function fillHoles(part, box, value) {
  const outside = new Uint8Array(part.length);
  const stack = [];
  const enter = (place) => {
    if (!outside[place] && part[place] !== value) {
      outside[place] = 1;
      stack.push(place);
    }
  };
  for (let x = 0; x < box.width; x++) { enter(x); enter((box.height - 1) * box.width + x); }
  for (let y = 0; y < box.height; y++) { enter(y * box.width); enter((y + 1) * box.width - 1); }
  while (stack.length) neighbors(stack.pop(), box, enter);
  return part.map((own, place) => (own === 0 && !outside[place] ? value : own));
}

/** Keep the largest connected part of a class. */
export function keepLargest(part, box, value) {
  const numbers = new Int32Array(part.length);
  const sizes = [0];
  for (let start = 0; start < part.length; start++) {
    if (part[start] !== value || numbers[start]) continue;
    const number = sizes.length;
    let size = 0;
    const stack = [start];
    numbers[start] = number;
    while (stack.length) {
      size++;
      neighbors(stack.pop(), box, (place) => {
        if (part[place] === value && !numbers[place]) {
          numbers[place] = number;
          stack.push(place);
        }
      });
    }
    sizes.push(size);
  }
  const largest = sizes.reduce((best, size, number) => (size > sizes[best] ? number : best), 0);
  return part.map((own, place) => (own === value && numbers[place] !== largest ? 0 : own));
}

/** Visit the four pixels beside one. */
export function neighbors(place, { width, height }, visit) {
  const x = place % width;
  if (x > 0) visit(place - 1);
  if (x < width - 1) visit(place + 1);
  if (place >= width) visit(place - width);
  if (place < (height - 1) * width) visit(place + width);
}

/** Dice of two label maps: lesion of any class. */
export function dice(one, other) {
  let [both, sum] = [0, 0];
  for (let place = 0; place < one.length; place++) {
    const [first, second] = [one[place] > 0, other[place] > 0];
    both += first && second;
    sum += first + second;
  }
  return sum ? (2 * both) / sum : 1;
}
