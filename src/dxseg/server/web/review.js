// Review of the open case: its history, comparison of masks, second reading, proposals.

import { getHistory, getMask, saveReview } from "./api.js";
import { isMine } from "./day.js";
import { dice } from "./raster.js";
import { decode } from "./runs.js";

const byId = (id) => document.getElementById(id);
const WHAT = {
  mask: "mask saved", confirm: "mask confirmed", "cannot-tell": "cannot tell", reject: "image rejected",
  reopen: "back into the list", label: "other label proposed",
};

export class Review {
  #open = null;
  #request = 0;
  #compared = null; // label map that what is drawn is compared with

  /** `page` has the view, and callbacks for messages; `done(kind, open)` is called after a review was stored. */
  constructor(page, model, done) {
    Object.assign(this, { page, model, done });
    byId("review").hidden = false;
    const on = (id, handle) => byId(id).addEventListener("click", handle);
    for (const kind of ["confirm", "cannot-tell", "reject", "reopen"]) on(kind, () => this.send(kind));
    on("propose-label", () => this.send("label", byId("other-label").value));
    byId("compare").addEventListener("change", () => this.#compare());
    byId("other-label").replaceChildren(...model.labels.map((name) => new Option(name)));
    byId("label-proposal").hidden = !model.labels.length;
  }

  /** Show the history of a case; null for none. */
  async show(open) {
    this.#open = open;
    const request = ++this.#request;
    byId("history").replaceChildren();
    byId("review").disabled = !open?.prediction?.case;
    this.#fillCompare([]);
    if (!open?.prediction?.case) return;
    try {
      const { entries } = await getHistory(open.caseId);
      if (request !== this.#request) return;
      byId("confirm").disabled = !open.previous;
      byId("history").replaceChildren(...entries.map((entry) => this.#entry(entry)));
      this.#fillCompare(entries.filter(({ kind }) => kind === "mask").map(({ mask }) => mask));
    } catch (error) {
      if (request === this.#request) this.page.problem(error);
    }
  }

  /** Store a review of the open case. */
  async send(kind, label = "") {
    const open = this.#open;
    if (!open?.prediction?.case) return;
    const role = this.page.saving.role();
    if (!role || (kind === "confirm" && !this.#showsSaved(open))) return;
    try {
      await saveReview({ case_id: open.caseId, role, kind, mask: open.previous, label });
      this.page.say(`${WHAT[kind]}: ${open.caseId}.`);
      if (this.#open === open) await this.show(open);
      await this.done(kind, open);
    } catch (error) {
      this.page.problem(error);
    }
  }

  /** Whether what is on the screen is the saved mask: nothing else is confirmed. */
  #showsSaved(open) {
    if (open.saved && open.saved.every((value, place) => value === open.mask.labels[place])) return true;
    this.page.problem(new Error("What is drawn is not the saved mask: save it, or take the saved mask again before you confirm it."));
    return false;
  }

  /** Compare with the next mask of the list, or with none after the last. */
  compareNext() {
    const { options, selectedIndex } = byId("compare");
    byId("compare").selectedIndex = (selectedIndex + 1) % options.length;
    this.#compare();
  }

  #fillCompare(masks) {
    const options = [new Option("nothing", "")];
    if (this.#open?.proposal) options.push(new Option("the proposal", "proposal"));
    for (const mask of [...masks].reverse()) options.push(new Option(this.#name(mask), mask));
    if (this.#open?.previous && !masks.includes(this.#open.previous)) {
      options.push(new Option("the saved mask", this.#open.previous));
    }
    byId("compare").replaceChildren(...options);
    this.#compare();
  }

  async #compare() {
    const open = this.#open;
    const name = byId("compare").value;
    let labels = null;
    try {
      if (name === "proposal") labels = open.proposal;
      else if (name) labels = await this.read(open, name);
    } catch (error) {
      this.page.problem(error);
    }
    if (open !== this.#open || byId("compare").value !== name) return;
    this.page.view.compare(labels);
    this.#compared = labels;
    this.changed();
    if (labels) this.page.say(`Compared with ${byId("compare").selectedOptions[0].text}: ${byId("dice").textContent}.`);
  }

  /** What is drawn has changed. */
  changed() {
    const [labels, drawn] = [this.#compared, this.#open?.mask?.labels];
    byId("dice").textContent = labels && drawn ? `Dice ${dice(labels, drawn).toFixed(3)} with what is drawn` : "";
  }

  /** Read a mask that the case has or had, as a label map. */
  async read(open, name) {
    const { mask } = await getMask(open.caseId, name);
    return decode(mask, this.model.mask_classes, open.prediction.image);
  }

  #name(mask) {
    const current = mask === this.#open.previous ? "saved mask" : "earlier mask";
    return `${current}${isMine(mask) ? ", mine" : ""}`;
  }

  #entry({ time, role, kind, mask, label }) {
    const item = document.createElement("li");
    const mine = kind === "mask" && isMine(mask) ? " (mine)" : "";
    const what = label && kind === "label" ? `${WHAT[kind]}: ${label}` : WHAT[kind];
    item.textContent = `${new Date(time).toLocaleString()}: ${what}, ${role}${mine}`;
    return item;
  }
}
