// Brush, eraser and polygon, by pointer and by keys: each stroke becomes a step of the mask.

import { color } from "./colors.js";
import { Pointers } from "./pointers.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAN = 40; // screen pixels per key press
const CLOSE = 10; // screen pixels: a corner this near to the first one closes a polygon
const LETTERS = { m: "move", b: "brush", e: "eraser", p: "polygon" };

export class Tools {
  #view;
  #points = []; // x, y, x, y, ... of the unfinished stroke or polygon
  #drawing = false; // whether a stroke of brush or eraser is unfinished
  #value = 0; // what it paints: a class, or 0 for background
  #cross = { x: 0, y: 0 };

  /** `page` has the mask, the value and width of the brush, and callbacks for steps and messages. */
  constructor(view, page) {
    this.#view = view;
    this.page = page;
    this.choose("move");
    new Pointers(view, this);
    view.element.addEventListener("keydown", (event) => this.#key(event));
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this.#view.element.dataset.tool = tool;
  }

  /** Cancel the unfinished stroke or polygon. */
  cancel() {
    this.#points = [];
    this.#drawing = false;
    this.#view.showUnfinished([]);
    this.#view.showCross(null);
  }

  /** For a new image: put the cross in its centre. */
  reset() {
    this.cancel();
    this.#cross = { x: Math.floor(this.#view.width / 2) + 0.5, y: Math.floor(this.#view.height / 2) + 0.5 };
  }

  // Called by the pointers.

  get draws() { return this.tool !== "move" && this.page.mask !== null; }

  down({ x, y }, erasing) {
    if (!this.page.mask) return;
    if (erasing) this.#begin(x, y, 0);
    else if (this.tool !== "polygon") this.#begin(x, y, this.#chosen);
  }

  move({ x, y }) {
    if (this.#drawing) this.#extend(x, y);
  }

  up({ x, y }) {
    if (this.#drawing) this.#end();
    else if (this.tool === "polygon" && this.page.mask) this.#corner(x, y);
  }

  drop() {
    if (this.#drawing) this.cancel();
  }

  get #chosen() { return this.tool === "eraser" ? 0 : this.page.value; }

  #begin(x, y, value) {
    this.#drawing = true;
    this.#value = value;
    this.#points = [x, y];
    this.#extend(x, y);
  }

  #extend(x, y) {
    this.#points.push(x, y);
    const stroke = this.#value ? color(this.#value) : "#000000";
    const form = { strokeWidth: this.page.width, closed: false, fill: null, dash: null };
    this.#view.showUnfinished(this.#points, { ...form, stroke, strokeScaleEnabled: true });
  }

  #end() {
    const points = this.#points;
    this.cancel();
    this.page.mask.stroke(this.#value, points, this.page.width);
    this.page.drawn();
  }

  #corner(x, y) {
    const [firstX, firstY] = this.#points;
    const near = Math.hypot(x - firstX, y - firstY) * this.#view.scale < CLOSE;
    if (this.#points.length >= 6 && near) {
      this.#close();
      return;
    }
    this.#points.push(x, y);
    this.#showCorners();
    this.page.say(`Corner ${this.#points.length / 2}`);
  }

  #showCorners() {
    const stroke = color(this.page.value);
    const form = { stroke, strokeWidth: 2, strokeScaleEnabled: false, dash: [6, 4] };
    const [x, y] = this.#points;
    const dot = this.#points.length === 2 ? [x, y, x + 2, y] : this.#points;
    this.#view.showUnfinished(dot.length ? dot : [], { ...form, closed: this.#points.length > 4, fill: `${stroke}40` });
  }

  #close() {
    const points = this.#points;
    this.cancel();
    if (points.length < 6) {
      this.page.say("A polygon needs at least three corners.");
      return;
    }
    this.page.mask.polygon(this.page.value, points);
    this.page.drawn();
  }

  #key(event) {
    const { key } = event;
    if (event.altKey || !this.page.mask) return;
    if (event.ctrlKey || event.metaKey) {
      const redo = key === "y" || (key === "Z" && event.shiftKey);
      if (redo || key === "z") this.#done(event, redo ? this.page.redo() : this.page.undo());
    } else if (ARROWS[key]) this.#done(event, this.#arrow(...ARROWS[key], event.shiftKey ? 10 : 1));
    else if (LETTERS[key]) this.#done(event, this.page.choose(LETTERS[key]));
    else if (/^[1-9]$/.test(key)) this.#done(event, this.page.chooseClass(Number(key)));
    else if (this.#ACTIONS[key]) this.#done(event, this.#ACTIONS[key]());
  }

  #done(event) { event.preventDefault(); }

  #ACTIONS = {
    "+": () => this.#view.zoom(1.25),
    "=": () => this.#view.zoom(1.25),
    "-": () => this.#view.zoom(0.8),
    0: () => this.#view.fit(),
    "[": () => this.page.resize(-1),
    "]": () => this.page.resize(1),
    " ": () => this.#space(),
    Enter: () => this.tool === "polygon" && this.#close(),
    Backspace: () => this.#removeCorner(),
    Escape: () => { this.cancel(); this.page.say("Cancelled."); },
  };

  #arrow(x, y, step) {
    if (this.tool === "move") {
      this.#view.pan(-x * step * PAN, -y * step * PAN);
      return;
    }
    const within = (value, size) => Math.min(Math.max(value, 0.5), size - 0.5);
    this.#cross.x = within(this.#cross.x + x * step, this.#view.width);
    this.#cross.y = within(this.#cross.y + y * step, this.#view.height);
    if (this.#drawing) this.#extend(this.#cross.x, this.#cross.y);
    this.#view.showCross(this.#cross);
    this.page.sayPlace(Math.floor(this.#cross.x), Math.floor(this.#cross.y));
  }

  #space() {
    const { x, y } = this.#cross;
    if (this.tool === "polygon") this.#corner(x, y);
    else if (this.#drawing) this.#end();
    else if (this.tool !== "move") {
      this.#begin(x, y, this.#chosen);
      this.page.say("Stroke started.");
    }
    if (this.tool !== "move") this.#view.showCross(this.#cross);
  }

  #removeCorner() {
    if (this.tool !== "polygon" || !this.#points.length) return;
    this.#points.splice(-2);
    this.#showCorners();
    this.page.say(`${this.#points.length / 2} corners`);
  }
}
