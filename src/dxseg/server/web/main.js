// The page: the open image, requests to the server, and showing their results.

import { getModel, predictCase, predictFile, saveMask, setToken, takeToken, TokenError } from "./api.js";
import { Mask } from "./mask.js";
import { Queue } from "./queue.js";
import * as results from "./results.js";
import { decode, encode } from "./runs.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);

class Page {
  mask = null;
  #source = null; // { name, predict(labelPrompt) }
  #prediction = null;
  #maps = {};
  #requests = 0;
  #unsaved = false;
  #started;

  constructor() {
    this.view = new View(byId("view"));
    this.tools = new Tools(this.view, this);
    this.#listen();
    this.#started = this.#start();
  }

  async #start() {
    takeToken();
    try {
      this.model = await getModel();
    } catch (error) {
      this.#fail(error);
      return;
    }
    results.showModel(this.model);
    results.showChoices(this.model, () => this.#source && this.#predict());
    if (this.model.dataset !== null) {
      this.queue = new Queue((one) => this.openCase(one));
      await this.#try(() => this.queue.refresh());
    }
    this.#showSaving();
  }

  openFile(file) {
    this.#open({ name: file.name, predict: (labelPrompt) => predictFile(file, labelPrompt) }, "");
  }

  openCase({ case_id, label }) {
    const names = label.split(";");
    const known = names.every((name) => this.model.labels.includes(name)) ? label : "";
    this.#open({ name: case_id, predict: (labelPrompt) => predictCase(case_id, labelPrompt) }, known);
  }

  async #open(source, labelPrompt) {
    await this.#started; // a file may be dropped before the model is loaded
    if (!this.model) return;
    if (this.#unsaved && !confirm("The correction is not saved. Leave it?")) return;
    this.#source = source;
    this.#prediction = null;
    results.setLabelPrompt(labelPrompt);
    this.#predict();
  }

