// Corrections that are not saved yet, kept in the browser until they are.

import { encode } from "./runs.js";

const PREFIX = "dxseg-draft:";
const MOST = 50;
const WAIT = 500; // ms after the last change
const DAYS = 30;

export class Drafts {
  #timer = 0;
  #waiting = new Map(); // what is to be kept, by caseId

  /** `failed(message)` is called where the browser refuses. */
  constructor(dataset, classes, failed) {
    Object.assign(this, { dataset, classes, failed });
    addEventListener("pagehide", () => this.flush());
    document.addEventListener("visibilitychange", () => document.hidden && this.flush());
    for (const { key, time } of this.#all()) if (Date.now() - time > DAYS * 864e5) localStorage.removeItem(key);
  }

  /** Keep the mask of an open case soon; changes that follow soon are kept with it. */
  keep(open) {
    clearTimeout(this.#timer);
    this.#waiting.set(open.caseId, open);
    this.#timer = setTimeout(() => this.flush(), WAIT);
  }

  /** Keep at once what waits to be kept. */
  flush() {
    clearTimeout(this.#timer);
    for (const open of this.#waiting.values()) this.#write(open);
    this.#waiting.clear();
  }

  find(caseId) { return this.#all().find((one) => one.caseId === caseId) ?? null; }
  get list() { return this.#all().sort((one, other) => other.time - one.time); }

  remove(caseId) {
    this.#waiting.delete(caseId);
    localStorage.removeItem(this.#key(caseId));
  }

  #key(caseId) { return `${PREFIX}${this.dataset}:${caseId}`; }

  #all() {
    const found = [];
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith(`${PREFIX}${this.dataset}:`)) continue;
      try {
        found.push({ ...JSON.parse(localStorage.getItem(key)), key });
      } catch {
        localStorage.removeItem(key); // another program's
      }
    }
    return found;
  }

  #write(open) {
    if (!open.unsaved) return;
    const { mask, caseId, previous, labelPrompt } = open;
    const draft = { caseId, volumeId: open.source.volumeId ?? "", previous, labelPrompt, time: Date.now(), mask: encode(mask, this.classes) };
    const oldest = this.list.filter((one) => one.caseId !== caseId);
    while (oldest.length >= MOST) localStorage.removeItem(oldest.pop().key);
    try {
      localStorage.setItem(this.#key(caseId), JSON.stringify(draft));
    } catch {
      this.failed("The browser cannot keep a draft of this mask: save it before you leave.");
    }
  }
}
