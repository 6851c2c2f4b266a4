// Requests to the server. A refused one throws an Error with the server's message, status and kind; one
// that lacks the token is sent again once the reader has entered it.

import { askToken } from "./dialogs.js";

const KEY = "dxseg-token"; // of this tab; gone when the tab is closed
const READER = "dxseg-reader";

export const IS_VOLUME = "urn:dxseg:problem:volume"; // kind of the error of a volume that was sent as an image

/** Move the token from the URL that `dxseg serve` prints to the session, so that it is not shown. */
export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEY, found);
    history.replaceState(null, "", location.pathname);
  }
}

/** Random name of this tab: which cases are open is shown to others, not by whom. */
function reader() {
  if (!sessionStorage.getItem(READER)) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    sessionStorage.setItem(READER, Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }
  return sessionStorage.getItem(READER);
}

export const getModel = () => request("v1/model");
export const getCases = (query) => request(`v1/cases?${asQuery(query)}`);
export const getNext = (query) => request(`v1/cases/next?${asQuery(query)}`);
export const getMask = (case_id, mask) => request(`v1/cases/mask?${new URLSearchParams({ case_id, mask })}`);
export const getHistory = (case_id) => request(`v1/cases/history?${new URLSearchParams({ case_id })}`);
export const predictCase = (case_id, label_prompt) => send("v1/cases/predict", { case_id, label_prompt });
export const saveMask = (mask) => send("v1/cases/mask", mask);
export const getVolume = (case_id) => request(`v1/cases/volume?${new URLSearchParams({ case_id })}`);
export const labelCaseVolume = (case_id, drawn, predicted) => send("v1/cases/volume/labels", { case_id, drawn, predicted });
export const predictSlice = (volume, index, label_prompt) => send("v1/volumes/slice", { volume, index, label_prompt });
export const labelVolume = (volume, masks) => send("v1/volumes/labels", { volume, masks });
export const saveReview = (review) => send("v1/cases/review", review);

/** Ask about or change the training; `content` is sent as JSON. */
export function askTraining(method, path, content) {
  const body = content && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  return request(path, { method, ...body });
}

/** Open a volume, or the frames of an object: one file, or all of a DICOM series. */
export function openVolume(files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, "image"); // file names may contain a patient's name
  return request("v1/volumes", { method: "POST", body: form });
}

export function predictFile(file, labelPrompt) {
  const form = new FormData();
  form.append("file", file, "image"); // as above
  form.append("label_prompt", labelPrompt);
  form.append("evidence", "true");
  form.append("return_image", "true");
  return request("v1/predict", { method: "POST", body: form });
}

function asQuery(query) {
  const given = Object.entries({ ...query, reader: reader() }).filter(([, value]) => value !== null);
  return new URLSearchParams(given);
}

function send(path, content) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify({ ...content, reader: reader() }) });
}

async function request(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...headers } });
    } catch {
      throw new Error("The server cannot be reached; is it still running?");
    }
    if (response.ok) return response.json();
    const problem = await response.json().catch(() => ({ detail: response.statusText }));
    if (response.status !== 401) throw Object.assign(new Error(problem.detail), { status: response.status, kind: problem.type });
    if (token !== sessionStorage.getItem(KEY)) continue; // entered meanwhile
    sessionStorage.setItem(KEY, await askToken(problem.detail));
  }
}
