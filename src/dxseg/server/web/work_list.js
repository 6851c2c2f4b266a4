// The work list: cases by state, label and name, page by page; what comes next; progress.

import { getCases, getNext } from "./api.js";
import { progress } from "./day.js";

const byId = (id) => document.getElementById(id);
const PAGE = 100;
const REFRESH = 60_000; // ms: others work on the list too
const STATES = { waiting: "waiting", drawn: "drawn", confirmed: "confirmed", given: "given", "set-aside": "set aside" };

export class WorkList {
  #offset = 0;
  #total = 0;
  #current = "";
  #labels = null;
  #requests = 0;
  #nexts = 0;
  #failing = false; // whether the last refresh failed, and the page says so

  /** `open` is called with the chosen case, `failed` with errors. */
  constructor(open, failed) {
    Object.assign(this, { open, failed });
    byId("waiting").hidden = false;
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    on("next", "click", () => this.openNext());
    on("state", "change", () => this.#first());
    on("label-filter", "change", () => this.#first());
    on("search", "input", () => this.#first());
    on("earlier", "click", () => this.#turn(-PAGE));
    on("later", "click", () => this.#turn(PAGE));
    setInterval(() => document.hidden || this.refresh(), REFRESH);
  }

  async refresh() {
    const request = ++this.#requests;
    try {
      const found = await getCases({ ...this.#filter, offset: this.#offset, limit: PAGE });
      if (request !== this.#requests) return; // another filter is wanted by now
      this.#show(found);
      if (this.#failing) this.failed(null); // the server is back
      this.#failing = false;
    } catch (error) {
      this.#failing = true;
      this.failed(error);
    }
  }

  /** Mark the open case; "" for none. */
  mark(caseId) {
    this.#current = caseId || this.#current; // the next one comes after the last one
    for (const button of byId("queue").querySelectorAll("button")) {
      if (button.dataset.case === caseId) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  /** Open the case after the last one that was open. */
  async openNext() {
    const request = ++this.#nexts;
    try {
      const { case: found } = await getNext({ ...this.#filter, after: this.#current });
      if (request !== this.#nexts) return; // it was asked for again meanwhile
      if (found) await this.open(found);
      else byId("count").textContent = "No other case matches.";
    } catch (error) {
      this.failed(error);
    }
  }

  get #filter() {
    const label = byId("label-filter").value;
    return { state: byId("state").value, search: byId("search").value, label: label === "any" ? null : label.slice(1) };
  }

  #first() {
    this.#offset = 0;
    this.refresh();
  }

  #turn(step) {
    this.#offset = Math.max(0, this.#offset + step);
    this.refresh();
  }

  #show({ waiting, states, labels, total, cases }) {
    this.#total = total;
    const all = Object.values(states).reduce((sum, count) => sum + count, 0);
    const { count, median } = progress();
    const pace = median === null ? "" : `, ${Math.round(median)} s a case (median)`;
    byId("count").textContent = waiting ? `${waiting} left of ${all}.` : `None left of ${all}.`;
    byId("mine").textContent = `Mine today: ${count}${pace}.`;
    byId("progress").max = all || 1;
    byId("progress").value = all - waiting;
    for (const option of byId("state").options) {
      if (option.value in states) option.textContent = `${STATES[option.value]} (${states[option.value]})`;
    }
    this.#showLabels(labels);
    byId("next").disabled = !total;
    const end = this.#offset + cases.length;
    byId("range").textContent = total ? `${this.#offset + 1} to ${end} of ${total}` : "No case matches.";
    byId("earlier").disabled = !this.#offset;
    byId("later").disabled = end >= total;
    byId("queue").start = this.#offset + 1;
    byId("queue").replaceChildren(...cases.map((one) => this.#item(one)));
    this.mark(this.#current);
  }

  /** Options have "=" before the label, so that a label may be named "any". */
  #showLabels(labels) {
    const names = JSON.stringify(labels);
    if (this.#labels === names) return;
    this.#labels = names;
    const chosen = byId("label-filter").value;
    const options = labels.map((label) => new Option(label || "without a label", `=${label}`));
    byId("label-filter").replaceChildren(new Option("any label", "any"), ...options);
    byId("label-filter").value = labels.includes(chosen.slice(1)) ? chosen : "any";
  }

  #item(one) {
    const button = document.createElement("button");
    const state = byId("state").value === "any" ? STATES[one.state] : "";
    const slices = one.volume_id ? `${one.slices} slices${one.left ? `, ${one.left} left` : ""}` : "";
    button.textContent = [one.volume_id || one.case_id, slices, one.label, state].filter(Boolean).join(", ");
    if (one.taken) button.append(", ", Object.assign(document.createElement("em"), { textContent: "open elsewhere" }));
    button.dataset.case = one.case_id;
    button.addEventListener("click", () => this.open(one));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}
