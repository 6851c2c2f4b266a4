// A random walk with a prior (Grady, CVPR 2005): the chance of each pixel to belong to what was clicked.
// Own code: scikit-image's random walker knows seeds only, no prior, and would need a request for each click.

const PRECISION = 1e-4; // of the solution, relative; the mask is cut at 0.5
const MOST = 400; // steps of conjugate gradients

/**
 * Solve it on a grid { width, height }, by rows: `gray` are gray values of 0 to 1; `seeds` are 1 inside, 0 outside and -1
 * where it is asked; `prior` is the chance before any click and `trust` how much it counts against an edge of
 * weight 1. `contrast` is the difference of gray that makes a step 1/e as likely.
 */
export function walk({ gray, seeds, prior, trust }, { width, height }, contrast) {
  const count = gray.length;
  const [right, down] = [new Float32Array(count), new Float32Array(count)];
  const diagonal = Float32Array.from(trust, (value) => value + 1e-6);
  const weight = (one, other) => Math.exp(-(((gray[one] - gray[other]) / contrast) ** 2)) + 1e-3;
  for (let place = 0; place < count; place++) {
    if (place % width < width - 1) right[place] = weight(place, place + 1);
    if (place < count - width) down[place] = weight(place, place + width);
    diagonal[place] += right[place] + down[place];
    if (right[place]) diagonal[place + 1] += right[place];
    if (down[place]) diagonal[place + width] += down[place];
  }
  /** The system's left side; rows of seeds are 0. */
  const apply = (from, to) => {
    for (let place = 0; place < count; place++) to[place] = diagonal[place] * from[place];
    for (let place = 0; place < count; place++) {
      const value = from[place];
      if (right[place]) {
        to[place] -= right[place] * from[place + 1];
        to[place + 1] -= right[place] * value;
      }
      if (down[place]) {
        to[place] -= down[place] * from[place + width];
        to[place + width] -= down[place] * value;
      }
    }
  };
  const chance = Float32Array.from(prior, (value, place) => (seeds[place] < 0 ? value : seeds[place]));
  const constant = Float32Array.from(prior, (value, place) => trust[place] * value);
  solve(apply, diagonal, constant, chance, seeds);
  return chance;
}

/** Conjugate gradients with the diagonal as preconditioner, for the places that are no seeds. */
function solve(apply, diagonal, constant, chance, seeds) {
  const count = chance.length;
  const product = new Float32Array(count);
  apply(chance, product);
  const rest = product.map((value, place) => (seeds[place] < 0 ? constant[place] - value : 0));
  const step = rest.map((value, place) => value / diagonal[place]);
  let size = sum(rest, (value, place) => (value * value) / diagonal[place]);
  const enough = PRECISION ** 2 * Math.max(size, 1e-9);
  for (let round = 0; round < MOST && size > enough; round++) {
    apply(step, product);
    const length = size / sum(step, (value, place) => value * product[place]);
    let next = 0;
    for (let place = 0; place < count; place++) {
      if (seeds[place] >= 0) continue;
      chance[place] += length * step[place];
      rest[place] -= length * product[place];
      next += (rest[place] * rest[place]) / diagonal[place];
    }
    const turn = next / size;
    for (let place = 0; place < count; place++) {
      if (seeds[place] < 0) step[place] = rest[place] / diagonal[place] + turn * step[place];
    }
    size = next;
  }
}

function sum(values, of) {
  let total = 0;
  for (let place = 0; place < values.length; place++) total += of(values[place], place);
  return total;
}
