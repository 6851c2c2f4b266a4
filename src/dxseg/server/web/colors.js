// The colors of the mask's classes, as in dxseg's overlays.

const COLORS = ["#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00"];

/** The color of class `value`; the first class is 1. */
export function color(value) { return COLORS[(value - 1) % COLORS.length]; }
