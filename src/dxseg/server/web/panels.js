// The panels beside the picture, which fold, and dark or light colors.

const byId = (id) => document.getElementById(id);
const NARROW = "(max-width: 70rem)";
const THEME = "dxseg-theme";

/** Wire the buttons of the panels and of the theme. Narrow windows start with the picture alone. */
export function showPanels() {
  for (const button of document.querySelectorAll("[data-panel]")) {
    fold(button, matchMedia(NARROW).matches);
    button.addEventListener("click", () => togglePanel(button.dataset.panel));
  }
  matchMedia(NARROW).addEventListener("change", ({ matches }) => {
    for (const button of document.querySelectorAll("[data-panel]")) fold(button, matches);
  });
  setTheme(localStorage.getItem(THEME) ?? "dark"); // reading rooms are dark
  byId("theme").addEventListener("click", () => toggleTheme());
}

/** What was chosen with the mouse gives the keys back to the image; typing there would change the choice in silence. */
export function returnFocus() {
  let pressed = null;
  addEventListener("pointerdown", ({ target }) => (pressed = target.closest?.("select") ?? null), { capture: true });
  addEventListener("keydown", () => (pressed = null), { capture: true });
  addEventListener("change", ({ target }) => target === pressed && byId("view").focus());
  addEventListener("keydown", ({ key, target }) => key === "Escape" && target.matches?.("select, [type=search]") && byId("view").focus());
}

/** Show or fold a panel; in a narrow window one covers part of the picture at a time. */
export function togglePanel(name) {
  const buttons = [...document.querySelectorAll("[data-panel]")];
  const button = buttons.find((one) => one.dataset.panel === name);
  const folded = button.getAttribute("aria-expanded") === "true";
  if (matchMedia(NARROW).matches) for (const other of buttons) fold(other, true);
  fold(button, folded);
}

function fold(button, folded) {
  button.setAttribute("aria-expanded", String(!folded));
  byId(button.dataset.panel).hidden = folded;
}

export function toggleTheme() {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  localStorage.setItem(THEME, theme);
}
