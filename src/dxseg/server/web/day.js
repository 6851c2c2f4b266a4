// What this reader did, kept in this browser only: the server stores no names.

const KEY = "dxseg-day";
const MOST = 5000;

const today = () => new Date().toDateString();

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return [];
  }
}

/** Note a finished case: its new mask ("" for none), and the seconds it took. */
export function note(mask, seconds) {
  const done = [...read(), { day: today(), mask, seconds }].slice(-MOST);
  try {
    localStorage.setItem(KEY, JSON.stringify(done));
  } catch {
    // A full storage: the counts of the day are not worth an error.
  }
}

/** Whether a mask was saved from this browser. */
export const isMine = (mask) => mask !== "" && read().some((one) => one.mask === mask);

/** Cases finished today, and the median of their seconds. */
export function progress() {
  const seconds = read().filter((one) => one.day === today()).map((one) => one.seconds).sort((a, b) => a - b);
  const middle = seconds.length >> 1;
  const median = seconds.length % 2 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  return { count: seconds.length, median: seconds.length ? median : null };
}
