// Saving the open case: exactly the version that was sent is saved; what is not saved is kept as a draft.

import { getCases, getHistory, getMask, saveMask } from "./api.js";
import { note } from "./day.js";
import { ask } from "./dialogs.js";
import { Drafts } from "./drafts.js";
import { togglePanel } from "./panels.js";
import { setLabelPrompt } from "./results.js";
import { decode, encode } from "./runs.js";
import { showSlices } from "./slices.js";

const byId = (id) => document.getElementById(id);
const ROLE = "dxseg-role"; // a role, not a name: it is the same all day

export class Saving {
  drafts = null; // null without a dataset

  /** `page` has the open case, the editor, and callbacks for messages; `saved(open)` follows a save. */
  constructor(page, model, saved) {
    Object.assign(this, { page, model, saved });
    addEventListener("beforeunload", (event) => {
      if (this.#unsaved.length && (this.drafts || this.page.volume?.upload)) event.preventDefault();
    });
    if (model.dataset === null) return;
    this.drafts = new Drafts(model.dataset, model.mask_classes, (text) => page.problem(new Error(text)));
    const role = byId("role");
    role.value ||= localStorage.getItem(ROLE) ?? ""; // it may have been chosen while the page was loading
    localStorage.setItem(ROLE, role.value);
    this.#showDrafts();
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    on("save", "click", () => this.save());
    on("draft-yes", "click", () => this.continueDraft());
    on("draft-no", "click", () => this.discardDraft());
    on("role", "change", ({ target }) => {
      localStorage.setItem(ROLE, target.value);
      this.show();
    });
  }

  /** Say whether the open case can be saved, or why not. */
  show() {
    showSlices(this.page.volume);
    const why = this.#whyNot();
    byId("why-not").textContent = why;
    byId("save").disabled = byId("save-next").disabled = why !== "";
  }

  #whyNot() {
    const { open } = this.page;
    if (this.model.dataset === null) return "Saving is off: the server was started without --dataset.";
    if (!open?.mask) return "Open a case, or drop its image.";
    if (!open.prediction.case) {
      return `This image is not in the dataset ${this.model.dataset}; import it first (dxseg import).`;
    }
    return byId("role").value ? "" : "Choose the role of the annotator.";
  }

  /** The chosen role; "" after a message where none is chosen. */
  role() {
    const role = byId("role").value;
    if (!role) {
      this.page.problem(new Error("Choose the role of the annotator first."));
      if (byId("work-panel").hidden) togglePanel("work-panel");
      byId("role").focus();
    }
    return role;
  }

  /** The mask has changed. */
  changed() {
    this.show();
    this.page.review?.changed();
    const { open } = this.page;
    if (this.drafts && open.prediction.case) this.drafts.keep(open);
  }

