// How the image is shown: window presets, smooth or exact pixels, evidence, opacity, scale bar. No step of the mask.

const byId = (id) => document.getElementById(id);
const BAR = 120; // screen pixels that the scale bar may take

export class Display {
  #maps = {};

  constructor(view, editor) {
    Object.assign(this, { view, editor });
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    for (const id of ["show-heat", "heat-label", "opacity"]) on(id, "input", () => this.showEvidence());
    on("fill", "input", ({ target }) => view.fillOpacity(target.value / 100));
    on("smooth", "change", ({ target }) => view.smooth(target.checked));
    on("window", "change", ({ target }) => this.#preset(target.value));
    view.element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  show(pixels) {
    const names = pixels.canWindow ? Object.keys(pixels.presets) : ["as delivered"];
    byId("window").replaceChildren(...names.map((name) => new Option(name)));
    byId("window").disabled = !pixels.canWindow;
    this.showScale();
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
    if (pixels?.canWindow) this.editor.setWindow(pixels.presets[name]);
  }

  /** The wheel zooms; with Ctrl it sets the width of the brush. */
  #wheel(event) {
    event.preventDefault();
    if (event.ctrlKey) this.editor.resize(event.deltaY < 0 ? 1 : -1);
    else this.view.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, this.view.at(event));
  }
}
