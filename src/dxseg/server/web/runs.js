// Run lengths of COCO, uncompressed: down the columns, 0 first. Label maps are Uint8Array by rows.

/** The runs of one class of a label map. */
export function encode(labels, height, width, value) {
  const counts = [];
  let inside = false;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if ((labels[y * width + x] === value) !== inside) {
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

/** Write a class into a label map. */
export function decode({ size: [height, width], counts }, value, labels) {
  let place = 0;
  counts.forEach((length, number) => {
    for (const end = place + length; place < end; place++) {
      if (number % 2) labels[(place % height) * width + Math.floor(place / height)] = value;
    }
  });
}
