// Requests to the server. A refused one throws an Error with the server's message.

const KEY = "dxseg-token"; // of this tab; gone when the tab is closed

export class TokenError extends Error {}

/** Move the token from the URL that `dxseg serve` prints to the session, so that it is not shown. */
export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    setToken(found);
    history.replaceState(null, "", location.pathname);
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export const getModel = () => request("v1/model");
export const getQueue = () => request("v1/cases");

export function predictFile(file, labelPrompt) {
  const form = new FormData();
  form.append("file", file, "image"); // the file name may contain a patient's name
  form.append("label_prompt", labelPrompt);
  form.append("evidence", "true");
  form.append("return_image", "true");
  return request("v1/predict", { method: "POST", body: form });
}

export const predictCase = (case_id, label_prompt) => send("v1/cases/predict", { case_id, label_prompt });
export const saveMask = (mask) => send("v1/cases/mask", mask);

function send(path, content) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(content) });
}

async function request(path, { headers = {}, ...options } = {}) {
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server cannot be reached; is it still running?");
  }
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({ detail: response.statusText }));
  throw response.status === 401 ? new TokenError(problem.detail) : new Error(problem.detail);
}
