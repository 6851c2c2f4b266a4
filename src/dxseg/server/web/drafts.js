// Corrections that are not saved yet, kept in the browser until they are.

import { encode } from "./runs.js";

const PREFIX = "dxseg-draft:";
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

  /** Keep at once what waits to be kept; returns how many the browser refuses. */
  flush() {
    clearTimeout(this.#timer);
    const lost = [...this.#waiting.values()].filter((open) => !this.#write(open)).length;
    this.#waiting.clear();
    return lost;
  }

  /** The newest draft of a case that was not made since it was opened. */
  find(open) { return this.list.find((one) => one.caseId === open.caseId && one.key !== open.draftKey) ?? null; }
  get list() { return this.#all().sort((one, other) => other.time - one.time); }

  /** What is drawn on an open case is saved: its draft goes, others of the case stay. */
  remove(open) {
    this.#waiting.delete(open.caseId);
    if (open.draftKey) localStorage.removeItem(open.draftKey);
  }

  discard(draft) { localStorage.removeItem(draft.key); }

  /** A draft is gone on with, in place of what was drawn; returns the key under which it is kept. */
  continue(draft, drawnKey) {
    if (drawnKey) localStorage.removeItem(drawnKey);
    return draft.key;
  }

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
    if (!open.unsaved) return true;
    const { mask, caseId, previous, labelPrompt } = open;
    const draft = { caseId, volumeId: open.source.volumeId ?? "", previous, labelPrompt, time: Date.now(), mask: encode(mask, this.classes) };
    // Each opening of a case has a key of its own, so that no draft replaces another.
    open.draftKey ??= `${PREFIX}${this.dataset}:${caseId}#${draft.time}`;
    try {
      localStorage.setItem(open.draftKey, JSON.stringify(draft));
      return true;
    } catch {
      this.failed("The browser cannot keep a draft of this mask: save it before you leave.");
      return false;
    }
  }
}
