// The tools by pointer and by cross: brush, eraser, polygon, region, box, window, ruler. Each stroke is a step of the mask.

import { color } from "./colors.js";
import { Pointers } from "./pointers.js";
import { Polygon } from "./polygon.js";

const PAN = 40; // screen pixels per key press
const DRAG = 5; // screen pixels: less is a click
const PAINTS = ["brush", "eraser"];

export class Tools {
  #view;
  #points = []; // x, y, x, y, ... of the unfinished stroke, or the ends of the ruler
  #drawing = false; // whether a stroke, or a drag of window or ruler, is unfinished
  #value = 0; // what a stroke paints: a class, or 0 for background
  #cross = { x: 0, y: 0 };

  /** `editor` has the mask, the value and width of the brush, and callbacks for steps and messages. */
  constructor(view, editor) {
    this.#view = view;
    this.editor = editor;
    this.polygon = new Polygon(view, editor);
    this.choose("move");
    new Pointers(view, this);
  }

  choose(tool) {
    this.cancel();
    this.#view.showRuler([]);
    this.#view.showRing(null);
    this.tool = tool;
    this.#view.element.dataset.tool = tool;
  }

  /** Cancel the unfinished stroke or polygon. */
  cancel() {
    this.#points = [];
    this.#drawing = false;
    this.polygon.cancel();
    this.#view.showUnfinished([]);
    this.#view.showCross(null);
  }

  /** For a new image: put the cross in its center. */
  reset() {
    this.cancel();
    this.#cross = { x: Math.floor(this.#view.width / 2) + 0.5, y: Math.floor(this.#view.height / 2) + 0.5 };
  }

  /** Whether a stroke or a polygon is begun. */
  get busy() { return this.#drawing || this.polygon.begun; }

  // Called by the pointers.

  get draws() { return this.tool !== "move" && this.editor.mask !== null; }

  down({ x, y }, erasing) {
    if (!this.editor.mask) return;
    if (erasing) this.#begin(x, y, 0);
    else if (this.tool === "polygon") this.polygon.down({ x, y });
    else if (this.tool === "region") this.editor.growRegion({ x, y });
    else if (PAINTS.includes(this.tool)) this.#begin(x, y, this.#chosen);
    else {
      this.#drawing = true;
      this.#points = [x, y];
    }
  }

  move({ x, y }) {
    this.#showRing({ x, y });
    if (this.tool === "polygon" && !this.#drawing) this.polygon.move({ x, y });
    if (!this.#drawing) return;
    if (this.tool === "box") this.#dragBox(x, y);
    else if (this.tool === "ruler") this.#measure(x, y);
    else if (this.tool === "window") this.#dragWindow(x, y);
    else this.#extend(x, y);
  }

  up({ x, y }) {
    if (!this.#drawing) {
      if (this.tool === "polygon" && this.editor.mask) this.polygon.up({ x, y });
    } else if (this.tool === "box") this.#endBox(x, y);
    else if (this.tool === "ruler" || this.tool === "window") this.#drawing = false;
    else this.#end();
  }

  drop() { if (this.#drawing) this.cancel(); }

  hover(place) {
    this.#showRing(place);
    if (this.tool === "polygon") this.polygon.hover(place);
  }

  leave() { this.#view.showRing(null); }

  #showRing(place) {
    const paints = PAINTS.includes(this.tool) && this.editor.mask;
    this.#view.showRing(paints ? place : null, this.editor.width);
  }

  get #chosen() { return this.tool === "eraser" ? 0 : this.editor.value; }

  #begin(x, y, value) {
    this.#drawing = true;
    this.#value = value;
    this.#points = [x, y];
    this.#extend(x, y);
  }

  #extend(x, y) {
    this.#points.push(x, y);
    const stroke = this.#value ? color(this.#value) : "#000000";
    const form = { strokeWidth: this.editor.width, closed: false, fill: null, dash: null };
    this.#view.showUnfinished(this.#points, { ...form, stroke, strokeScaleEnabled: true });
  }

  #end() {
    const points = this.#points;
    this.cancel();
    this.editor.mask.stroke(this.#value, points, this.editor.width);
    this.editor.drawn();
  }

  #dragBox(x, y) {
    const [fromX, fromY] = this.#points;
    const corners = [fromX, fromY, x, fromY, x, y, fromX, y];
    const form = { strokeWidth: 2, strokeScaleEnabled: false, closed: true, fill: null, dash: [6, 4] };
    this.#view.showUnfinished(corners, { ...form, stroke: color(this.editor.value) });
  }

  /** A box, or, where the pointer hardly moved, a click. */
  #endBox(x, y) {
    const [fromX, fromY] = this.#points;
    this.cancel();
    const size = { width: Math.abs(x - fromX), height: Math.abs(y - fromY) };
    if (Math.max(size.width, size.height) * this.#view.scale < DRAG) this.editor.proposeAt({ x, y });
    else this.editor.proposeIn({ x: Math.min(x, fromX), y: Math.min(y, fromY), ...size });
  }

  #measure(x, y) {
    this.#points = [...this.#points.slice(0, 2), x, y];
    this.#view.showRuler(this.#points);
    this.editor.sayLength(this.#points);
  }

  /** To the right is wider, up is brighter, as on a workstation. */
  #dragWindow(x, y) {
    const [fromX, fromY] = this.#points;
    this.#points = [x, y];
    const pixels = this.#view.scale / 500; // fractions of the range per screen pixel
    this.editor.dragWindow((y - fromY) * pixels, (x - fromX) * pixels);
  }

  // Called by the keys.

  arrow(x, y, step) {
    if (this.tool === "move" || !this.editor.mask) {
      this.#view.pan(-x * step * PAN, -y * step * PAN);
      return;
    }
    const within = (value, size) => Math.min(Math.max(value, 0.5), size - 0.5);
    this.#cross.x = within(this.#cross.x + x * step, this.#view.width);
    this.#cross.y = within(this.#cross.y + y * step, this.#view.height);
    if (this.#drawing) this.move(this.#cross);
    else if (this.tool === "polygon") this.polygon.hover(this.#cross);
    this.#view.showCross(this.#cross);
    this.editor.sayPlace(Math.floor(this.#cross.x), Math.floor(this.#cross.y));
  }

  space() {
    const { x, y } = this.#cross;
    if (this.tool === "move" || !this.editor.mask) return;
    if (this.tool === "polygon") this.polygon.corner({ x, y });
    else if (this.#drawing) this.up({ x, y });
    else {
      this.down({ x, y }, false);
      if (this.#drawing) this.editor.say("Stroke started.");
    }
    this.#view.showCross(this.#cross);
  }

  enter() { if (this.tool === "polygon" && this.editor.mask) this.polygon.close(); }
}
