// The pixels of the open image, with window and level.

/** Windows of CT in Hounsfield units: center and width. */
const CT = { brain: [40, 80], "soft tissue": [50, 400], lung: [-600, 1500], bone: [500, 2000] };

export class Pixels {
  canvas = document.createElement("canvas");
  #values = null; // stored values, by rows; null for a color image
  #table = null;

  /** `image` is as the server displays it; `values` are the stored ones where they are deeper. */
  constructor(image, values) {
    Object.assign(this.canvas, { width: image.width, height: image.height });
    const context = this.canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    Object.assign(this, { width: image.width, height: image.height, slope: 1, intercept: 0, unit: "" });
    if (values) {
      this.#values = values.data;
      Object.assign(this, { slope: values.slope, intercept: values.intercept, unit: values.unit });
    } else this.#values = grays(context.getImageData(0, 0, image.width, image.height).data);
    if (!this.#values) return;
    const [low, high] = range(this.#values);
    this.whole = values ? [this.#shown(low), this.#shown(high)] : [0, 255];
    this.delivered = values?.window ?? this.whole;
    this.window = this.delivered;
    if (values) this.#draw(); // the server's picture is stretched to its own range
  }

  get canWindow() { return this.#values !== null; }

  /** Windows to choose from: name to [low, high]. */
  get presets() {
    const around = ([center, width]) => [center - width / 2, center + width / 2];
    const ct = this.unit === "HU" ? Object.entries(CT).map(([name, window]) => [name, around(window)]) : [];
    return { "as delivered": this.delivered, "whole range": this.whole, ...Object.fromEntries(ct) };
  }

  /** Show the values from low to high as black to white. */
  setWindow([low, high]) {
    const least = (this.whole[1] - this.whole[0]) / 1000 || 1;
    this.window = [low, Math.max(high, low + least)];
    this.#draw();
  }

  /** Move level and width by fractions of the whole range. */
  drag(level, width) {
    const [low, high] = this.window;
    const size = this.whole[1] - this.whole[0];
    const half = Math.max((high - low) / 2 + (width * size) / 2, size / 2000);
    const center = (low + high) / 2 + level * size;
    this.setWindow([center - half, center + half]);
  }

  /** How light the picture is shown, 0 to 1, as a function of whole x and y. */
  shades() {
    const { data } = this.canvas.getContext("2d").getImageData(0, 0, this.width, this.height);
    return (x, y) => {
      const at = 4 * (y * this.width + x);
      return (data[at] + data[at + 1] + data[at + 2]) / 765;
    };
  }

  value(x, y) { return this.#values ? this.#shown(this.#values[y * this.width + x]) : null; }

  #shown(stored) { return this.slope * stored + this.intercept; }

  #draw() {
    const [low, high] = this.window;
    this.#table ??= new Uint32Array(2 ** 16);
    const scale = 255 / (high - low);
    for (let stored = 0; stored < this.#table.length; stored++) {
      const gray = Math.min(255, Math.max(0, Math.round((this.#shown(stored) - low) * scale)));
      this.#table[stored] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
    }
    const image = new ImageData(this.width, this.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let place = 0; place < pixels.length; place++) pixels[place] = this.#table[this.#values[place]];
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

/** One value per pixel; null where the image has colors. */
function grays(data) {
  const values = new Uint8Array(data.length / 4);
  for (let place = 0, at = 0; place < values.length; place++, at += 4) {
    if (data[at] !== data[at + 1] || data[at] !== data[at + 2]) return null;
    values[place] = data[at];
  }
  return values;
}

function range(values) {
  let [low, high] = [values[0], values[0]];
  for (const value of values) {
    if (value < low) low = value;
    else if (value > high) high = value;
  }
  return [low, high];
}

/** Unpack `values` of a prediction: deflated 16-bit numbers; null for none. */
export async function unpackValues(packed) {
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed.deflated), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return { ...packed, data: new Uint16Array(await new Response(stream).arrayBuffer()) };
}
