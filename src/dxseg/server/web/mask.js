// The mask as a list of steps. Konva draws each step at the image's own resolution, one group per
// class; a pixel belongs to the class that covers at least half of it.

const HALF = 128;

export class Mask {
  #steps = [];
  #done = 0;
  #labels = null;

  constructor(width, height, classes) {
    Object.assign(this, { width, height, classes });
  }

  get canUndo() { return this.#done > 1; } // the first step is the predicted mask
  get canRedo() { return this.#done < this.#steps.length; }

  /** Replace the whole mask by a label map, such as a predicted one. */
  replace(labels) {
    this.#add(true, (value) => new Konva.Image({ image: this.#classImage(labels, value) }));
  }

  clear() {
    this.#add(true, () => null);
  }

  /** Paint class `value`, or background where it is 0, along a line of (x, y) in pixels. */
  stroke(value, points, width) {
    const [x, y] = points;
    const line = points.length > 2 ? points : [x, y, x + 0.01, y]; // a dot
    const form = { points: line, stroke: "#fff", strokeWidth: width, lineCap: "round", lineJoin: "round" };
    this.#paint(value, form);
  }

  polygon(value, points) {
    this.#paint(value, { points, closed: true, fill: "#fff" });
  }

  undo() {
    if (this.canUndo) this.#go(this.#done - 1);
  }

  redo() {
    if (this.canRedo) this.#go(this.#done + 1);
  }

  /** The label map, (height x width) by rows. */
  get labels() {
    this.#labels ??= this.#draw();
    return this.#labels;
  }

  /** Pixels of each class, the first class first. */
  get areas() {
    const counts = new Array(this.classes + 1).fill(0);
    for (const value of this.labels) counts[value]++;
    return counts.slice(1);
  }

  #paint(value, form) {
    this.#add(false, (own) => {
      const globalCompositeOperation = own === value ? "source-over" : "destination-out";
      return new Konva.Line({ ...form, globalCompositeOperation });
    });
  }

  #add(whole, shape) {
    const shapes = Array.from({ length: this.classes }, (_, place) => shape(place + 1));
    this.#steps.length = this.#done;
    this.#steps.push({ whole, shapes });
    this.#go(this.#done + 1);
  }

  #go(done) {
    this.#done = done;
    this.#labels = null;
  }

  #draw() {
    const labels = new Uint8Array(this.width * this.height);
    const strongest = new Uint8Array(labels.length).fill(HALF - 1);
    const steps = this.#steps.slice(0, this.#done);
    const current = steps.slice(steps.findLastIndex((step) => step.whole));
    for (let value = 1; value <= this.classes; value++) {
      const shapes = current.map((step) => step.shapes[value - 1]).filter(Boolean);
      if (!shapes.length) continue;
      const group = new Konva.Group().add(...shapes);
      const box = { x: 0, y: 0, width: this.width, height: this.height, pixelRatio: 1 };
      const canvas = group.toCanvas({ ...box, imageSmoothingEnabled: false });
      const pixels = canvas.getContext("2d").getImageData(0, 0, this.width, this.height).data;
      for (let place = 0; place < labels.length; place++) {
        const cover = pixels[4 * place + 3];
        if (cover > strongest[place]) {
          strongest[place] = cover;
          labels[place] = value;
        }
      }
    }
    return labels;
  }

  #classImage(labels, value) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(this.width, this.height);
    labels.forEach((own, place) => { if (own === value) image.data[4 * place + 3] = 255; });
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
