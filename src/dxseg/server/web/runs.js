// Run lengths of COCO, uncompressed: down the columns, 0 first. Label maps are Uint8Array by rows.

/** The runs of all classes of a mask, by name. */
export function encode(mask, classes) {
  return Object.fromEntries(classes.map((name, place) => [name, encodeClass(mask, place + 1)]));
}

/** The label map of runs by class name. */
export function decode(runs, classes, { width, height }) {
  const labels = new Uint8Array(width * height);
  classes.forEach((name, place) => decodeClass(runs[name], place + 1, labels));
  return labels;
}

export function encodeClass({ labels, height, width }, value) {
  const counts = [];
  let inside = false;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, place = x; y < height; y++, place += width) {
      if ((labels[place] === value) !== inside) {
        counts.push(length);
        inside = !inside;
        length = 0;
      }
      length++;
    }
  }
  counts.push(length);
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
