// What each key does.

import { Keys, showKeys } from "./keys.js";
import { togglePanel, toggleTheme } from "./panels.js";

const byId = (id) => document.getElementById(id);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { m: "move", b: "brush", e: "eraser", p: "polygon", g: "region", y: "box", w: "window", r: "ruler" };

/** Obey the keys of a page, and list them. */
export function listenToKeys(page) {
  const { editor, tools, view, display, saving } = page;
  const toggleEvidence = () => {
    if (page.model.evidence) display.toggle("show-heat");
    else page.say("This model has no class activation maps.");
  };
  const cancel = () => {
    tools.cancel();
    page.say("Cancelled.");
  };
  const actions = [
    {
      keys: Object.keys(TOOLS), shown: "m, b, e, p, g, y, w, r", text: "move, brush, eraser, polygon, region, box, window and level, ruler",
      run: (key) => page.choose(TOOLS[key]),
    },
    { keys: [..."123456789"], shown: "1 to 9", text: "the class that brush and polygon paint", run: (key) => editor.chooseClass(Number(key)) },
    {
      keys: Object.keys(ARROWS), shown: "Arrows", text: "move the image; with the other tools the cross, by one pixel, with Shift by ten",
      run: (key, { shiftKey }) => tools.arrow(...ARROWS[key], shiftKey ? 10 : 1),
    },
    { keys: [" "], shown: "Space", text: "start or end a stroke at the cross; polygon: a corner", run: () => tools.space() },
    { keys: [",", "."], shown: ", and .", text: "the region that was clicked: smaller, larger", run: (key) => editor.changeRegion(key === "." ? 1 : -1) },
    { keys: ["Enter"], shown: "Enter", text: "close the polygon", run: () => tools.enter() },
    { keys: ["Backspace"], shown: "Backspace", text: "remove the last corner", run: () => tools.polygon.removeCorner() },
    { keys: ["Escape"], shown: "Escape", text: "cancel", run: cancel },
    { keys: ["[", "]"], shown: "[ and ], Ctrl+wheel", text: "narrower, wider", run: (key) => editor.resize(key === "]" ? 1 : -1) },
    { keys: ["+", "=", "-"], shown: "+, -, wheel", text: "zoom in, zoom out", run: (key) => view.zoom(key === "-" ? 0.8 : 1.25) },
    { keys: ["0"], shown: "0", text: "whole image", run: () => view.fit() },
    { keys: ["Ctrl+z"], shown: "Ctrl+Z", text: "undo", run: () => page.step("undo", "Undone") },
    { keys: ["Ctrl+y", "Ctrl+Z"], shown: "Ctrl+Y", text: "redo", run: () => page.step("redo", "Redone") },
    {
      keys: ["PageUp", "PageDown"], shown: "PageUp, PageDown, wheel", text: "the slice before, the next one; then Ctrl+wheel or Shift+wheel zooms",
      run: (key) => page.opening.scroll(key === "PageUp" ? -1 : 1),
    },
    { keys: ["u", "U"], shown: "u, Shift+U", text: "copy the mask to the next slice, to the one before", run: (key) => page.opening.propagate(key === "u" ? 1 : -1) },
    { keys: ["f"], shown: "f", text: "fill the holes of the class", run: () => page.step("fillHoles", "Holes filled", editor.value) },
    { keys: ["l"], shown: "l", text: "keep the largest part of the class", run: () => page.step("keepLargest", "Largest part kept", editor.value) },
    { keys: ["Delete"], shown: "Delete", text: "clear the mask", run: () => page.step("clear", "Cleared") },
    {
      keys: ["h"], shown: "h, held", text: "hide the mask while the key is held",
      run: () => editor.showMask(false), released: () => editor.showMask(),
    },
    { keys: ["i"], shown: "i", text: "smooth or exact pixels", run: () => display.toggle("smooth") },
    { keys: ["o"], shown: "o", text: "class activation map", run: toggleEvidence },
    { keys: ["t"], shown: "t", text: "dark or light", run: toggleTheme },
    { keys: ["a"], shown: "a", text: "take the proposal, or the saved mask again", run: () => page.swap() },
    { keys: ["k"], shown: "k", text: "label map of the volume", run: () => page.volume && byId("label-map").click() },
    { keys: ["q", "j"], shown: "q, j", text: "show or fold the panel of the case, of the work list", run: (key) => togglePanel(key === "q" ? "case-panel" : "work-panel") },
    { keys: ["?"], shown: "?", text: "this list", run: showKeys },
  ];
  const ofDataset = [
    { keys: ["s"], shown: "s", text: "save", run: () => saving.role() && saving.save() },
    { keys: ["S"], shown: "Shift+S", text: "save, of a volume all slices that were shown, and open the next case", run: () => saving.role() && page.saveAndNext() },
    { keys: ["n"], shown: "n", text: "next case; skips the open one", run: () => page.list.openNext() },
    { keys: ["x"], shown: "x", text: "cannot tell: set the case aside, and open the next", run: () => page.review.send("cannot-tell") },
    { keys: ["c"], shown: "c", text: "second reading: the mask is right", run: () => page.review.send("confirm") },
    { keys: ["v"], shown: "v", text: "compare with the proposal, or an earlier mask", run: () => page.review.compareNext() },
    { keys: ["d"], shown: "d", text: "continue a draft", run: () => saving.continueDraft() },
    { keys: ["/"], shown: "/", text: "search the work list", run: search },
  ];
  new Keys(page.list ? [...actions, ...ofDataset] : actions, byId("keys-list"));
  byId("help").addEventListener("click", showKeys);
}

function search() {
  if (byId("work-panel").hidden) togglePanel("work-panel");
  byId("search").focus();
}
