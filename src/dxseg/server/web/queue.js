// The cases of the dataset without a mask, the next one first.

import { getQueue } from "./api.js";

const byId = (id) => document.getElementById(id);

export class Queue {
  #cases = [];
  #current = null;

  /** `open` is called with the chosen case. */
  constructor(open) {
    this.open = open;
    byId("waiting").hidden = false;
    byId("next").addEventListener("click", () => this.#openNext());
  }

  async refresh() {
    const { waiting, cases } = await getQueue();
    this.#cases = cases;
    const more = waiting > cases.length ? `, the first ${cases.length} of them here` : "";
    byId("count").textContent = waiting ? `${waiting} left${more}.` : "None left.";
    byId("next").disabled = !waiting;
    byId("queue").replaceChildren(...cases.map((one) => this.#item(one)));
    this.mark(this.#current);
  }

  /** Mark the open case; null for none. */
  mark(caseId) {
    this.#current = caseId;
    for (const button of byId("queue").querySelectorAll("button")) {
      if (button.dataset.case === caseId) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  #openNext() {
    const at = this.#cases.findIndex((one) => one.case_id === this.#current);
    this.open(this.#cases[(at + 1) % this.#cases.length]);
  }

  #item(one) {
    const button = document.createElement("button");
    button.textContent = one.label ? `${one.case_id}, ${one.label}` : one.case_id;
    button.dataset.case = one.case_id;
    button.addEventListener("click", () => this.open(one));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}
