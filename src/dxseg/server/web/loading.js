// What an open case needs to be shown: prediction, saved mask, and the images that come with it.

import { getMask } from "./api.js";
import { Pixels, unpackValues } from "./pixels.js";
import { decode } from "./runs.js";

/** Request the prediction of a case with a label prompt, and unpack it. */
export async function load(open, labelPrompt, classes) {
  const prediction = await open.source.predict(labelPrompt);
  const saved = await readSaved(open, prediction, classes);
  return { prediction, saved, ...(await unpack(prediction)) };
}

/** The mask that the case has; read once, because what is drawn starts with it. */
async function readSaved(open, prediction, classes) {
  if (open.mask || !prediction.case?.mask) return open.saved;
  const { mask } = await getMask(prediction.case.case_id, prediction.case.mask);
  return decode(mask, classes, prediction.image);
}

/** Decode the images of a prediction. */
async function unpack({ image_png, image_values, evidence, probability_maps }) {
  const decoded = async (pngs) => Promise.all(Object.entries(pngs ?? {}).map(async ([name, png]) => [name, await read(png)]));
  const probabilities = (await decoded(probability_maps)).map(([, map]) => map);
  const pixels = new Pixels(await read(image_png), await unpackValues(image_values));
  return { pixels, probabilities, evidence: Object.fromEntries(await decoded(evidence)) };
}

async function read(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  return image;
}
