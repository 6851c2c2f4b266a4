// The image and its overlays: evidence, mask, outlines, the unfinished stroke, cross, ring and ruler.

import { color } from "./colors.js";
import { Fill } from "./fill.js";
import { Outline } from "./outline.js";

const NEAREST = 40; // screen pixels per image pixel
const CROSS = 12;
const OTHER = "#56b4e9"; // the mask that is compared

export class View {
  #stage;
  #image = new Konva.Layer({ listening: false, imageSmoothingEnabled: false });
  #evidence = new Konva.Layer({ listening: false });
  #drawing = new Konva.Layer({ listening: false });
  #top = new Konva.Layer({ listening: false }); // what moves with the pointer, so that the mask need not follow
  #mask = new Konva.Group();
  #fill = new Fill();
  #outline = new Outline();
  #compared = new Outline();
  #classes = 0;
  #shown = {}; // size of the last image
  #line = { visible: false, listening: false };
  #unfinished = new Konva.Line({ ...this.#line, lineCap: "round", lineJoin: "round", opacity: 0.6 });
  #cross = new Konva.Path({ ...this.#line, stroke: "#00e5ff", strokeWidth: 2, strokeScaleEnabled: false });
  #ring = new Konva.Circle({ ...this.#line, stroke: "#fff", strokeWidth: 1.5, strokeScaleEnabled: false });
  #ruler = new Konva.Line({ ...this.#line, stroke: "#ffd54f", strokeWidth: 2, strokeScaleEnabled: false });

  /** `moved` is called after each change of zoom or place. */
  constructor(element, moved) {
    Object.assign(this, { element, moved });
    this.width = this.height = 0;
    this.#stage = new Konva.Stage({ container: element, width: 10, height: 10 });
    this.#mask.add(
      new Konva.Shape({ sceneFunc: (context) => this.#fill.draw(context._context) }),
      this.#lines(this.#outline, (value) => color(value), []),
      this.#lines(this.#compared, () => OTHER, [5, 4]),
    );
    this.#drawing.add(this.#mask);
    this.#top.add(this.#unfinished, this.#cross, this.#ring, this.#ruler);
    this.#stage.add(this.#image, this.#evidence, this.#drawing, this.#top);
    new ResizeObserver(() => this.#resize()).observe(element.parentElement);
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

  /** Show an image of another case without overlays: whole, or, if `stay`, where one of its size was before. */
  show(image, classes, stay) {
    this.clear();
    const { width, height } = image;
    const same = this.#shown.width === width && this.#shown.height === height;
    Object.assign(this, { width, height });
    this.#shown = { width, height };
    this.#classes = classes;
    this.#image.add(new Konva.Image({ image }));
    if (!(stay && same)) this.fit();
  }

  clear() {
    this.width = this.height = 0;
    this.#image.destroyChildren();
    this.#evidence.destroyChildren();
    this.#outline.clear();
    this.#compared.clear();
    this.#fill.clear();
    this.showUnfinished([]);
    this.showCross(null);
    this.showRing(null);
    this.showRuler([]);
    for (const layer of [this.#image, this.#evidence, this.#drawing, this.#top]) layer.batchDraw();
  }

  /** Show the image again after its pixels have changed. */
  redrawImage() { this.#image.batchDraw(); }

  smooth(on) {
    this.#image.imageSmoothingEnabled(on);
    this.#image.batchDraw();
  }

  /** Show a map (gray levels) over the image, more opaque where it is higher. */
  showEvidence(map, opacity) {
    this.#evidence.destroyChildren();
    if (map && this.width) {
      const image = tinted(map);
      this.#evidence.add(new Konva.Image({ image, width: this.width, height: this.height, opacity }));
    }
    this.#evidence.batchDraw();
  }

  showMask(visible) {
    this.#mask.visible(visible);
    this.#drawing.batchDraw();
  }

  fillOpacity(opacity) {
    this.#fill.opacity = opacity;
    this.#drawing.batchDraw();
  }

  /** Draw the part of a label map that has changed. */
  updateMask(labels, box) {
    this.#outline.update(labels, this, this.#classes, box);
    this.#fill.update(labels, this, this.#classes, box);
    this.#drawing.batchDraw();
  }

  /** Show the outline of another label map too; null for none. */
  compare(labels) {
    this.#compared.clear();
    const whole = { x: 0, y: 0, width: this.width, height: this.height };
    if (labels) this.#compared.update(labels, this, this.#classes, whole);
    this.#drawing.batchDraw();
  }

  /** Show what is being drawn; no points hide it. */
  showUnfinished(points, attributes = {}) {
    this.#unfinished.setAttrs({ points, visible: points.length > 0, ...attributes });
  }

  /** Show the size of the brush around a place; null hides it. */
  showRing(place, width) {
    this.#ring.setAttrs(place ? { ...place, radius: width / 2, visible: true } : { visible: false });
  }

  showRuler(points) { this.#ruler.setAttrs({ points, visible: points.length > 0 }); }

  showCross(point) {
    if (point) {
      const arm = CROSS / this.scale;
      this.#cross.data(`M${-arm} 0H${arm}M0 ${-arm}V${arm}`);
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
    this.#place(scale, (clientWidth - scale * this.width) / 2, (clientHeight - scale * this.height) / 2);
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

  /** Keep zoom and center when the window changes; start on a whole screen pixel, or lines would blur. */
  #resize() {
    const { left, top } = this.element.parentElement.getBoundingClientRect();
    Object.assign(this.element.style, { left: `${Math.ceil(left) - left}px`, top: `${Math.ceil(top) - top}px` });
    const { clientWidth, clientHeight } = this.element;
    const before = this.#stage.size();
    this.#stage.size({ width: clientWidth, height: clientHeight });
    if (before.width <= 10) this.fit();
    else this.pan((clientWidth - before.width) / 2, (clientHeight - before.height) / 2);
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
    Object.assign(this.element.dataset, { scale, x, y });
    this.moved(scale);
  }

  #lines(outline, colorOf, dash) {
    return new Konva.Shape({
      sceneFunc: (context) => {
        const native = context._context;
        native.lineWidth = 2 / this.scale;
        native.setLineDash(dash.map((length) => length / this.scale));
        for (let value = 1; value <= this.#classes; value++) {
          native.strokeStyle = colorOf(value);
          outline.stroke(native, value);
        }
      },
    });
  }
}

function tinted(map) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: map.width, height: map.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0);
  const image = context.getImageData(0, 0, map.width, map.height);
  for (let at = 0; at < image.data.length; at += 4) image.data.set([255, 60, 90, image.data[at]], at);
  context.putImageData(image, 0, 0);
  return canvas;
}
