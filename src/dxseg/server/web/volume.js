// What is scrolled: the slices of a volume, or the frames of a cine loop, each an open case of its own.

import { getVolume, labelCaseVolume, labelVolume, openVolume, predictCase, predictSlice } from "./api.js";
import { OpenCase } from "./open_case.js";
import { encode } from "./runs.js";

const KEPT = 16; // loaded slices on each side of the one that is shown
const AHEAD = 4; // slices that are predicted before they are wanted

export class Volume {
  index = 0;
  upload = null; // the Upload, where it is no volume of the dataset
  entry = ""; // the case_id by which the work list has it
  #cases;
  #ahead = 0; // the last run of `loadAhead`

  /** `sources` are those of its slices, as of an OpenCase, with the label prompt that each starts with. */
  constructor(name, sources) {
    this.name = name;
    this.#cases = sources.map(({ labelPrompt, ...source }) => new OpenCase(source, labelPrompt));
  }

  get length() { return this.#cases.length; }
  get open() { return this.#cases[this.index]; }
  /** Slices with changes that are not kept. */
  get unsaved() { return this.#cases.filter((one) => one.unsaved); }
  /** Slices that were shown. */
  get seen() { return this.#cases.filter((one) => one.mask); }
  number(open) { return this.#cases.indexOf(open) + 1; }

  /** Load the slices that come next in a direction, one at a time, and drop images that are far. */
  async loadAhead(direction, classes) {
    const run = ++this.#ahead;
    for (const [place, one] of this.#cases.entries()) if (Math.abs(place - this.index) > KEPT) one.forget();
    for (const step of [1, -1, 2, 3, AHEAD]) {
      const next = this.#cases[this.index + step * direction];
      // What fails ahead is told when it is shown.
      if (next) await next.load(next.labelPrompt, classes).catch(() => {});
      if (run !== this.#ahead) return;
    }
  }

  /** The reader has left it. */
  leave() { this.#ahead++; }
}

/** The volume of a case of the dataset, at that case; `known(label)` is the label prompt of a slice's label. */
export async function volumeOfCase(case_id, known) {
  const { volume_id, entry, slices } = await getVolume(case_id);
  const volume = new Volume(`Volume ${volume_id}`, slices.map((one) => ({
    name: one.case_id, caseId: one.case_id, volumeId: volume_id, labelPrompt: known(one.label),
    predict: (labelPrompt) => predictCase(one.case_id, labelPrompt),
  })));
  volume.index = slices.findIndex((one) => one.case_id === case_id);
  volume.entry = entry;
  return volume;
}

/** A volume of files; the server keeps it for a while, and gets the files again after that. */
class Upload {
  #opening = null;

  constructor(files) { this.files = files; }

  get opened() {
    if (!this.#opening) {
      const opening = openVolume(this.files);
      opening.catch(() => this.#close(opening)); // so that it can be tried again
      this.#opening = opening;
    }
    return this.#opening;
  }

  slice(index, labelPrompt) { return this.#ask((volume) => predictSlice(volume, index, labelPrompt)); }
  labels(masks) { return this.#ask((volume) => labelVolume(volume, masks)); }

  async #ask(request) {
    const { opened } = this;
    const { volume } = await opened;
    try {
      return await request(volume);
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#close(opened);
      return request((await this.opened).volume);
    }
  }

  #close(opening) {
    if (this.#opening === opening) this.#opening = null;
  }
}

/** The volume of files that the reader has chosen. */
export async function volumeOfFiles(files) {
  const upload = new Upload(files);
  const { slices } = await upload.opened;
  const name = files.length > 1 ? `${files.length} files` : files[0].name;
  const source = (index) => ({ name, caseId: "", labelPrompt: "", predict: (labelPrompt) => upload.slice(index, labelPrompt) });
  const volume = new Volume(name, Array.from({ length: slices }, (_, index) => source(index)));
  volume.upload = upload;
  volume.index = slices >> 1;
  return volume;
}

/** A label map of a volume, as the bytes of a file, and how many slices come from where. */
export async function labelMap(volume, classes) {
  const { nifti, slices } = await (volume.upload ? labelsOfUpload(volume, classes) : labelsOfCases(volume, classes));
  return { bytes: Uint8Array.from(atob(nifti), (letter) => letter.charCodeAt(0)), slices };
}

/** Of the dataset: what is drawn and not saved, the dataset's masks, and the prediction where a slice was shown. */
async function labelsOfCases(volume, classes) {
  const { seen, unsaved } = volume;
  const masks = (cases) => Object.fromEntries(cases.map((one) => [one.caseId, encode(one.mask, classes)]));
  const shown = seen.filter((one) => !one.unsaved && !one.previous);
  const { nifti, drawn, known, predicted, empty } = await labelCaseVolume(volume.open.caseId, masks(unsaved), masks(shown));
  return { nifti, slices: `${drawn} slices as drawn and not saved, ${known} as in the dataset, ${predicted} as predicted, ${empty} empty because they have no mask` };
}

/** Of files: what is drawn, and the prediction on the other slices. */
async function labelsOfUpload(volume, classes) {
  const drawn = volume.seen.filter((one) => one.mask.version > 0 || one.labelPrompt);
  const versions = drawn.map((one) => [one, one.mask.version]);
  const masks = Object.fromEntries(drawn.map((one) => [volume.number(one) - 1, encode(one.mask, classes)]));
  const { nifti, given, predicted } = await volume.upload.labels(masks);
  for (const [one, version] of versions) one.markKept(version);
  return { nifti, slices: `${given} slices as drawn, ${predicted} as predicted` };
}
