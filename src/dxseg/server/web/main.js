// The page: opening cases, and the wires between its parts.

import { askTraining, getMask, getModel, predictCase, predictFile, takeToken } from "./api.js";
import { note } from "./day.js";
import { Display } from "./display.js";
import { Editor } from "./editor.js";
import { OpenCase } from "./open_case.js";
import { showPanels } from "./panels.js";
import { Pixels, unpackValues } from "./pixels.js";
import * as results from "./results.js";
import { Review } from "./review.js";
import { decode } from "./runs.js";
import { Saving } from "./saving.js";
import { listenToKeys } from "./shortcuts.js";
import { Tools } from "./tools.js";
import { Training } from "./training.js";
import { View } from "./view.js";
import { WorkList } from "./work_list.js";

const byId = (id) => document.getElementById(id);

class Page {
  open = null; // the OpenCase that is wanted; its mask is null until it is loaded
  #requests = 0;
  #started;

  constructor() {
    showPanels();
    this.#started = this.#start();
    byId("file").addEventListener("change", ({ target }) => target.files.length && this.openFile(target.files[0]));
    this.#takeDrops();
  }

  async #start() {
    takeToken();
    try {
      this.model = await getModel();
    } catch (error) {
      this.problem(error);
      return;
    }
    this.view = new View(byId("view"), () => this.display?.showScale());
    this.editor = new Editor(this.view, this.model, () => this.saving.changed());
    this.tools = new Tools(this.view, this.editor);
    this.display = new Display(this.view, this.editor);
    this.saving = new Saving(this, this.model, (open) => this.#saved(open));
    results.showModel(this.model);
    results.showChoices(this.model, () => this.open && this.#predict());
    if (this.model.dataset !== null) {
      this.list = new WorkList((one) => this.openCase(one), (error) => this.problem(error));
      this.review = new Review(this, this.model, (kind) => this.#reviewed(kind));
    }
    if (this.model.training) {
      this.training = new Training(askTraining, (model) => this.#modelChanged(model), (error) => this.problem(error));
      this.training.refresh();
    }
    this.#listen();
    listenToKeys(this);
    this.saving.show();
    await this.list?.refresh();
  }

  // Opening.

  openFile(file) {
    const predict = (labelPrompt) => predictFile(file, labelPrompt);
    return this.#openSource({ name: file.name, caseId: "", predict }, "");
  }

  openCase({ case_id, label }) {
    const names = label.split(";");
    const known = names.every((name) => this.model.labels.includes(name)) ? label : "";
    const predict = (labelPrompt) => predictCase(case_id, labelPrompt);
    return this.#openSource({ name: case_id, caseId: case_id, predict }, known);
  }

  async #openSource(source, labelPrompt) {
    await this.#started; // a file may be dropped before the model is loaded
    if (!this.model || !(await this.saving.mayLeave())) return;
    this.open = new OpenCase(source, labelPrompt);
    this.#clear();
    if (source.caseId) this.list.mark(source.caseId); // also if it cannot be opened: the next one comes after it
    results.setLabelPrompt(labelPrompt);
    await this.#predict();
  }

  /** Nothing of the case before may stay on the screen. */
  #clear() {
    this.tools.cancel();
    this.editor.clear();
    this.display.clear();
    this.review?.show(null);
    byId("name").textContent = byId("failure").textContent = "";
    this.problem(null);
    byId("draft").hidden = true;
    byId("swap").disabled = true;
    this.saving.show();
  }

  /** Request a prediction with the label prompt; only the last request is shown. */
  async #predict() {
    const request = ++this.#requests;
    const { open } = this;
    byId("view").setAttribute("aria-busy", "true");
    this.say("Predicting.");
    try {
      const prediction = await open.source.predict(results.getLabelPrompt());
      const saved = await this.#readSaved(open, prediction);
      const unpacked = await unpack(prediction);
      if (request === this.#requests) this.#show(prediction, saved, unpacked);
    } catch (error) {
      if (request === this.#requests) this.#failToOpen(open, error);
    }
    if (request === this.#requests) byId("view").removeAttribute("aria-busy");
  }

  /** The mask that the case has; read once, because what is drawn starts with it. */
  async #readSaved(open, prediction) {
    if (open.mask || !prediction.case?.mask) return open.saved;
    const { mask } = await getMask(prediction.case.case_id, prediction.case.mask);
    return decode(mask, this.model.mask_classes, prediction.image);
  }

  #failToOpen(open, error) {
    this.say("");
    if (open.mask) this.problem(error);
    else byId("failure").textContent = error.message;
  }

  #show(prediction, saved, { pixels, evidence, probabilities }) {
    const { open, editor } = this;
    open.saved = saved;
    const follow = open.take(prediction, this.model.mask_classes);
    const first = !open.mask;
    if (first) {
      editor.show(open, pixels, probabilities, (saved ?? open.proposal).slice());
      this.tools.reset();
      this.display.show(pixels);
      byId("name").textContent = open.name;
      byId("swap").disabled = false;
      byId("swap").textContent = "Take proposal";
      this.list?.mark(open.caseId);
      if (prediction.case) this.saving.offerDraft(open);
    } else if (follow) editor.step("replace", "Predicted", open.proposal);
    this.display.setEvidence(evidence, results.showProbabilities(prediction.label_probabilities));
    this.saving.show();
    this.review?.show(open).catch((error) => this.problem(error));
    if (saved && first) this.say(`The saved mask: ${editor.areas()}. The proposal can be compared.`);
    else if (first || follow) this.say(`Predicted: ${editor.areas()}.`);
    else this.say("Predicted again. What is drawn stays; the proposal can be taken instead.");
  }

