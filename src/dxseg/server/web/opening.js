// Opening images, volumes and their slices: what is requested for them, and what of it is shown.

import { IS_VOLUME, predictCase, predictFile } from "./api.js";
import { OpenCase } from "./open_case.js";
import * as results from "./results.js";
import { showSlices } from "./slices.js";
import { volumeOfCase, volumeOfFiles } from "./volume.js";

const byId = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const SETTLE = 60; // ms that a slice is wanted before it is predicted

export class Opening {
  open = null; // the OpenCase that is wanted; its mask is null until it is loaded
  volume = null; // the Volume that it is a slice of; null for an image
  #entered = null; // the volume whose slice was shown last
  #requests = 0;

  /** `page` has the parts that show what is opened. */
  constructor(page) { this.page = page; }

  /** Open what was dropped or chosen: an image, a volume, or the files of a series. */
  openFiles(files) {
    if (files.length > 1) return this.#openVolume(() => volumeOfFiles(files));
    const [file] = files;
    const predict = (labelPrompt) => predictFile(file, labelPrompt);
    return this.#openImage({ name: file.name, caseId: "", predict, files }, "");
  }

  openCase({ case_id, label_prompt = "", volume_id }) {
    if (volume_id) return this.#openVolume(() => volumeOfCase(case_id, (own) => this.#known(own)), case_id);
    const predict = (labelPrompt) => predictCase(case_id, labelPrompt);
    return this.#openImage({ name: case_id, caseId: case_id, predict }, this.#known(label_prompt));
  }

  /** The label prompt of a label of the table; "" where the model does not have it. */
  #known(label) { return label.split(";").every((name) => this.page.model.labels.includes(name)) ? label : ""; }

  async #openImage(source, labelPrompt) {
    if (!(await this.#mayOpen())) return;
    if (source.caseId) this.page.list.mark(source.caseId); // also if it cannot be opened: the next one comes after it
    await this.#enter(new OpenCase(source, labelPrompt));
  }

  /** Open the volume that `find` resolves to; `caseId` is its entry in the work list. */
  async #openVolume(find, caseId = "") {
    if (!(await this.#mayOpen())) return;
    if (caseId) this.page.list.mark(caseId);
    this.open = null;
    this.#clear();
    const request = this.#begin("Reading the volume.");
    try {
      const volume = await find();
      if (request !== this.#requests) return;
      this.volume = volume;
      if (volume.entry) this.page.list.mark(volume.entry);
      await this.#enter(volume.open);
    } catch (error) {
      if (request === this.#requests) this.#failToOpen(error);
    } finally {
      this.#end(request);
    }
  }

  /** Whether another case may be opened now; then nothing of the volume before is left. */
  async #mayOpen() {
    await this.page.started;
    if (!this.page.model || !(await this.page.saving.mayLeave())) return false;
    this.volume?.leave();
    this.volume = null;
    return true;
  }

  /** Show another slice of the volume. */
  async goTo(index, direction = 1) {
    const { volume, page } = this;
    if (!volume || index === volume.index) return;
    if (page.tools.busy) page.say("Finish or cancel what is begun first.");
    else if (index < 0 || index >= volume.length) this.page.say(index < 0 ? "The first slice." : "The last slice.");
    else {
      this.page.saving.leaveSlice();
      volume.index = index;
      await this.#enter(volume.open, direction);
    }
  }

  /** Show the slice before or after; returns whether there is a volume. */
  scroll(step) {
    if (this.volume && step) this.goTo(this.volume.index + step, step);
    return this.volume !== null;
  }

  /** Draw the mask of this slice on the next one, or the one before, and show that. */
  async propagate(step) {
    const { open, volume } = this;
    if (!volume || !open?.mask) return;
    const labels = open.mask.labels.slice();
    const [from, wanted] = [volume.index + 1, volume.index + step];
    await this.goTo(wanted, step);
    if (this.volume !== volume || volume.index !== wanted) return; // another slice was opened meanwhile
    if (this.open !== open && this.open === volume.open && this.page.editor.open === this.open) {
      this.page.step("take", `As on slice ${from}`, labels);
    }
  }

  async #enter(open, direction = 1) {
    this.open = open;
    this.#clear();
    results.setLabelPrompt(open.labelPrompt);
    await this.predict();
    if (this.open === open) this.volume?.loadAhead(direction, this.page.model.mask_classes);
  }

  /** Nothing of the case before may stay on the screen. */
  #clear() {
    this.page.tools.cancel();
    this.page.editor.clear();
    this.page.display.clear();
    this.page.review?.show(null);
    byId("name").textContent = byId("failure").textContent = "";
    this.page.problem(null);
    byId("draft").hidden = true;
    byId("swap").disabled = true;
    showSlices(this.volume);
    this.page.saving.show();
  }

  /** Request a prediction with the label prompt; only the last request is shown. */
  async predict() {
    const { open } = this;
    const request = this.#begin("Predicting.");
    try {
      if (this.volume && !open.isLoading) await pause(SETTLE); // one that is scrolled past is not predicted
      if (request !== this.#requests) return;
      const loaded = await open.load(results.getLabelPrompt(), this.page.model.mask_classes);
      if (request === this.#requests) this.#show(loaded);
    } catch (error) {
      if (request === this.#requests) await this.#failToPredict(open, error);
    } finally {
      this.#end(request);
    }
  }

  #begin(message) {
    byId("view").setAttribute("aria-busy", "true");
    this.page.say(message);
    return ++this.#requests;
  }

  #end(request) { if (request === this.#requests) byId("view").removeAttribute("aria-busy"); }

  async #failToPredict(open, error) {
    if (error.kind === IS_VOLUME && open.source.files) await this.#openVolume(() => volumeOfFiles(open.source.files));
    else if (this.page.editor.open === open) {
      this.page.say("");
      this.page.problem(error);
    } else this.#failToOpen(error);
  }

  #failToOpen(error) {
    this.page.say("");
    byId("failure").textContent = error.message;
  }

  #show({ prediction, saved, pixels, evidence, probabilities }) {
    const { open } = this;
    const { editor } = this.page;
    const enters = editor.open !== open;
    const first = !open.mask;
    if (first) open.saved = saved;
    const follow = open.take(prediction, this.page.model.mask_classes);
    if (enters) this.#showOpened(pixels, probabilities);
    else if (follow) editor.step("replace", "Predicted", open.proposal);
    this.page.display.setEvidence(evidence, results.showProbabilities(prediction.label_probabilities));
    this.page.saving.show();
    this.page.review?.show(open);
    if (open.saved && first) this.page.say(`The saved mask: ${editor.areas()}. The proposal can be compared.`);
    else if (first || follow) this.page.say(`Predicted: ${editor.areas()}.`);
    else if (enters) this.page.say(`As you left it: ${editor.areas()}.`);
    else this.page.say("Predicted again. What is drawn stays; the proposal can be taken instead.");
  }

  /** Show the image and the mask of a case that comes onto the screen. */
  #showOpened(pixels, probabilities) {
    const { open, volume } = this;
    const stay = volume !== null && this.#entered === volume;
    this.#entered = volume;
    this.page.editor.show(open, pixels, probabilities, (open.saved ?? open.proposal).slice(), stay);
    this.page.tools.reset();
    this.page.display.show(pixels, stay);
    byId("name").textContent = volume && !open.caseId ? volume.name : open.name;
    byId("swap").disabled = false;
    byId("swap").textContent = "Take proposal";
    if (!volume?.entry) this.page.list?.mark(open.caseId);
    if (open.prediction.case) this.page.saving.offerDraft(open);
  }
}
