// The open case in the view: what the tools change, and what they say.

import * as results from "./results.js";
import { Mask } from "./mask.js";
import { propose } from "./proposal.js";
import { growRegion, mapOf } from "./region.js";

const byId = (id) => document.getElementById(id);

export class Editor {
  #region = null; // the last one that was clicked: { place, value, level, version }
  #proposed = {}; // the last proposal: { clicks, value, version }
  open = null; // the OpenCase; null while none is shown, and then no tool does anything
  pixels = null;

  /** `changed()` is called after each step of the mask. */
  constructor(view, model, changed) {
    Object.assign(this, { view, model, changed });
  }

  get mask() { return this.open?.mask ?? null; }
  get value() { return byId("class").selectedIndex + 1; }
  get width() { return Number(byId("size").value); }

  /**
   * Show a loaded case; `labels` is what its mask starts with, `maps` are the model's probabilities by class;
   * `stay` keeps zoom and place, for the next slice.
   */
  show(open, pixels, maps, labels, stay) {
    Object.assign(this, { pixels, maps });
    this.#region = null;
    this.#proposed = {};
    this.view.show(pixels.canvas, this.model.mask_classes.length, stay);
    const redraw = (box) => this.open === open && this.view.updateMask(open.mask.labels, box);
    open.mask ??= new Mask(labels, pixels, this.model.mask_classes.length, redraw);
    this.open = open;
    redraw(open.mask.whole);
    this.showMask();
  }

  /** Remove everything that belongs to a case from the screen. */
  clear() {
    this.open = this.pixels = null;
    this.view.clear();
    results.clear();
    for (const id of ["undo", "redo", "clear", "holes", "largest"]) byId(id).disabled = true;
  }

  say(text) { byId("status").textContent = text; }

  sayPlace(x, y) {
    const value = this.pixels.value(x, y);
    const gray = value === null ? "" : `, value ${Math.round(value * 100) / 100} ${this.pixels.unit}`.trimEnd();
    const own = this.mask.labels[y * this.mask.width + x];
    this.say(`Column ${x}, row ${y}: ${this.model.mask_classes[own - 1] ?? "background"}${gray}`);
  }

  sayLength([x, y, toX, toY]) {
    const spacing = this.open.spacing;
    const [height, width] = spacing ?? [1, 1];
    const length = Math.hypot((toX - x) * width, (toY - y) * height);
    this.say(`${length.toFixed(1)} ${spacing ? "mm" : "pixels"}`);
  }

  drawn() { this.#finish(`Drawn: ${this.areas()}.`); }

  /** Paint the region around a place that the model's map suggests; returns whether there is one. */
  growRegion(place, level = 0) {
    const { value } = this;
    const found = growRegion(this.maps[value - 1], this.mask, place, level);
    if (!found) {
      this.say("The model's map has no region here.");
      return false;
    }
    this.mask.region(value, found.box, found.covered);
    this.#region = { place, level, value, version: this.mask.version };
    this.#finish(`Region: ${this.areas()}. "," and "." make it smaller and larger.`);
    return true;
  }

  /** Paint the region that a click proposes: it says that its place is wrong as it is. */
  proposeAt(place) {
    const at = Math.floor(place.y) * this.mask.width + Math.floor(place.x);
    if (place.x < 0 || place.y < 0 || place.x >= this.mask.width || place.y >= this.mask.height) return;
    const inside = this.mask.labels[at] !== this.value;
    this.#propose([...this.#clicks, { ...place, inside }], null);
  }

  /** Paint the region that a box proposes. */
  proposeIn(frame) { this.#propose([], frame); }

  /** The clicks since another tool was used. */
  get #clicks() {
    const { version, value, clicks } = this.#proposed;
    return version === this.mask.version && value === this.value ? clicks : [];
  }

  #propose(clicks, frame) {
    const { mask, value, pixels } = this;
    const map = mapOf(this.maps[value - 1], mask);
    const picture = { gray: pixels.shades(), map, drawn: (x, y) => mask.labels[y * mask.width + x] === value };
    const { box, covered } = propose(picture, clicks, frame, mask);
    if (box.width && box.height) mask.decide(value, box, covered);
    this.#proposed = { clicks, value, version: mask.version };
    this.#finish(`Proposed: ${this.areas()}. Click where it is wrong.`);
  }

  /** Make the region that was clicked last smaller (-1) or larger (1), if nothing else was done since. */
  changeRegion(step) {
    const region = this.#region;
    if (!this.mask || region?.version !== this.mask.version || region.value !== this.value) return;
    this.mask.undo();
    if (this.growRegion(region.place, region.level + step)) return;
    this.mask.redo();
    region.version = this.mask.version;
  }

  /** Do a step of the mask by its name, and say so. */
  step(name, message, ...values) {
    if (!this.mask) return;
    const before = this.mask.version;
    this.mask[name](...values);
    if (this.mask.version !== before) this.#finish(`${message}: ${this.areas()}.`);
  }

  resize(step) {
    byId("size").value = this.width + step;
    byId("size-value").value = this.width;
    this.say(`Width ${this.width}`);
  }

  /** Choose what brush and polygon paint; the first class is 1. */
  chooseClass(value) {
    const { options } = byId("class");
    if (value > options.length) return;
    byId("class").selectedIndex = value - 1;
    this.say(`Class ${options[value - 1].text}`);
  }

  setWindow(window) {
    if (!this.pixels?.canWindow) return;
    this.pixels.setWindow(window);
    this.view.redrawImage();
    this.#sayWindow();
  }

  dragWindow(level, width) {
    if (!this.pixels?.canWindow) return;
    this.pixels.drag(level, width);
    this.view.redrawImage();
    this.#sayWindow();
  }

  #sayWindow() {
    const [low, high] = this.pixels.window;
    this.say(`Level ${Math.round((low + high) / 2)}, window ${Math.round(high - low)} ${this.pixels.unit}`.trimEnd());
  }

  areas() {
    const areas = this.mask.areas.map((pixels) => results.area(pixels, this.open.spacing));
    return this.model.mask_classes.map((name, place) => `${name} ${areas[place]}`).join(", ");
  }

  /** Show or hide the mask, and tell its areas. */
  showMask(visible = byId("show-mask").checked) {
    const { mask } = this;
    if (!mask) return;
    this.view.showMask(visible);
    results.showAreas(this.model.mask_classes, mask.areas, this.open.spacing);
    byId("undo").disabled = !mask.canUndo;
    byId("redo").disabled = !mask.canRedo;
    for (const id of ["clear", "holes", "largest"]) byId(id).disabled = false;
  }

  #finish(message) {
    this.showMask();
    this.say(message);
    this.changed();
  }
}