  // Used by the parts.

  say(text) { byId("status").textContent = text; }
  problem(error) { byId("problem").textContent = error?.message ?? ""; }

  choose(tool) {
    this.tools.choose(tool);
    for (const button of byId("tools").querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
    this.say(tool === "brush" || tool === "eraser" ? `${tool}, width ${this.editor.width}` : tool);
  }

  /** Do a step of the mask; an unfinished stroke is dropped. */
  step(name, message, ...values) {
    this.tools.cancel();
    this.editor.step(name, message, ...values);
  }

  /** Take the proposal, or the saved mask where the proposal is shown; it can be undone. */
  swap() {
    const { open } = this;
    if (!open?.mask) return;
    const shown = open.mask.labels;
    const back = open.saved && shown.every((value, place) => value === open.proposal[place]);
    this.step("replace", back ? "The saved mask" : "The proposal", back ? open.saved : open.proposal);
    byId("swap").textContent = open.saved && !back ? "Take saved mask" : "Take proposal";
  }

  async saveAndNext() {
    if (await this.saving.save()) await this.list.openNext();
  }

  async #saved(open) {
    if (open === this.open) await this.review.show(open);
    await this.list.refresh();
    await this.training?.refresh();
  }

  /** Another model is served; what is open keeps its prediction. */
  #modelChanged(model) {
    results.showModel({ ...this.model, model });
    this.say(`Model ${model} is in use from the next case on.`);
  }

  async #reviewed(kind) {
    if (kind === "label" || kind === "reopen") {
      await this.list.refresh();
      return;
    }
    note("", (Date.now() - this.open.opened) / 1000);
    await this.list.refresh();
    await this.list.openNext();
  }

  #listen() {
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    const { editor, view } = this;
    on("show-mask", "change", () => editor.showMask());
    on("size", "input", () => editor.resize(0));
    on("class", "change", () => editor.chooseClass(editor.value));
    on("undo", "click", () => this.step("undo", "Undone"));
    on("redo", "click", () => this.step("redo", "Redone"));
    on("clear", "click", () => this.step("clear", "Cleared"));
    on("holes", "click", () => this.step("fillHoles", "Holes filled", editor.value));
    on("largest", "click", () => this.step("keepLargest", "Largest part kept", editor.value));
    on("nearer", "click", () => view.zoom(1.25));
    on("farther", "click", () => view.zoom(0.8));
    on("fit", "click", () => view.fit());
    on("swap", "click", () => this.swap());
    on("save-next", "click", () => this.saveAndNext());
    on("tools", "click", ({ target }) => target.dataset.tool && this.choose(target.dataset.tool));
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

/** Decode the images of a prediction. */
async function unpack({ image_png, image_values, evidence, probability_maps }) {
  const decoded = async (pngs) => Promise.all(Object.entries(pngs ?? {}).map(async ([name, png]) => [name, await load(png)]));
  const probabilities = (await decoded(probability_maps)).map(([, map]) => map);
  const pixels = new Pixels(await load(image_png), await unpackValues(image_values));
  return { pixels, probabilities, evidence: Object.fromEntries(await decoded(evidence)) };
}

async function load(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  return image;
}

new Page();