  /** What is drawn and not kept: of the open case, or of all slices of its volume. */
  get #unsaved() {
    const { open, volume } = this.page;
    return volume ? volume.unsaved : [open].filter((one) => one?.unsaved);
  }

  /** Another slice of the volume is about to be shown. */
  leaveSlice() { this.drafts?.flush(); }

  /** Whether the open case may be left; asks where it has changes that are not saved. */
  async mayLeave() {
    const unsaved = this.#unsaved;
    if (!unsaved.length) return true;
    if (this.page.volume?.upload) {
      return ask("What is drawn is in no label map yet, and is lost when the volume is closed.", "Leave it", "Stay");
    }
    const kept = unsaved.filter((one) => this.drafts && one.prediction.case);
    if (!kept.length) return true;
    for (const one of kept) this.drafts.keep(one);
    const lost = this.drafts.flush();
    const drafts = lost ? `${lost} drafts do not fit into this browser and are lost.` : "A draft of it stays in this browser.";
    const leave = await ask(`The correction is not saved. ${drafts}`, "Leave it", "Stay");
    if (leave) this.#showDrafts();
    return leave;
  }

  /** Save what is drawn now, of a volume also the other slices that were changed. Returns whether nothing is left. */
  async save() {
    const { open, volume } = this.page;
    if (!open?.mask || this.#whyNot()) return false;
    return this.#saveAll([open, ...(volume?.unsaved ?? []).filter((one) => one !== open)]);
  }

  /** Save all slices that were shown, as they were shown. Returns whether nothing is left to save. */
  async saveSeen() {
    const { open, volume } = this.page;
    if (!open?.mask || this.#whyNot()) return false;
    const wanted = volume.seen.filter((one) => one.unsaved || !one.previous);
    const left = volume.length - volume.seen.length;
    const rest = left ? ` ${left} that were not shown stay as they are.` : "";
    if (!(await ask(`Save ${wanted.length} slices as they were shown?${rest}`, "Save them", "Stay"))) return false;
    return wanted.length ? this.#saveAll(wanted) : true;
  }

  async #saveAll(opens) {
    if (opens.some((one) => one.saving) || !(await this.#mayDiscard(opens)) || !(await this.#mayReplace(opens))) return false;
    this.page.problem(null);
    for (const one of opens) one.saving = true;
    const saved = [];
    try {
      for (const one of opens) saved.push(await this.#send(one));
    } catch (error) {
      const done = opens.length > 1 ? ` ${saved.length} of ${opens.length} slices are saved.` : "";
      this.page.problem(new Error(`${error.message}${done}`));
    } finally {
      for (const one of opens) one.saving = false;
      this.show();
      this.#showDrafts();
    }
    if (!saved.length) return false;
    await this.saved(opens[0]);
    if (saved.length < opens.length) return false;
    if (opens.includes(this.page.open)) this.#say(saved.at(-1), opens);
    return !this.#unsaved.length;
  }

  /** Save one case; what is drawn meanwhile stays unsaved. */
  async #send(open) {
    const { mask, caseId, previous, labelPrompt, prediction } = open;
    const [version, labels] = [mask.version, mask.labels.slice()];
    const sent = { case_id: caseId, role: byId("role").value, previous, label_prompt: labelPrompt, model: prediction.model };
    const runs = encode(mask, this.model.mask_classes);
    const saved = await saveMask({ ...sent, mask: runs }).catch((error) => this.#arrived(open, labels, error));
    open.markSaved(version, labels, saved.case);
    this.#decided(open, true);
    if (!open.unsaved) this.drafts.remove(open);
    note(saved.case.mask, (Date.now() - open.opened) / 1000);
    return saved;
  }

  /** After a refusal: whether the same mask was saved before, and only the answer was lost on the way. */
  async #arrived(open, labels, error) {
    if (error.status !== 409) throw error;
    const { entries } = await getHistory(open.caseId);
    const last = entries.findLast(({ kind }) => kind === "mask")?.mask;
    if (!last || last === open.previous) throw error;
    const { mask } = await getMask(open.caseId, last);
    const same = decode(mask, this.model.mask_classes, open.mask).every((value, place) => value === labels[place]);
    if (!same) throw error;
    const { waiting } = await getCases({ limit: 1 });
    return { case: { ...open.prediction.case, mask: last }, waiting };
  }

  /** A draft that the reader has not decided about goes only when that is wanted. */
  async #mayDiscard(opens) {
    const open = opens.find((one) => one.draft);
    if (!open) return true;
    const discard = await ask("A draft of this case is waiting. Save what is shown, and discard the draft?", "Discard the draft", "Go back");
    if (discard) byId("draft").hidden = true;
    return discard;
  }

  async #mayReplace(opens) {
    const count = opens.filter((one) => one.previous && !one.savedHere).length;
    if (!count) return true;
    const which = opens.length > 1 ? `${count} of the slices have a mask already. They stay` : "The case has a mask already. It stays";
    return ask(`${which} in the history of the case. Replace ${count > 1 ? "them" : "it"}?`, count > 1 ? "Replace them" : "Replace it", "Keep it");
  }

  #say({ case: { mask }, waiting }, opens) {
    const newer = opens.some((one) => one.unsaved) ? " What was drawn meanwhile is not saved yet." : "";
    const what = opens.length > 1 ? `${opens.length} slices saved.` : `Saved as ${mask}.`;
    this.page.say(`${what} ${waiting} cases are left.${newer}`);
  }

  // Drafts.

  /** Offer the draft of a case that was opened. */
  offerDraft(open) {
    // What is drawn before the reader decides becomes another draft in the browser.
    const draft = (open.draft = this.drafts?.find(open) ?? null);
    byId("draft").hidden = !draft;
    if (!draft) return;
    const changed = draft.previous === open.previous ? "" : " The saved mask has changed since.";
    byId("draft-text").textContent = `A correction of ${new Date(draft.time).toLocaleString()} is not saved.${changed}`;
  }

  continueDraft() {
    const { open, editor, opening } = this.page;
    const draft = open?.draft;
    if (!draft) return;
    let labels;
    try {
      labels = decode(draft.mask, this.model.mask_classes, open.mask);
    } catch (error) { // the model or the image is another than when it was drawn
      this.page.problem(new Error(`The draft cannot be continued; it is kept until you discard it. ${error.message}`));
      return;
    }
    this.#decided(open, false);
    editor.step("take", "Draft", labels);
    this.offerDraft(open);
    if (draft.labelPrompt === open.labelPrompt) return;
    setLabelPrompt(draft.labelPrompt); // the one that it was drawn with
    opening.predict();
  }

  discardDraft() {
    const { open } = this.page;
    this.#decided(open, true);
    this.offerDraft(open);
    this.#showDrafts();
  }

  /** The reader has decided about the draft that waits: it is gone, or is what is drawn from now on. */
  #decided(open, discarded) {
    if (!open.draft) return;
    if (discarded) this.drafts.discard(open.draft);
    else open.draftKey = this.drafts.continue(open.draft, open.draftKey);
    open.draft = null;
  }

  #showDrafts() {
    const buttons = this.drafts.list.map(({ caseId, volumeId, labelPrompt }) => {
      const button = Object.assign(document.createElement("button"), { textContent: caseId });
      button.addEventListener("click", () => this.page.opening.openCase({ case_id: caseId, volume_id: volumeId, label_prompt: labelPrompt }));
      return button;
    });
    byId("drafts").hidden = !buttons.length;
    byId("drafts-list").replaceChildren(...buttons);
  }
}
