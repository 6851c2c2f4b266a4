// How the image is shown: window presets, smooth or exact pixels, evidence, opacity, scale bar. No step of the mask.

const byId = (id) => document.getElementById(id);
const NOTCH = 40; // of deltaY, less than any wheel sends
const BAR = 120; // screen pixels that the scale bar may take

export class Display {
  #maps = {};
  #last = null; // the Pixels that were shown before
  #chosen = "as delivered"; // the preset
  #turned = 0; // of the wheel, not yet a slice

  /** `scroll(step)` shows another slice; returns whether there are any. */
  constructor(view, editor, scroll) {
    Object.assign(this, { view, editor, scroll });
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    for (const id of ["show-heat", "heat-label", "opacity"]) on(id, "input", () => this.showEvidence());
    on("fill", "input", ({ target }) => view.fillOpacity(target.value / 100));
    on("smooth", "change", ({ target }) => view.smooth(target.checked));
    on("window", "change", ({ target }) => this.#preset(target.value));
    view.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /** Show the choices for an image; `stay` keeps window and level, for the next slice. */
  show(pixels, stay) {
    const names = pixels.canWindow ? Object.keys(pixels.presets) : ["as delivered"];
    byId("window").replaceChildren(...names.map((name) => new Option(name)));
    byId("window").disabled = !pixels.canWindow;
    if (stay && pixels !== this.#last) this.#keepWindow(pixels);
    else if (!stay) this.#chosen = "as delivered";
    byId("window").value = this.#chosen;
    this.#last = pixels;
    this.showScale();
  }

  /** Show a slice with the window of the one before: the preset that was chosen, or as it was dragged. */
  #keepWindow(pixels) {
    const last = this.#last;
    if (!last?.canWindow || !pixels.canWindow || last.unit !== pixels.unit) return;
    const dragged = String(last.window) !== String(last.presets[this.#chosen]);
    pixels.setWindow(dragged ? last.window : pixels.presets[this.#chosen]);
    this.view.redrawImage();
  }

  clear() {
    this.#maps = {};
    byId("window").replaceChildren();
    byId("scale-text").textContent = "";
    byId("scale").hidden = true;
  }

  setEvidence(maps, likeliest) {
    this.#maps = maps;
    if (likeliest) byId("heat-label").value = likeliest;
    this.showEvidence();
  }

  showEvidence() {
    const map = byId("show-heat").checked ? this.#maps[byId("heat-label").value] : null;
    this.view.showEvidence(map, Number(byId("opacity").value) / 100);
  }

  /** Flip a check box by a key. */
  toggle(id) { byId(id).click(); }

  /** Draw the scale bar: a round length, in mm where the spacing is known. */
  showScale() {
    const { open } = this.editor;
    byId("scale").hidden = !open;
    if (!open) return;
    const width = open.spacing?.[1] ?? 1;
    const most = (BAR / this.view.scale) * width;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = power * [5, 2, 1].find((step) => step * power <= most);
    byId("scale-bar").setAttribute("width", (length / width) * this.view.scale);
    byId("scale-text").textContent = `${Number(length.toPrecision(1))} ${open.spacing ? "mm" : "pixels"}`;
  }

  #preset(name) {
    const { pixels } = this.editor;
    if (!pixels?.canWindow) return;
    this.#chosen = name;
    this.editor.setWindow(pixels.presets[name]);
  }

  /** The wheel zooms; with Ctrl it sets the width of the brush. In a volume it scrolls, and zooms with Ctrl or Shift. */
  #wheel(event) {
    event.preventDefault();
    const sizes = this.view.element.dataset.tool !== "move" || !this.scroll(0);
    if (event.ctrlKey && sizes) this.editor.resize(event.deltaY < 0 ? 1 : -1);
    else if (event.ctrlKey || event.shiftKey || !this.#scroll(event)) {
      this.view.zoom(event.deltaX + event.deltaY < 0 ? 1.2 : 1 / 1.2, this.view.at(event));
    }
  }

  /** A notch of a wheel is a slice; of a touchpad, which sends small steps, several of them are. */
  #scroll({ deltaY }) {
    if (this.#turned * deltaY < 0) this.#turned = 0;
    this.#turned += Math.min(Math.max(deltaY, -NOTCH), NOTCH);
    const step = Math.abs(this.#turned) < NOTCH ? 0 : Math.sign(this.#turned);
    if (step) this.#turned = 0;
    return this.scroll(step);
  }
}
