// The image and its overlays: evidence, mask, outlines, the unfinished stroke, the cross.

import { color } from "./colors.js";

const NEAREST = 40; // screen pixels per image pixel
const CROSS = 12;

export class View {
  #stage;
  #image = new Konva.Layer({ listening: false, imageSmoothingEnabled: false });
  #evidence = new Konva.Layer({ listening: false });
  #drawing = new Konva.Layer({ listening: false, imageSmoothingEnabled: false });
  #mask = new Konva.Group();
  #unfinished = new Konva.Line({ visible: false, lineCap: "round", lineJoin: "round", opacity: 0.6 });
  #cross = new Konva.Path({ visible: false, stroke: "#00e5ff", strokeWidth: 2, strokeScaleEnabled: false });

  constructor(element) {
    this.element = element;
    this.width = this.height = 0;
    this.#stage = new Konva.Stage({ container: element, width: 10, height: 10 });
    this.#drawing.add(this.#mask, this.#unfinished, this.#cross);
    this.#stage.add(this.#image, this.#evidence, this.#drawing);
    element.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, this.at(event));
    }, { passive: false });
    new ResizeObserver(() => this.fit()).observe(element);
  }

  /** Position of an event in screen pixels, from the corner of the view. */
  at({ clientX, clientY }) {
    const { left, top } = this.element.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  }

  /** Position of an event in pixels of the image. */
  place(event) {
    const { x, y } = this.at(event);
    return { x: (x - this.#stage.x()) / this.scale, y: (y - this.#stage.y()) / this.scale };
  }

  show(image, classes) {
    const other = image.width !== this.width || image.height !== this.height;
    Object.assign(this, { width: image.width, height: image.height });
    this.#image.destroyChildren();
    this.#image.add(new Konva.Image({ image }));
    this.#mask.destroyChildren();
    for (let value = 1; value <= classes; value++) this.#mask.add(new Konva.Image(), outline(value));
    if (other) this.fit();
  }

  /** Show a map (gray levels) over the image, more opaque where it is higher. */
  showEvidence(map, opacity) {
    this.#evidence.destroyChildren();
    if (map) {
      const image = tinted(map);
      this.#evidence.add(new Konva.Image({ image, width: this.width, height: this.height, opacity }));
    }
  }

  showMask(labels, visible) {
    this.#mask.visible(visible);
    this.#mask.children.forEach((node, place) => {
      const value = (place >> 1) + 1;
      if (place % 2) node.setAttr("lines", edges(labels, this.width, this.height, value));
      else node.image(filled(labels, this.width, this.height, value));
    });
    this.#drawing.batchDraw();
  }

  /** Show what is being drawn; no points hide it. */
  showUnfinished(points, attributes = {}) {
    this.#unfinished.setAttrs({ points, visible: points.length > 0, ...attributes });
  }

  showCross(point) {
    if (point) {
      const method = CROSS / this.scale;
      this.#cross.data(`M${-method} 0H${method}M0 ${-method}V${method}`);
      this.#cross.position(point);
      this.#keepInSight(point);
    }
    this.#cross.visible(Boolean(point));
  }

  get scale() { return this.#stage.scaleX(); }

  fit() {
    const { clientWidth, clientHeight } = this.element;
    this.#stage.size({ width: clientWidth, height: clientHeight });
    if (!this.width) return;
    const scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    const x = (clientWidth - scale * this.width) / 2;
    this.#place(scale, x, (clientHeight - scale * this.height) / 2);
  }

  zoom(factor, at = { x: this.#stage.width() / 2, y: this.#stage.height() / 2 }) {
    const old = this.scale;
    const scale = Math.min(Math.max(old * factor, 0.02), NEAREST);
    const { x, y } = this.#stage.position();
    this.#place(scale, at.x - ((at.x - x) / old) * scale, at.y - ((at.y - y) / old) * scale);
  }

  pan(x, y) {
    const old = this.#stage.position();
    this.#place(this.scale, old.x + x, old.y + y);
  }

  #keepInSight({ x, y }) {
    const stage = this.#stage;
    const at = { x: x * this.scale + stage.x(), y: y * this.scale + stage.y() };
    const missing = (value, size) => Math.max(0, 20 - value) - Math.max(0, value - size + 20);
    this.pan(missing(at.x, stage.width()), missing(at.y, stage.height()));
  }

  #place(scale, x, y) {
    this.#stage.scale({ x: scale, y: scale });
    this.#stage.position({ x, y });
    this.#tell();
  }

  #tell() {
    const { x, y } = this.#stage.position();
    Object.assign(this.element.dataset, { scale: this.scale, x, y });
  }
}

function outline(value) {
  return new Konva.Shape({
    stroke: color(value),
    strokeWidth: 2,
    strokeScaleEnabled: false,
    lines: [],
    sceneFunc(context, shape) {
      context.beginPath();
      for (const [x, y, toX, toY] of shape.getAttr("lines")) {
        context.moveTo(x, y);
        context.lineTo(toX, toY);
      }
      context.strokeShape(shape);
    },
  });
}

/** The edges between pixels of a class and others, in long straight pieces. */
function edges(labels, width, height, value) {
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === value;
  const across = runs(height, width, (y, x) => at(x, y) !== at(x, y - 1));
  const along = runs(width, height, (x, y) => at(x, y) !== at(x - 1, y));
  return [...across.map(([y, x, end]) => [x, y, end, y]), ...along.map(([x, y, end]) => [x, y, x, end])];
}

function runs(lines, length, differs) {
  const found = [];
  for (let line = 0; line <= lines; line++) {
    let start = -1;
    for (let place = 0; place <= length; place++) {
      const edge = place < length && differs(line, place);
      if (edge && start < 0) start = place;
      if (!edge && start >= 0) {
        found.push([line, start, place]);
        start = -1;
      }
    }
  }
  return found;
}

function filled(labels, width, height, value) {
  const [red, green, blue] = color(value).match(/\w\w/g).map((part) => parseInt(part, 16));
  return painted(width, height, (data, place) => {
    if (labels[place] === value) data.set([red, green, blue, 50], 4 * place);
  });
}

function tinted(map) {
  const canvas = painted(map.width, map.height);
  const context = canvas.getContext("2d");
  context.drawImage(map, 0, 0);
  const { data } = context.getImageData(0, 0, map.width, map.height);
  return painted(map.width, map.height, (to, place) => {
    to.set([255, 60, 90, data[4 * place]], 4 * place);
  });
}

function painted(width, height, paint) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  if (paint) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let place = 0; place < width * height; place++) paint(image.data, place);
    context.putImageData(image, 0, 0);
  }
  return canvas;
}
