// The colours of the mask's classes, as in dxseg's overlays.

const COLOURS = ["#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00"];

/** The colour of class `value`; the first class is 1. */
export function colour(value) { return COLOURS[(value - 1) % COLOURS.length]; }
