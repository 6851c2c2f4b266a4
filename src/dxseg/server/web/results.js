// Tables and fields beside the image: probabilities, areas, known diagnosis, evidence.

import { color } from "./colors.js";

const byId = (id) => document.getElementById(id);

export function showModelName(model) {
  byId("model").textContent = `Model ${model.model}, ${model.labels.join(", ") || "without labels"}`;
}

export function showModel(model) {
  showModelName(model);
  byId("notice").textContent = model.notice;
  fillOptions(byId("class"), model.mask_classes);
  byId("classes").hidden = model.mask_classes.length < 2;
  fillOptions(byId("heat-label"), model.labels);
  byId("label-prompt").hidden = byId("labels").hidden = !model.labels.length;
  byId("evidence").hidden = !model.evidence;
}

/** Radio buttons, or check boxes where an image may have several labels. */
export function showChoices({ labels, multi_label }, changed) {
  const kind = multi_label ? "checkbox" : "radio";
  const choices = labels.map((label) => choice(kind, label, label));
  if (!multi_label) choices.unshift(choice(kind, "", "not known"));
  byId("label-prompt").append(...choices);
  byId("label-prompt").addEventListener("change", changed);
}

export function setLabelPrompt(labelPrompt) {
  const names = labelPrompt.split(";");
  for (const input of byId("label-prompt").querySelectorAll("input")) input.checked = names.includes(input.value);
}

export function getLabelPrompt() {
  const chosen = byId("label-prompt").querySelectorAll("input:checked");
  return [...chosen].map((input) => input.value).filter(Boolean).join(";");
}

/** Fill the table of labels; returns the likeliest one. */
export function showProbabilities(probabilities) {
  const rows = Object.entries(probabilities ?? {}).sort((one, other) => other[1] - one[1]);
  fillTable(byId("labels"), rows.map(([label, value]) => [label, `${(100 * value).toFixed(1)}%`]));
  return rows[0]?.[0];
}

/** Empty the tables. */
export function clear() {
  for (const id of ["labels", "areas"]) byId(id).tBodies[0].replaceChildren();
}

export function showAreas(classes, areas, spacing) {
  fillTable(byId("areas"), classes.map((name, place) => [name, area(areas[place], spacing)]));
  for (const [place, head] of byId("areas").querySelectorAll("tbody th").entries()) {
    head.prepend(swatch(place + 1));
  }
}

export function area(pixels, spacing) {
  const size = spacing ? ` = ${(pixels * spacing[0] * spacing[1]).toFixed(1)} mm²` : "";
  return `${pixels} pixels${size}`;
}

export function fillOptions(select, names) {
  select.replaceChildren(...names.map((name) => new Option(name)));
}

function swatch(value) {
  const found = Object.assign(document.createElement("span"), { className: "swatch" });
  found.style.backgroundColor = color(value);
  return found;
}

function choice(kind, value, text) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: kind, name: "label-prompt", value });
  input.checked = kind === "radio" && !value;
  label.append(input, ` ${text}`);
  return label;
}

function fillTable(table, rows) {
  const lines = rows.map(([name, value]) => {
    const line = document.createElement("tr");
    const head = Object.assign(document.createElement("th"), { scope: "row", textContent: name });
    line.append(head, Object.assign(document.createElement("td"), { textContent: value }));
    return line;
  });
  table.tBodies[0].replaceChildren(...lines);
}
