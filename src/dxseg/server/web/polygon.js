// The polygon tool: corners that can be moved until it is closed, and a line to the pointer.

import { color } from "./colors.js";

const NEAR = 10; // screen pixels: how near a corner is one

export class Polygon {
  #view;
  #editor;
  #points = []; // x, y, x, y, ...
  #held = -1; // the corner that is being moved
  #moved = false;

  constructor(view, editor) {
    this.#view = view;
    this.#editor = editor;
  }

  get begun() { return this.#points.length > 0; }

  cancel() {
    this.#points = [];
    this.#held = -1;
  }

  down(place) {
    this.#held = this.#cornerAt(place);
    this.#moved = false;
  }

  move({ x, y }) {
    if (this.#held < 0) return;
    const [oldX, oldY] = this.#points.slice(2 * this.#held);
    this.#moved ||= Math.hypot(x - oldX, y - oldY) * this.#view.scale > 3;
    if (!this.#moved) return;
    this.#points.splice(2 * this.#held, 2, x, y);
    this.#show();
  }

  up(place) {
    const held = this.#held;
    this.#held = -1;
    if (held >= 0 && this.#moved) this.#editor.say(`Corner ${held + 1} moved.`);
    else if (held === 0 && this.#points.length >= 6) this.close();
    else if (held <= 0) this.corner(place);
  }

  hover({ x, y }) { if (this.#points.length) this.#show([x, y]); }

  /** Add a corner. */
  corner({ x, y }) {
    this.#points.push(x, y);
    this.#show();
    this.#editor.say(`Corner ${this.#points.length / 2}`);
  }

  removeCorner() {
    if (!this.#points.length) return;
    this.#points.splice(-2);
    this.#show();
    this.#editor.say(`${this.#points.length / 2} corners`);
  }

  close() {
    const points = this.#points;
    this.cancel();
    this.#view.showUnfinished([]);
    if (points.length < 6) {
      this.#editor.say("A polygon needs at least three corners.");
      return;
    }
    this.#editor.mask.polygon(this.#editor.value, points);
    this.#editor.drawn();
  }

  #cornerAt({ x, y }) {
    for (let at = 0; at < this.#points.length; at += 2) {
      const far = Math.hypot(x - this.#points[at], y - this.#points[at + 1]) * this.#view.scale;
      if (far < NEAR) return at / 2;
    }
    return -1;
  }

  #show(rubber = []) {
    const stroke = color(this.#editor.value);
    const points = [...this.#points, ...rubber];
    const [x, y] = points;
    const dot = points.length === 2 ? [x, y, x + 2 / this.#view.scale, y] : points;
    this.#view.showUnfinished(dot, {
      stroke, strokeWidth: 2, strokeScaleEnabled: false, dash: [6, 4], closed: points.length > 4, fill: `${stroke}40`,
    });
  }
}
