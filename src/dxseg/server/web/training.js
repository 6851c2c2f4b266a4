// Training: the model in use with its figures, a training with its progress, and the model it offers.

import { ask } from "./dialogs.js";

const byId = (id) => document.getElementById(id);
const SOON = 2000; // ms between two looks at a training that runs
const LATER = 30_000;
const PHASES = { preparing: "reading images", stage1: "labels", stage2: "masks", self_training: "pseudo-labels", evaluating: "comparing" };

export class Training {
  #timer = 0;
  #acting = false;
  #failing = false; // whether the last look failed, and the page says so

  /** `send(method, path, content)` asks the server; `changed` is called when another model is served, `failed` with errors. */
  constructor(send, changed, failed) {
    Object.assign(this, { send, changed, failed });
    byId("training").hidden = false;
    const on = (id, act) => byId(id).addEventListener("click", () => this.#act(act));
    on("train", () => this.send("POST", "v1/training"));
    on("train-cancel", () => this.#cancel());
    on("train-use", () => this.#use(this.status.offered));
    on("train-back", () => this.#use(this.status.previous));
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  async refresh() {
    clearTimeout(this.#timer);
    try {
      if (!this.#acting) this.#show(await this.send("GET", "v1/training"));
      if (this.#failing) this.failed(null); // the server is back
      this.#failing = false;
    } catch (error) {
      this.#failing = true;
      this.failed(error);
    }
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.refresh(), this.status?.state === "running" ? SOON : LATER);
  }

  /** Do one thing at a time; what the server refuses is said, and what is shown is what it has. */
  async #act(act) {
    if (this.#acting) return;
    this.#acting = true;
    this.#enable();
    try {
      const status = await act();
      this.failed(null);
      if (status) this.#show(status);
    } catch (error) {
      this.failed(error);
    }
    this.#acting = this.#failing = false; // what is said now is of the action
    await this.refresh();
  }

  async #cancel() {
    const text = this.status.state === "done" ? "Drop the new model?" : "Cancel the training? What it has learned is removed.";
    return (await ask(text, "Yes", "No")) ? this.send("DELETE", "v1/training") : null;
  }

  #use({ model }) {
    return this.send("POST", "v1/training/model", { model });
  }

  #show(status) {
    const before = this.status?.in_use.model;
    this.status = status;
    const { state, in_use, previous, offered, comparison } = status;
    byId("train-model").textContent = figures(in_use);
    byId("train-state").textContent = describe(status);
    byId("train-progress").hidden = state !== "running";
    byId("train-progress").value = status.progress?.fraction ?? 0;
    byId("train-offer").textContent = offered ? `New model: ${figures(offered)}. ${compare(comparison)}` : "";
    byId("train").textContent = state === "stopped" ? "Continue" : "Train";
    byId("train").hidden = state === "running";
    byId("train-cancel").hidden = state === "idle";
    byId("train-cancel").textContent = state === "done" ? "Drop the new model" : "Cancel";
    byId("train-use").hidden = !offered;
    byId("train-back").hidden = !previous;
    byId("train-back").title = previous ? figures(previous) : "";
    this.#enable();
    if (before && before !== in_use.model) this.changed(in_use.model);
  }

  #enable() {
    for (const button of byId("training").querySelectorAll("button")) button.disabled = this.#acting;
    if (this.status?.state !== "stopped" && !this.status?.new_masks) byId("train").disabled = true;
  }
}

function describe({ state, new_masks, train_after, masks, progress, seconds_left, problem }) {
  const fresh = `${new_masks} new ${new_masks === 1 ? "mask" : "masks"}`;
  if (state === "running") {
    const phase = PHASES[progress.phase] ?? progress.phase.replace(/^student/, "student network ").trim(); // rounds: student2, student3
    const left = seconds_left === null ? "" : `, about ${duration(seconds_left)} left`;
    return `Training with ${masks} masks: ${phase}, step ${progress.step} of ${progress.steps}${left}.`;
  }
  if (state === "stopped") return `The training has stopped: ${problem}`;
  return train_after === null ? `${fresh} since.` : `${fresh} since; a training starts by itself after ${train_after}.`;
}

function figures({ model, masks, finished, split, dice, low, high, images }) {
  const day = finished.slice(0, 10);
  if (dice === null) return `${model}, ${masks} masks, ${day}, not evaluated`;
  const interval = low === null ? "" : ` (${low.toFixed(3)} to ${high.toFixed(3)})`;
  return `${model}, ${masks} masks, ${day}, Dice ${dice.toFixed(3)}${interval} on ${images} ${split} images`;
}

function compare({ difference, low, high, images }) {
  if (difference === null) return "The two cannot be compared.";
  const interval = low === null ? "one patient, no interval" : `${signed(low)} to ${signed(high)}`;
  return `Against the one in use: ${signed(difference)} (${interval}) on the same ${images} images.`;
}

const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(3);
const duration = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);
