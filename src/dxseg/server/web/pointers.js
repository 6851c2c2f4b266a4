// Mouse, pen and fingers on the image: one of them draws; those that do not draw move the image.

const DRAWS = 0; // left button, finger, tip of a pen
const ERASER = 5; // a pen's other end

export class Pointers {
  #view;
  #to;
  #down = new Map(); // active pointers: pointerId -> { x, y, pointerType }
  #drawing = null; // the pointerId that draws
  #withPen = false; // a pen was used: from then on, fingers only move the image

  /**
   * `to.draws` is whether a drawing tool is active. `to` gets the events of one pointer, in pixels of the
   * image: `down(place, erasing)`, `move(place)`, then `up(place)`, or `drop()` if it was not drawing;
   * `hover(place)` and `leave()` while none is down.
   */
  constructor(view, to) {
    this.#view = view;
    this.#to = to;
    const on = (names, handle) => names.forEach((name) => view.element.addEventListener(name, handle));
    on(["pointerdown"], (event) => this.#pressed(event));
    on(["pointermove"], (event) => this.#moved(event));
    on(["pointerleave"], () => to.leave());
    on(["pointerup"], (event) => this.#lifted(event));
    on(["pointercancel"], (event) => this.#lost(event.pointerId));
    on(["contextmenu"], (event) => event.preventDefault()); // of a long press, or of a pen's button
  }

  #pressed(event) {
    const { pointerId, pointerType, button } = event;
    if (button !== DRAWS && button !== ERASER) return;
    if (pointerType === "pen") {
      this.#withPen = true;
      // The hand touches the screen before its pen.
      for (const other of [...this.#down.keys()]) this.#lost(other);
    } else if ([...this.#down.values()].some((one) => one.pointerType === "pen")) return;
    this.#view.element.setPointerCapture(pointerId); // a stroke may leave the image and come back
    this.#note(event);
    const erasing = button === ERASER;
    const moves = this.#down.size > 1 || (pointerType === "touch" && this.#withPen);
    if (moves || !(erasing || this.#to.draws)) this.#drop();
    else {
      this.#drawing = pointerId;
      this.#to.down(this.#view.place(event), erasing);
    }
  }

  #moved(event) {
    const { pointerId } = event;
    if (!this.#down.size) this.#to.hover(this.#view.place(event));
    if (!this.#down.has(pointerId)) return;
    const before = this.#hold;
    this.#note(event);
    if (this.#drawing === pointerId) {
      this.#to.move(this.#view.place(event));
      return;
    }
    const after = this.#hold;
    this.#view.pan(after.x - before.x, after.y - before.y);
    if (before.spread) this.#view.zoom(after.spread / before.spread, after);
  }

  #note(event) {
    const { pointerId, pointerType } = event;
    this.#down.set(pointerId, { ...this.#view.at(event), pointerType });
  }

  #lifted(event) {
    if (!this.#down.delete(event.pointerId) || this.#drawing !== event.pointerId) return;
    this.#drawing = null;
    this.#to.up(this.#view.place(event));
  }

  #lost(pointerId) {
    this.#down.delete(pointerId);
    if (this.#drawing === pointerId) this.#drop();
  }

  #drop() {
    if (this.#drawing !== null) this.#to.drop();
    this.#drawing = null;
  }

  /** The center of the first two pointers, and their distance. */
  get #hold() {
    const [one, other = one] = this.#down.values();
    const spread = Math.hypot(one.x - other.x, one.y - other.y);
    return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, spread };
  }
}
