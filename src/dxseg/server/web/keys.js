// Keys: one list that is obeyed and shown. They work wherever the focus is, except where one types.

const TYPES = "input:not([type=radio], [type=checkbox], [type=range], [type=file]), select, textarea";
const ANSWERS = "button, summary, input, a, [role=button]"; // use Enter, Space and arrows themselves
const OWN = ["Enter", " ", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];

export class Keys {
  #actions;

  /** `actions`: { keys, shown, text, run(key, event), released() }, the last one optional. */
  constructor(actions, list) {
    this.#actions = actions;
    for (const { shown, text } of actions) {
      const term = Object.assign(document.createElement("dt"), { textContent: shown });
      list.append(term, Object.assign(document.createElement("dd"), { textContent: text }));
    }
    addEventListener("keydown", (event) => this.#pressed(event));
    addEventListener("keyup", ({ key }) => this.#release(({ keys }) => keys.includes(typed({ key })))); // whatever Shift and Ctrl do by then
    addEventListener("blur", () => this.#release()); // another window gets the release
  }

  #pressed(event) {
    if (event.altKey || document.querySelector("dialog[open]") || event.target.matches?.(TYPES)) return;
    if (OWN.includes(event.key) && event.target.matches?.(ANSWERS)) return;
    const action = this.#find(event);
    if (!action) return;
    event.preventDefault();
    action.run(typed(event), event);
  }

  #release(wanted = () => true) {
    for (const action of this.#actions.filter(wanted)) action.released?.();
  }

  #find(event) {
    const name = event.ctrlKey || event.metaKey ? `Ctrl+${typed(event)}` : typed(event);
    return this.#actions.find(({ keys }) => keys.includes(name));
  }
}

/** The key of an event; Caps Lock is no Shift. */
function typed({ key, shiftKey }) {
  if (!/^[a-z]$/i.test(key)) return key;
  return shiftKey ? key.toUpperCase() : key.toLowerCase();
}

/** A dialog that lists the keys. */
export function showKeys() { document.getElementById("keys").showModal(); }
