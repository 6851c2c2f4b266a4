// Requests to the server. What it refuses becomes an Error with the server's own words.

const KEY = "dxseg-token"; // of this tab; gone when the tab is closed

export class TokenError extends Error {}

/** Take the token out of the address that `dxseg serve` prints, so that it is not seen or kept there. */
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

export const getModel = () => ask("v1/model");
export const getQueue = () => ask("v1/cases");

export function predictFile(file, known) {
  const form = new FormData();
  form.append("file", file, "image"); // its own name may be a patient's
  form.append("known", known);
  form.append("evidence", "true");
  form.append("picture", "true");
  return ask("v1/predict", { method: "POST", body: form });
}

export const predictCase = (case_id, known) => send("v1/cases/predict", { case_id, known });
export const saveMask = (mask) => send("v1/cases/mask", mask);

function send(path, content) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(content) });
}

async function ask(path, { headers = {}, ...options } = {}) {
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
  throw answer.status === 401 ? new TokenError(problem.detail) : new Error(problem.detail);
}
