// Saving the open case: exactly the version that was sent is saved; what is not saved is kept as a draft.

import { saveMask } from "./api.js";
import { note } from "./day.js";
import { ask } from "./dialogs.js";
import { Drafts } from "./drafts.js";
import { togglePanel } from "./panels.js";
import { decode, encode } from "./runs.js";

const byId = (id) => document.getElementById(id);
const ROLE = "dxseg-role"; // a role, not a name: it is the same all day

export class Saving {
  drafts = null; // null without a dataset

  /** `page` has the open case, the editor, and callbacks for messages; `saved(open)` follows a save. */
  constructor(page, model, saved) {
    Object.assign(this, { page, model, saved });
    if (model.dataset === null) return;
    this.drafts = new Drafts(model.dataset, model.mask_classes, (text) => page.problem(new Error(text)));
    byId("role").value = localStorage.getItem(ROLE) ?? "";
    this.#showDrafts();
    const on = (id, event, handle) => byId(id).addEventListener(event, handle);
    on("save", "click", () => this.save());
    on("draft-yes", "click", () => this.continueDraft());
    on("draft-no", "click", () => this.discardDraft());
    on("role", "change", ({ target }) => {
      localStorage.setItem(ROLE, target.value);
      this.show();
    });
    addEventListener("beforeunload", (event) => page.open?.unsaved && event.preventDefault());
  }

  /** Say whether the open case can be saved, or why not. */
  show() {
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
    const { open } = this.page;
    if (this.drafts && open.prediction.case) this.drafts.keep(open);
  }

  /** Whether the open case may be left; asks where it has changes that are not saved. */
  async mayLeave() {
    const { open } = this.page;
    if (!this.drafts || !open?.unsaved || !open.prediction.case) return true;
    this.drafts.keep(open);
    this.drafts.flush();
    const leave = await ask("The correction is not saved. A draft of it stays in this browser.", "Leave it", "Stay");
    if (leave) this.#showDrafts();
    return leave;
  }

  /** Save what is drawn now; what is drawn meanwhile stays unsaved. Returns whether nothing is left to save. */
  async save() {
    const { open } = this.page;
    if (!open?.mask || open.saving || this.#whyNot() || !(await this.#mayReplace(open))) return false;
    const { mask, caseId, previous, labelPrompt, prediction } = open;
    const [version, labels] = [mask.version, mask.labels.slice()];
    const sent = { case_id: caseId, role: byId("role").value, previous, label_prompt: labelPrompt, model: prediction.model };
    open.saving = true;
    this.page.problem(null);
    try {
      const saved = await saveMask({ ...sent, mask: encode(mask, this.model.mask_classes) });
      open.markSaved(version, labels, saved.case);
      if (!open.unsaved) this.drafts.remove(caseId);
      note(saved.case.mask, (Date.now() - open.opened) / 1000);
      this.#showDrafts();
      await this.saved(open);
      if (open === this.page.open) this.#say(saved, open);
    } catch (error) {
      this.page.problem(error);
      return false;
    } finally {
      open.saving = false;
      this.show();
    }
    return !open.unsaved;
  }

  async #mayReplace(open) {
    if (!open.previous || open.savedHere) return true;
    return ask("The case has a mask already. It stays in the history of the case. Replace it?", "Replace it", "Keep it");
  }

  #say({ case: { mask }, waiting }, open) {
    const newer = open.unsaved ? " What was drawn meanwhile is not saved yet." : "";
    this.page.say(`Saved as ${mask}. ${waiting} cases are left.${newer}`);
  }

  // Drafts.

  /** Offer the draft of a case that was opened. */
  offerDraft(open) {
    // Kept with the case: what is drawn before the reader decides becomes the draft in the browser.
    const draft = (open.draft = this.drafts?.find(open.caseId) ?? null);
    byId("draft").hidden = !draft;
    if (!draft) return;
    const changed = draft.previous === open.previous ? "" : " The saved mask has changed since.";
    byId("draft-text").textContent = `A correction of ${new Date(draft.time).toLocaleString()} is not saved.${changed}`;
  }

  continueDraft() {
    const { open, editor } = this.page;
    const draft = open?.draft;
    if (!draft) return;
    open.draft = null;
    byId("draft").hidden = true;
    editor.step("replace", "Draft", decode(draft.mask, this.model.mask_classes, open.mask));
  }

  discardDraft() {
    const { open } = this.page;
    open.draft = null;
    byId("draft").hidden = true;
    if (!open.unsaved) this.drafts.remove(open.caseId);
    this.#showDrafts();
  }

  #showDrafts() {
    const buttons = this.drafts.list.map(({ caseId }) => {
      const button = Object.assign(document.createElement("button"), { textContent: caseId });
      button.addEventListener("click", () => this.page.openCase({ case_id: caseId, label: "" }));
      return button;
    });
    byId("drafts").hidden = !buttons.length;
    byId("drafts-list").replaceChildren(...buttons);
  }
}
