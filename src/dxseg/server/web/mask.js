// The mask that is drawn: a label map, changed box by box, so that a step costs what it covers.

import { boxAround, boxOf, cut, fillHoles, keepLargest, lineCover, paste, polygonCover } from "./raster.js";

const HISTORY_BYTES = 256 * 2 ** 20;

export class Mask {
  version = 0; // of the content; grows with every change
  #steps = [];
  #done = 0;

  /** `labels` is the first content, (height x width) by rows; `changed(box)` is called after each change. */
  constructor(labels, { width, height }, classes, changed) {
    Object.assign(this, { labels, width, height, classes, changed });
    this.counts = new Array(classes + 1).fill(0);
    for (const value of labels) this.counts[value]++;
  }

  get canUndo() { return this.#done > 0; }
  get canRedo() { return this.#done < this.#steps.length; }
  /** Pixels of each class, the first class first. */
  get areas() { return this.counts.slice(1); }
  get whole() { return { x: 0, y: 0, width: this.width, height: this.height }; }
  /** Whether something was drawn by hand since the mask was last replaced as a whole. */
  get handmade() {
    const current = this.#steps.slice(0, this.#done);
    return current.slice(current.findLastIndex((step) => step.replaced) + 1).length > 0;
  }

  /** Replace the whole mask by another label map, such as a predicted one. */
  replace(labels) { this.#step(this.whole, labels.slice(), true); }

  /** Draw what is drawn elsewhere, such as on the slice before. */
  take(labels) { this.#step(this.whole, labels.slice(), false); }

  clear() { this.#step(this.whole, new Uint8Array(this.labels.length), false); }

  /** Paint class `value`, or background where it is 0, along a line of (x, y) in pixels. */
  stroke(value, points, width) {
    const box = boxAround(points, width / 2 + 1, this);
    this.#paint(box, value, () => lineCover(points, width, box));
  }

  polygon(value, points) {
    const box = boxAround(points, 1, this);
    this.#paint(box, value, () => polygonCover(points, box));
  }

  /** Paint the pixels of a box where `covered` is not 0. */
  region(value, box, covered) { this.#paint(box, value, () => covered); }

  /** Let a class be where `covered` is not 0, and nowhere else in the box. */
  decide(value, box, covered) {
    const after = cut(this.labels, this.width, box);
    let [left, top, right, bottom] = [box.width, box.height, 0, 0]; // of what changes
    for (let y = 0, place = 0; y < box.height; y++) {
      for (let x = 0; x < box.width; x++, place++) {
        if ((after[place] === value) === (covered[place] > 0)) continue;
        after[place] = covered[place] ? value : 0;
        [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
        [top, bottom] = [Math.min(top, y), y + 1];
      }
    }
    const changed = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
    if (!changed.width) return;
    this.#step({ ...changed, x: box.x + left, y: box.y + top }, cut(after, box.width, changed), false);
  }

  fillHoles(value) { this.#regions(value, fillHoles); }
  keepLargest(value) { this.#regions(value, keepLargest); }

  undo() {
    if (!this.canUndo) return;
    const { box, before } = this.#steps[--this.#done];
    this.#apply(box, before);
  }

  redo() {
    if (!this.canRedo) return;
    const { box, after } = this.#steps[this.#done++];
    this.#apply(box, after);
  }

  #regions(value, change) {
    const box = boxOf(this.labels, this, value);
    if (box) this.#step(box, change(cut(this.labels, this.width, box), box, value), false);
  }

  #paint(box, value, find) {
    if (!box.width || !box.height) return;
    const covered = find();
    const after = cut(this.labels, this.width, box);
    for (let place = 0; place < after.length; place++) if (covered[place]) after[place] = value;
    this.#step(box, after, false);
  }

  #step(box, after, replaced) {
    const before = cut(this.labels, this.width, box);
    this.#steps.length = this.#done;
    this.#steps.push({ box, before, after, replaced });
    this.#done++;
    this.#forget();
    this.#apply(box, after);
  }

  /** Drop the oldest steps beyond the memory that they may take. */
  #forget() {
    let bytes = this.#steps.reduce((sum, { after }) => sum + 2 * after.length, 0);
    while (bytes > HISTORY_BYTES && this.#steps.length > 1) {
      bytes -= 2 * this.#steps.shift().after.length;
      this.#done--;
    }
  }

  #apply(box, part) {
    const old = cut(this.labels, this.width, box);
    for (const value of old) this.counts[value]--;
    for (const value of part) this.counts[value]++;
    paste(part, this.labels, this.width, box);
    this.version++;
    this.changed(box);
  }
}
