// Questions to the reader, and the token.

const byId = (id) => document.getElementById(id);

/** Ask a question; resolves to whether the answer is yes. While another one is asked the answer is no. */
export async function ask(text, yes, no) {
  const dialog = byId("question");
  if (dialog.open) return false;
  byId("question-text").textContent = text;
  byId("question-yes").textContent = yes;
  byId("question-no").textContent = no;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let entry = null; // of all requests that wait for the token

/** Ask for the server's token; requests that were refused together ask once. */
export function askToken(why) {
  byId("entry-why").textContent = why;
  entry ??= new Promise((resolve) => {
    const dialog = byId("entry");
    byId("token").value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("entry-form").addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
      entry = null;
      resolve(byId("token").value);
    }, { once: true });
    dialog.showModal();
  });
  return entry;
}
