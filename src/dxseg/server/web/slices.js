// The bar of a volume: which slice is shown, how many there are, and which have changes that are not kept.

import { labelMap } from "./volume.js";

const byId = (id) => document.getElementById(id);

/** Wire the bar to a page. */
export function listenToSlices(page) {
  const on = (id, event, handle) => byId(id).addEventListener(event, handle);
  on("slice", "input", ({ target }) => {
    const index = Number(target.value) - 1;
    page.opening.goTo(index, Math.sign(index - page.volume.index) || 1);
    showSlices(page.volume); // also where it was refused
  });
  on("propagate", "click", () => page.opening.propagate(1));
  on("label-map", "click", () => download(page));
}

/** Show the place in a volume; null hides the bar. */
export function showSlices(volume) {
  byId("slices").hidden = !volume;
  if (!volume) return;
  byId("slice").max = volume.length;
  byId("slice").value = volume.index + 1;
  const changed = volume.unsaved.length;
  byId("slice-text").textContent = `${volume.index + 1} of ${volume.length}${changed ? `, ${changed} not saved` : ""}`;
}

/** Give the reader a label map of the whole volume as a file; the browser replaces none. */
async function download(page) {
  const { volume, model } = page;
  page.problem(null);
  page.say(`Making the label map.${volume.upload ? " Slices that were not opened are predicted." : ""}`);
  try {
    const { bytes, slices } = await labelMap(volume, model.mask_classes);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes], { type: "application/gzip" }));
    link.download = "labels.nii.gz";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    page.say(`Label map: ${slices}.`);
    showSlices(page.volume);
  } catch (error) {
    page.problem(error);
  }
}
