/**
 * A small chart: figures of the last minutes as lines, the newest on the right, drawn as SVG.
 *
 * Laws: a time without figures is a hole in the line, never a straight line across it. The figure
 * in words stands above; the drawing is for the eye only.
 * Bounds: WINDOW_MS of figures, at most POINTS_MAX.
 */

import { clock } from "./figures.js";
import { drawing, element } from "./element.js";

export const WINDOW_MS = 5 * 60_000;
const POINTS_MAX = 400;
/** Two samples further apart than this have a hole between them. */
const HOLE_MS = 7000;
const [WIDTH, HEIGHT] = [300, 56];

/** @typedef {{ atMs: number, values: (number | null)[] }} Point */

export class Chart {
  /**
   * @param {string} title
   * @param {(value: unknown) => string} written how a figure is written
   * @param {string[]} names of the lines; of one line it is not shown
   */
  constructor(title, written, names) {
    this.title = title;
    this.written = written;
    this.names = names;
    /** @type {Point[]} */
    this.points = [];
    /** @type {number | null} where the pointer is, 0 to 1 */
    this.pointed = null;

    this.now = element("span", { class: "now figure" });
    this.note = element("span", { class: "note figure" });
    this.areas = names.map((_, index) => drawing("path", { class: `area line-${index}` }));
    this.lines = names.map((_, index) => drawing("path", { class: `line line-${index}` }));
    this.rule = drawing("path", { class: "rule" });
    const svg = drawing(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      drawing("path", { class: "base", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }),
      ...this.areas,
      ...this.lines,
      this.rule,
    );
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      this.#point((event.clientX - box.left) / box.width);
    });
    svg.addEventListener("pointerleave", () => this.#point(null));
    this.element = element(
      "figure",
      { class: "panel chart" },
      element("figcaption", {}, element("span", { class: "title" }, title), this.now, this.note),
      svg,
    );
  }

  /**
   * @param {number} atMs
   * @param {(number | null)[]} values one for each line
   */
  push(atMs, values) {
    this.points.push({ atMs, values });
    this.advance(atMs);
  }

  /** The time goes on, also without figures. @param {number} nowMs */
  advance(nowMs) {
    const oldest = nowMs - WINDOW_MS;
    const kept = this.points.findIndex((point) => point.atMs >= oldest);
    this.points.splice(
      0,
      Math.max(kept < 0 ? this.points.length : kept, this.points.length - POINTS_MAX),
    );
    this.nowMs = nowMs;
    this.#draw();
  }

  #draw() {
    const nowMs = this.nowMs ?? 0;
    const peak = Math.max(
      0,
      ...this.points.flatMap((point) => point.values.map((value) => value ?? 0)),
    );
    const scale = peak > 0 ? (HEIGHT - 6) / peak : 0;
    const x = (/** @type {Point} */ point) => WIDTH * (1 - (nowMs - point.atMs) / WINDOW_MS);
    for (const index of this.names.keys()) {
      let [line, area] = ["", ""];
      for (const run of runsOf(this.points, index)) {
        const corners = run.map(
          ([point, value]) => `${x(point).toFixed(1)} ${(HEIGHT - 1 - value * scale).toFixed(1)}`,
        );
        const [first, last] = [run[0], run[run.length - 1]];
        if (first === undefined || last === undefined) continue;
        // One point alone is a line of no length, which a round cap makes a dot.
        line += `M${corners.join("L")}${run.length === 1 ? "h0" : ""}`;
        const [left, right] = [x(first[0]).toFixed(1), x(last[0]).toFixed(1)];
        area += `M${left} ${HEIGHT}L${corners.join("L")}L${right} ${HEIGHT}Z`;
      }
      this.lines[index]?.setAttribute("d", line);
      this.areas[index]?.setAttribute("d", area);
    }
    this.#say(peak);
  }

  /** @param {number} peak */
  #say(peak) {
    const nowMs = this.nowMs ?? 0;
    const at = this.pointed === null ? null : nowMs - WINDOW_MS * (1 - this.pointed);
    const point = at === null ? this.points.at(-1) : nearest(this.points, at);
    const figures =
      point?.values.map((value) => this.written(value)) ?? this.names.map(() => this.written(null));
    this.now.replaceChildren(
      ...figures.map((figure, index) =>
        element(
          "span",
          { class: `value line-${index}` },
          figure,
          this.names.length > 1 ? element("span", { class: "unit" }, ` ${this.names[index]}`) : "",
        ),
      ),
    );
    if (at === null) {
      this.rule.setAttribute("d", "");
      this.note.textContent = `peak ${this.written(peak)}`;
    } else {
      this.rule.setAttribute("d", `M${((this.pointed ?? 0) * WIDTH).toFixed(1)} 0V${HEIGHT}`);
      this.note.textContent = point === undefined ? "no figures" : `at ${clock(point.atMs)}`;
    }
  }

  /** @param {number | null} share */
  #point(share) {
    this.pointed = share === null ? null : Math.max(0, Math.min(1, share));
    this.#say(
      Math.max(0, ...this.points.flatMap((point) => point.values.map((value) => value ?? 0))),
    );
  }
}

/**
 * The parts of a line without a hole.
 * @param {Point[]} points
 * @param {number} index
 */
function runsOf(points, index) {
  /** @type {[Point, number][][]} */
  const runs = [];
  let before = -Infinity;
  for (const point of points) {
    const value = point.values[index] ?? null;
    if (value === null) continue;
    if (point.atMs - before > HOLE_MS) runs.push([]);
    runs.at(-1)?.push([point, value]);
    before = point.atMs;
  }
  return runs;
}

/**
 * @param {Point[]} points
 * @param {number} atMs
 */
function nearest(points, atMs) {
  let found;
  for (const point of points) {
    if (found === undefined || Math.abs(point.atMs - atMs) < Math.abs(found.atMs - atMs))
      found = point;
  }
  return found !== undefined && Math.abs(found.atMs - atMs) <= HOLE_MS ? found : undefined;
}
