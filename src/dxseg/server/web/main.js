// The page: what is open, what is asked of the server, and who is told of the answer.

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
  #source = null; // ask(known) gives the answer; name
  #answer = null;
  #maps = {};
  #asked = 0;
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
    results.showChoices(this.model, () => this.#source && this.#ask());
    if (this.model.dataset !== null) {
      this.queue = new Queue((one) => this.openCase(one));
      await this.#try(() => this.queue.refresh());
    }
    this.#showSaving();
  }

  openFile(file) {
    this.#open({ name: file.name, ask: (known) => predictFile(file, known) }, "");
  }

  openCase({ case_id, label }) {
    const names = label.split(";");
    const known = names.every((name) => this.model.labels.includes(name)) ? label : "";
    this.#open({ name: case_id, ask: (told) => predictCase(case_id, told) }, known);
  }

  async #open(source, known) {
    await this.#started; // a file may be dropped before the model is known
    if (!this.model) return;
    if (this.#unsaved && !confirm("The correction is not saved. Leave it?")) return;
    this.#source = source;
    this.#answer = null;
    results.setKnown(known);
    this.#ask();
  }

  /** Ask for a prediction with what is known; only the answer to the last question counts. */
  async #ask() {
    const asked = ++this.#asked;
    const source = this.#source;
    byId("view").setAttribute("aria-busy", "true");
    this.say("The model is asked.");
    await this.#try(async () => {
      const answer = await source.ask(results.getKnown());
      const [picture, maps] = await decodePictures(answer);
      if (asked === this.#asked) this.#show(answer, picture, maps);
    });
    if (asked === this.#asked) byId("view").removeAttribute("aria-busy");
  }

  #show(answer, picture, maps) {
    const again = this.#answer !== null; // the same image, another known diagnosis
    this.#answer = answer;
    this.#maps = maps;
    const { height, width } = answer.image;
    const labels = new Uint8Array(height * width);
    this.model.mask_classes.forEach((name, place) => decode(answer.mask.rle[name], place + 1, labels));
    if (!again) {
      this.mask = new Mask(width, height, this.model.mask_classes.length);
      this.view.show(picture, this.mask.classes);
      this.tools.reset();
      this.#unsaved = false;
    }
    this.mask.replace(labels);
    byId("name").textContent = answer.case ? `Case ${answer.case.case_id}` : this.#source.name;
    this.queue?.mark(answer.case?.case_id ?? null);
    results.showProbabilities(answer.label_probabilities);
    this.#showMask();
    this.#showEvidence();
    this.#showSaving();
    this.say(`Predicted: ${this.#told()}.`);
  }

  // What tools ask and tell.

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
    byId("size-told").value = this.width;
    this.say(`Width ${this.width}`);
  }

  drawn() {
    this.#unsaved = this.model.dataset !== null;
    this.#showMask();
    this.#showSaving();
    this.say(`Drawn: ${this.#told()}.`);
  }

  undo() { this.#step("undo", "Undone"); }
  redo() { this.#step("redo", "Redone"); }

  #step(name, told) {
    if (!this.mask) return;
    this.tools.cancel();
    this.mask[name]();
    this.#unsaved = this.model.dataset !== null;
    this.#showMask();
    this.say(`${told}: ${this.#told()}.`);
  }

  say(text) { byId("status").textContent = text; }

  sayPlace(x, y) {
    const value = this.mask.labels[y * this.mask.width + x];
    this.say(`Column ${x}, row ${y}: ${this.model.mask_classes[value - 1] ?? "background"}`);
  }

  #told() {
    const spacing = this.#answer.image.spacing_mm;
    const areas = this.mask.areas.map((pixels) => results.area(pixels, spacing));
    return this.model.mask_classes.map((name, place) => `${name} ${areas[place]}`).join(", ");
  }

  // What is shown.

  #showMask() {
    const { mask } = this;
    if (!mask) return;
    this.view.showMask(mask.labels, byId("show-mask").checked);
    results.showAreas(this.model.mask_classes, mask.areas, this.#answer.image.spacing_mm);
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
    if (!this.#answer) return "Open a case, or drop its image.";
    if (!this.#answer.case) {
      return `This image is not in the dataset ${this.model.dataset}; import it first (dxseg import).`;
    }
    return byId("role").value ? "" : "Choose the role of who drew the mask.";
  }

  async #save() {
    const { mask } = this;
    const { case: { case_id, mask: previous }, known } = this.#answer;
    const runs = this.model.mask_classes.map((name, place) => [
      name, encode(mask.labels, mask.height, mask.width, place + 1),
    ]);
    const role = byId("role").value;
    byId("save").disabled = true;
    await this.#try(async () => {
      const saved = await saveMask({ case_id, role, previous, known, mask: Object.fromEntries(runs) });
      if (this.#answer?.case?.case_id === case_id) {
        this.#answer.case = saved.case;
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

async function decodePictures({ picture, evidence }) {
  const names = Object.keys(evidence ?? {});
  const maps = await Promise.all(names.map((name) => load(evidence[name])));
  return [await load(picture), Object.fromEntries(names.map((name, place) => [name, maps[place]]))];
}

async function load(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  return image;
}

new Page();
