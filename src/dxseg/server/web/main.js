// The page: its parts, and the wires between them.

import { askTraining, getModel, takeToken } from "./api.js";
import { note } from "./day.js";
import { Display } from "./display.js";
import { Editor } from "./editor.js";
import { Opening } from "./opening.js";
import { returnFocus, showPanels } from "./panels.js";
import * as results from "./results.js";
import { Review } from "./review.js";
import { Saving } from "./saving.js";
import { listenToKeys } from "./shortcuts.js";
import { listenToSlices } from "./slices.js";
import { Tools } from "./tools.js";
import { Training } from "./training.js";
import { View } from "./view.js";
import { WorkList } from "./work_list.js";

const byId = (id) => document.getElementById(id);

class Page {
  opening = new Opening(this);

  constructor() {
    showPanels();
    returnFocus();
    this.started = this.#start(); // a file may be dropped before
    byId("file").addEventListener("change", ({ target }) => {
      const files = [...target.files];
      target.value = ""; // its name must not stand beside another case; and the same file can be chosen again
      if (files.length) this.opening.openFiles(files);
    });
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
    this.display = new Display(this.view, this.editor, (step) => this.opening.scroll(step));
    this.saving = new Saving(this, this.model, (open) => this.#saved(open));
    results.showModel(this.model);
    results.showChoices(this.model, () => this.open && this.opening.predict());
    if (this.model.dataset !== null) {
      this.list = new WorkList((one) => this.opening.openCase(one), (error) => this.problem(error));
      this.review = new Review(this, this.model, (kind, open) => this.#reviewed(kind, open));
    }
    if (this.model.training) {
      this.training = new Training(askTraining, (model) => this.#modelChanged(model), (error) => this.problem(error));
      this.training.refresh();
    }
    this.#listen();
    listenToSlices(this);
    listenToKeys(this);
    this.saving.show();
    await this.list?.refresh();
  }

  // Used by the parts.

  get open() { return this.opening.open; }
  get volume() { return this.opening.volume; }

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
    if (await (this.volume ? this.saving.saveSeen() : this.saving.save())) await this.list.openNext();
  }

  async #saved(open) {
    if (open === this.open) await this.review.show(open);
    await this.list.refresh();
    await this.training?.refresh();
  }

  /** Another model is served; what is open keeps its prediction. */
  #modelChanged(model) {
    results.showModelName({ ...this.model, model }); // the chosen class stays
    this.say(`Model ${model} is in use from the next case on.`);
  }

  async #reviewed(kind, open) {
    if (kind === "label" || kind === "reopen") {
      await this.list.refresh();
      return;
    }
    note("", (Date.now() - open.opened) / 1000);
    await this.list.refresh();
    if (open !== this.open) return; // the reader has gone on already
    if (this.volume) this.opening.scroll(1);
    else await this.list.openNext();
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
      const files = [...event.dataTransfer.files];
      if (files.length) this.opening.openFiles(files);
    });
  }
}

new Page();
