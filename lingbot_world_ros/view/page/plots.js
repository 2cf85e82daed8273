// SPDX-License-Identifier: Apache-2.0
/** Plots of the last minute, on small canvases. */
import { isNumber } from './dom.js';

const SPAN_S = 60;
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const COLORS = ['ink', 'quiet', 'line', 'edge', 'accent', 'warn', 'bad', 'true', 'box', 'field'];

/** Colours of the page as it is shown now, light or dark. */
export let palette = {};
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  palette = Object.fromEntries(COLORS.map((name) => [name, color(name)]));
}
readPalette();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', readPalette);

/** Values with the wall time they were heard at; forgets what is older than the plots show. */
export class History {
  constructor() {
    this.rows = [];
  }

  add(now, values) {
    this.rows.push({ t: now / 1000, ...values });
    let old = 0;
    while (old < this.rows.length && this.rows[old].t < now / 1000 - SPAN_S - 2) old += 1;
    if (old > 50) this.rows.splice(0, old);
  }

  clear() {
    this.rows = [];
  }
}

/** A canvas that follows the size of its box and the pixels of the screen. */
export class Sheet {
  constructor(id) {
    this.canvas = document.getElementById(id);
    this.context = this.canvas.getContext('2d');
    this.width = this.height = 0;
    new ResizeObserver(() => this.measure()).observe(this.canvas);
  }

  measure() {
    const box = this.canvas.getBoundingClientRect();
    this.ratio = Math.min(2, devicePixelRatio || 1);
    this.width = Math.round(box.width);
    this.height = Math.round(box.height);
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.redraw?.();
  }

  begin() {
    const { context } = this;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = FONT;
    context.lineJoin = 'round';
    return context;
  }
}

/** Round steps for an axis: 1, 2 or 5 times a power of ten, about `count` of them. */
export function niceStep(span, count) {
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const factor = [1, 2, 5, 10].find((one) => one * power >= raw * 0.999);
  return factor * power;
}

/** The unit stands at the uppermost number of an axis. */
const tickText = (value, digits, unit) => value.toFixed(digits) + (unit && ` ${unit}`);

/** Values over time: several lines on one pair of axes, and fixed lines across. */
export class TimePlot {
  /**
   * @param {string} id of the canvas
   * @param {{unit: string, top: number, lines: Array<{key: string, color: string, label: string}>,
   *          marks: function(): Array<{value: number, color: string, label: string}>,
   *          note: function(): string|undefined}} spec
   */
  constructor(id, spec) {
    this.sheet = new Sheet(id);
    this.spec = spec;
  }

  draw(rows, now) {
    this.sheet.redraw = () => this.draw(rows, now);
    if (this.sheet.width < 40 || this.sheet.height < 40) return;
    const context = this.sheet.begin();
    const marks = this.spec.marks().filter((mark) => isNumber(mark.value));
    const frame = this.frame(context, this.top(rows, marks), now / 1000);
    this.axes(context, frame);
    for (const mark of marks) this.mark(context, frame, mark);
    for (const line of this.spec.lines) this.line(context, frame, line, rows);
    this.legend(context, frame, rows);
    this.note(context, frame);
  }

  /** Upper end of the value axis: a round number above all that is shown. */
  top(rows, marks) {
    let top = this.spec.top;
    for (const mark of marks) top = Math.max(top, mark.value * 1.2);
    for (const row of rows) {
      for (const line of this.spec.lines) if (row[line.key] > top) top = row[line.key];
    }
    const step = niceStep(top, 4);
    return Math.ceil(top / step - 1e-6) * step;
  }

  frame(context, top, now) {
    const { width, height } = this.sheet;
    const step = niceStep(top, height > 110 ? 4 : 2);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const widest = context.measureText(tickText(top, digits, this.spec.unit)).width;
    const box = { left: Math.ceil(widest) + 14, right: width - 10, top: 23, bottom: height - 19 };
    return {
      box, step, digits, top,
      x: (t) => box.right + ((t - now) / SPAN_S) * (box.right - box.left),
      y: (value) => box.bottom - (value / top) * (box.bottom - box.top),
      from: now - SPAN_S,
    };
  }

  axes(context, { box, step, digits, top, y }) {
    context.lineWidth = 1;
    context.strokeStyle = palette.line;
    context.fillStyle = palette.quiet;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    context.beginPath();
    for (let value = 0; value <= top * 1.001; value += step) {
      const at = Math.round(y(value)) + 0.5;
      context.moveTo(box.left, at);
      context.lineTo(box.right, at);
      const isTop = value > top - step / 2;
      context.fillText(tickText(value, digits, isTop ? this.spec.unit : ''), box.left - 5, at);
    }
    context.stroke();
    context.textBaseline = 'alphabetic';
    const ticks = [['−60 s', box.left, 'left'], ['−30', (box.left + box.right) / 2, 'center'],
                   ['now', box.right, 'right']];
    for (const [text, at, align] of ticks) {
      context.textAlign = align;
      context.fillText(text, at, box.bottom + 14);
    }
  }

  mark(context, { box, y }, { value, color }) {
    const at = Math.round(y(value)) + 0.5;
    context.strokeStyle = palette[color];
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(box.left, at);
    context.lineTo(box.right, at);
    context.stroke();
    context.setLineDash([]);
  }

  line(context, { x, y, from, box }, { key, color }, rows) {
    context.strokeStyle = palette[color];
    context.lineWidth = 1.5;
    context.beginPath();
    let last = -Infinity;
    for (const row of rows) {
      if (row.t < from || !isNumber(row[key])) continue;
      const at = [Math.max(box.left, x(row.t)), Math.max(box.top - 3, y(row[key]))];
      // A gap in what was heard stays a gap.
      if (row.t - last > 1) context.moveTo(...at);
      else context.lineTo(...at);
      last = row.t;
    }
    context.stroke();
    context.lineWidth = 1;
  }

  /** A remark inside the axes, for what the lines cannot say. */
  note(context, { box }) {
    const text = this.spec.note?.() ?? '';
    if (!text) return;
    const width = Math.min(context.measureText(text).width, box.right - box.left - 12);
    context.fillStyle = palette.box;
    context.fillRect(box.left + 3, box.bottom - 20, width + 8, 16);
    context.fillStyle = palette.warn;
    context.textAlign = 'left';
    context.fillText(text, box.left + 7, box.bottom - 8, width);
  }

  /** Names of the lines, right above the plot, only for those that are there. */
  legend(context, { box, from }, rows) {
    const seen = (key) => rows.some((row) => row.t >= from && isNumber(row[key]));
    const items = this.spec.lines.filter((line) => line.label && seen(line.key));
    for (const mark of this.spec.marks()) if (isNumber(mark.value)) items.push(mark);
    let right = box.right;
    context.textAlign = 'right';
    for (const { label, color, value } of items.reverse()) {
      context.fillStyle = palette.quiet;
      context.fillText(label, right, 11);
      right -= context.measureText(label).width + 5;
      context.strokeStyle = palette[color];
      context.lineWidth = 2;
      context.setLineDash(value === undefined ? [] : [4, 3]);
      context.beginPath();
      context.moveTo(right, 7);
      context.lineTo(right - 12, 7);
      context.stroke();
      context.setLineDash([]);
      right -= 22;
    }
    context.lineWidth = 1;
  }
}