  /** Request a prediction with the label prompt; only the last request is shown. */
  async #predict() {
    const request = ++this.#requests;
    const source = this.#source;
    byId("view").setAttribute("aria-busy", "true");
    this.say("Predicting.");
    await this.#try(async () => {
      const prediction = await source.predict(results.getLabelPrompt());
      const [image, maps] = await decodeImages(prediction);
      if (request === this.#requests) this.#show(prediction, image, maps);
    });
    if (request === this.#requests) byId("view").removeAttribute("aria-busy");
  }

  #show(prediction, image, maps) {
    const again = this.#prediction !== null; // the same image, another label prompt
    this.#prediction = prediction;
    this.#maps = maps;
    const { height, width } = prediction.image;
    const labels = new Uint8Array(height * width);
    this.model.mask_classes.forEach((name, place) => decode(prediction.mask.rle[name], place + 1, labels));
    if (!again) {
      this.mask = new Mask(width, height, this.model.mask_classes.length);
      this.view.show(image, this.mask.classes);
      this.tools.reset();
      this.#unsaved = false;
    }
    this.mask.replace(labels);
    byId("name").textContent = prediction.case ? `Case ${prediction.case.case_id}` : this.#source.name;
    this.queue?.mark(prediction.case?.case_id ?? null);
    results.showProbabilities(prediction.label_probabilities);
    this.#showMask();
    this.#showEvidence();
    this.#showSaving();
    this.say(`Predicted: ${this.#areas()}.`);
  }

  // Used by the tools.

  get value() { return byId("class").selectedIndex + 1; }
  get width() { return Number(byId("size").value); }

  choose(tool) {
    this.tools.choose(tool);
    for (const button of byId("tools").querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
    this.say(tool === "move" ? "Move" : `${tool}, width ${this.width}`);
  }

  /** Choose what brush and polygon paint; the first class is 1. */
  chooseClass(value) {
    const { options } = byId("class");
    if (value > options.length) return;
    byId("class").selectedIndex = value - 1;
    this.say(`Class ${options[value - 1].text}`);
  }

  resize(step) {
    byId("size").value = this.width + step;
    byId("size-value").value = this.width;
    this.say(`Width ${this.width}`);
  }

  drawn() {
    this.#unsaved = this.model.dataset !== null;
    this.#showMask();
    this.#showSaving();
    this.say(`Drawn: ${this.#areas()}.`);
  }

  undo() { this.#step("undo", "Undone"); }
  redo() { this.#step("redo", "Redone"); }

  #step(name, message) {
    if (!this.mask) return;
    this.tools.cancel();
    this.mask[name]();
    this.#unsaved = this.model.dataset !== null;
    this.#showMask();
    this.say(`${message}: ${this.#areas()}.`);
  }

  say(text) { byId("status").textContent = text; }

  sayPlace(x, y) {
    const value = this.mask.labels[y * this.mask.width + x];
    this.say(`Column ${x}, row ${y}: ${this.model.mask_classes[value - 1] ?? "background"}`);
  }

  #areas() {
    const spacing = this.#prediction.image.spacing_mm;
    const areas = this.mask.areas.map((pixels) => results.area(pixels, spacing));
    return this.model.mask_classes.map((name, place) => `${name} ${areas[place]}`).join(", ");
  }

  // Showing.

  #showMask() {
    const { mask } = this;
    if (!mask) return;
    this.view.showMask(mask.labels, byId("show-mask").checked);
    results.showAreas(this.model.mask_classes, mask.areas, this.#prediction.image.spacing_mm);
    byId("undo").disabled = !mask.canUndo;
    byId("redo").disabled = !mask.canRedo;
    byId("clear").disabled = false;
  }

  #showEvidence() {
    const map = byId("show-heat").checked ? this.#maps[byId("heat-label").value] : null;
    this.view.showEvidence(map, Number(byId("opacity").value) / 100);
  }

  #showSaving() {
    const why = this.#whyNot();
    byId("why-not").textContent = why;
    byId("save").disabled = why !== "";
  }

  #whyNot() {
    if (!this.model || this.model.dataset === null) {
      return "Saving is off: the server was started without --dataset.";
    }
    if (!this.#prediction) return "Open a case, or drop its image.";
    if (!this.#prediction.case) {
      return `This image is not in the dataset ${this.model.dataset}; import it first (dxseg import).`;
    }
    return byId("role").value ? "" : "Choose the role of the annotator.";
  }

  async #save() {
    const { mask } = this;
    const { case: { case_id, mask: previous }, label_prompt } = this.#prediction;
    const runs = this.model.mask_classes.map((name, place) => [
      name, encode(mask.labels, mask.height, mask.width, place + 1),
    ]);
    const role = byId("role").value;
    byId("save").disabled = true;
    await this.#try(async () => {
      const saved = await saveMask({ case_id, role, previous, label_prompt, mask: Object.fromEntries(runs) });
      if (this.#prediction?.case?.case_id === case_id) {
        this.#prediction.case = saved.case;
        this.#unsaved = false;
      }
      await this.queue.refresh();
      this.say(`Saved as ${saved.case.mask}. ${saved.waiting} cases are left.`);
    });
    this.#showSaving();
  }

  async #try(work) {
    byId("failure").textContent = "";
    try {
      await work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    if (error instanceof TokenError) {
      byId("entry-why").textContent = error.message;
      byId("entry").showModal();
      return;
    }
    this.say("");
    byId("failure").textContent = error.message;
  }

  #listen() {
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    on("file", "change", ({ target }) => target.files.length && this.openFile(target.files[0]));
    on("show-mask", "change", () => this.#showMask());
    for (const id of ["show-heat", "heat-label", "opacity"]) on(id, "input", () => this.#showEvidence());
    on("size", "input", () => this.resize(0));
    on("class", "change", () => this.chooseClass(this.value));
    on("undo", "click", () => this.undo());
    on("redo", "click", () => this.redo());
    on("clear", "click", () => { this.tools.cancel(); this.mask.clear(); this.drawn(); });
    on("nearer", "click", () => this.view.zoom(1.25));
    on("farther", "click", () => this.view.zoom(0.8));
    on("fit", "click", () => this.view.fit());
    on("role", "change", () => this.#showSaving());
    on("save", "click", () => this.#save());
    on("tools", "click", ({ target }) => target.dataset.tool && this.choose(target.dataset.tool));
    on("entry", "submit", (event) => {
      event.preventDefault();
      setToken(byId("token").value);
      location.reload();
    });
    addEventListener("beforeunload", (event) => this.#unsaved && event.preventDefault());
    this.#takeDrops();
  }

  #takeDrops() {
    const view = byId("view");
    addEventListener("dragover", (event) => {
      event.preventDefault();
      view.classList.add("over");
    });
    addEventListener("dragleave", () => view.classList.remove("over"));
    addEventListener("drop", (event) => {
      event.preventDefault();
      view.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.openFile(file);
    });
  }
}

async function decodeImages({ image_png, evidence }) {
  const names = Object.keys(evidence ?? {});
  const maps = await Promise.all(names.map((name) => load(evidence[name])));
  return [await load(image_png), Object.fromEntries(names.map((name, place) => [name, maps[place]]))];
}

async function load(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  return image;
}

new Page();
