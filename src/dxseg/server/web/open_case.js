// One object per open case: what was predicted, what was saved, what is drawn, and which version of it is saved.

import { load } from "./loading.js";
import { decode } from "./runs.js";

export class OpenCase {
  prediction = null; // null until it is loaded
  proposal = null; // label map that the model predicts
  saved = null; // label map of the case's mask in the dataset
  mask = null; // what is drawn
  draft = null; // of an earlier time, while the reader has not decided about it
  draftKey = null; // under which the browser keeps what is drawn; null for nothing yet
  saving = false;
  savedHere = false; // whether the case's mask is the one that was saved from here
  opened = Date.now();
  #savedVersion = 0;
  #loading = null; // the last request and what came of it: { labelPrompt, promise }

  /** `source` has a name, a caseId ("" for a file) and `predict(labelPrompt)`. */
  constructor(source, labelPrompt) {
    Object.assign(this, { source, labelPrompt });
  }

  get caseId() { return this.prediction?.case?.case_id ?? this.source.caseId; }
  get name() { return this.prediction?.case ? `Case ${this.caseId}` : this.source.name; }
  get spacing() { return this.prediction.image.spacing_mm; }
  /** Path of the case's mask in the dataset; "" for none. */
  get previous() { return this.prediction?.case?.mask ?? ""; }
  get unsaved() { return this.mask !== null && this.mask.version !== this.#savedVersion; }

  /** What the case needs to be shown; kept until another label prompt is wanted, or `forget`. */
  load(labelPrompt, classes) {
    if (this.#loading?.labelPrompt !== labelPrompt) {
      const loading = { labelPrompt, promise: load(this, labelPrompt, classes) };
      loading.promise.catch(() => this.#loading === loading && this.forget()); // so that it can be tried again
      this.#loading = loading;
    }
    return this.#loading.promise;
  }

  get isLoading() { return this.#loading !== null; }

  /** Keep what is drawn, and no longer the image. */
  forget() { this.#loading = null; }

  /** Take a prediction; returns whether what is drawn should follow it. */
  take(prediction, classes) {
    this.prediction = { ...prediction, case: this.prediction?.case ?? prediction.case };
    this.proposal = decode(prediction.mask.rle, classes, prediction.image);
    this.labelPrompt = prediction.label_prompt;
    return !this.saved && !this.mask?.handmade;
  }

  /** Note that a version of the mask is kept: saved, or in a label map that was downloaded. */
  markKept(version) { this.#savedVersion = version; }

  /** Note that a version of the mask is now the case's mask. */
  markSaved(version, labels, savedCase) {
    this.markKept(version);
    this.saved = labels;
    this.savedHere = true;
    this.prediction.case = savedCase;
  }
}
