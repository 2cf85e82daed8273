// SPDX-License-Identifier: Apache-2.0
/**
 * The map: a room with its furniture, movable objects, and where the base has been, from above.
 *
 * Room and objects are in the scene frame, base and path in odom. Where both meet is told by the
 * server; as long as it is not known, or for a world whose room nobody knows, odom alone is drawn.
 */
import { fixed } from './dom.js';
import { niceStep, palette, Sheet } from './plots.js';

const STEP_M = 0.02; // between two points that are added here, until the server tells the path
const MARGIN_M = 0.25;

/** The point (x, y) of a frame at pose [x, y, yaw] in the parent of that frame. */
const placed = ([x0, y0, yaw], [x, y]) => [
  x0 + Math.cos(yaw) * x - Math.sin(yaw) * y, y0 + Math.sin(yaw) * x + Math.cos(yaw) * y];

export class FloorMap {
  constructor(id) {
    this.sheet = new Sheet(id);
    this.told = {};
    this.clear();
  }

  clear() {
    this.points = [];
    this.pose = null;
    this.touches = false;
  }

  /** @param {object|null} room low_m, size_m, parts, ..., as the server has them */
  setRoom(room) {
    this.room = room;
  }

  /** Take over what the server has kept: it is the same for every page. */
  setMap(told) {
    const tail = ({ path }) => JSON.stringify([path?.length, path?.at(-1)]);
    if (tail(told) !== tail(this.told)) this.points = [...told.path ?? []];
    this.told = told;
  }

  /**
   * @param {[number, number, number]} pose x, y [m], yaw [rad] in odom
   * @param {boolean} touches whether the base touches something there
   */
  add(pose, touches) {
    this.pose = pose;
    this.touches = touches;
    const last = this.points.at(-1);
    if (last && Math.hypot(pose[0] - last[0], pose[1] - last[1]) < STEP_M) return;
    this.points.push([pose[0], pose[1]]);
  }

  draw() {
    this.sheet.redraw = () => this.draw();
    if (this.sheet.width < 40 || this.sheet.height < 40) return;
    const context = this.sheet.begin();
    const view = this.view();
    if (view.room) this.floor(context, view);
    this.grid(context, view);
    if (view.room) this.things(context, view);
    if (this.pose) {
      this.trail(context, view);
      this.robot(context, view);
    }
    this.scaleBar(context, view);
    this.numbers(context);
  }

  /** What is drawn where: px of the sheet from metres right and up, and from poses in odom. */
  view() {
    const { width, height } = this.sheet;
    const { room, told: { origin } } = this;
    const inScene = Boolean(room && origin && this.pose);
    const start = inScene ? origin : [0, 0, Math.PI / 2]; // odom alone: x up, y to the left
    const shown = [...this.points, this.pose ?? [0, 0], [0, 0]].map((one) => placed(start, one));
    if (inScene) {
      const [u, v] = room.low_m;
      shown.push([u, v], [u + room.size_m[0], v + room.size_m[1]]);
    }
    const [us, vs] = [0, 1].map((axis) => shown.map((one) => one[axis]));
    const [low, high] = [Math.min, Math.max].map((end) => [end(...us), end(...vs)]);
    const least = inScene ? 0 : 2;
    const across = Math.max(least, high[0] - low[0] + 2 * MARGIN_M);
    const along = Math.max(least, high[1] - low[1] + 2 * MARGIN_M);
    const scale = Math.min((width - 8) / across, (height - 44) / along); // px per metre
    const x = (u) => width / 2 + (u - (low[0] + high[0]) / 2) * scale;
    const y = (v) => (height - 8) / 2 - (v - (low[1] + high[1]) / 2) * scale;
    return {
      x, y, scale, room: inScene ? room : null, turn: start[2],
      at: (point) => { const [u, v] = placed(start, point); return [x(u), y(v)]; },
      step: niceStep(Math.max(width, height) / scale, 6),
    };
  }

  grid(context, { x, y, step, scale }) {
    const { width, height } = this.sheet;
    context.strokeStyle = palette.line;
    context.lineWidth = 1;
    context.beginPath();
    const pitch = step * scale;
    for (let at = ((x(0) % pitch) + pitch) % pitch; at <= width; at += pitch) {
      context.moveTo(Math.round(at) + 0.5, 0);
      context.lineTo(Math.round(at) + 0.5, height);
    }
    for (let at = ((y(0) % pitch) + pitch) % pitch; at <= height; at += pitch) {
      context.moveTo(0, Math.round(at) + 0.5);
      context.lineTo(width, Math.round(at) + 0.5);
    }
    context.stroke();
  }

  floor(context, { x, y, scale, room }) {
    const [[left, low], [width, height]] = [room.low_m, room.size_m];
    context.fillStyle = palette.field;
    context.fillRect(x(left), y(low + height), width * scale, height * scale);
    context.fillStyle = palette.box; // as beyond the room
    for (const [px, py, , halfX, halfY] of room.unknown) {
      context.fillRect(x(px - halfX), y(py + halfY), 2 * halfX * scale, 2 * halfY * scale);
    }
  }

  /** Furniture, the outer walls and what can be moved. */
  things(context, view) {
    const { x, y, scale, room } = view;
    for (const [px, py, ...size] of room.parts) {
      const [yaw, ...half] = size.length > 1 ? size : [0, ...size];
      this.thing(context, view, [px, py, yaw], half, 'edge');
    }
    if (room.has_walls) {
      const [[left, low], [width, height]] = [room.low_m, room.size_m];
      context.strokeStyle = palette.ink;
      context.lineWidth = 3;
      context.strokeRect(x(left), y(low + height), width * scale, height * scale);
    }
    for (const [name, pose] of Object.entries(this.told.objects ?? {})) {
      if (room.objects[name]) this.thing(context, view, pose, room.objects[name], 'warn');
    }
  }

  /** @param {number[]} half half sizes of a box, or one radius */
  thing(context, { x, y, scale }, [px, py, yaw], half, color) {
    context.save();
    context.translate(x(px), y(py));
    context.rotate(-yaw);
    context.beginPath();
    const [a, b] = half.map((value) => value * scale);
    if (b === undefined) context.arc(0, 0, a, 0, 2 * Math.PI);
    else context.rect(-a, -b, 2 * a, 2 * b);
    context.fillStyle = palette[color];
    context.globalAlpha = 0.55;
    context.fill();
    context.restore();
  }

  trail(context, { at }) {
    context.strokeStyle = palette.accent;
    context.lineWidth = 2;
    context.beginPath();
    for (const point of this.points) context.lineTo(...at(point));
    context.lineTo(...at(this.pose));
    context.stroke();
    const [x, y] = at([0, 0]);
    context.beginPath();
    context.arc(x, y, 4, 0, 2 * Math.PI);
    context.stroke();
    context.fillStyle = palette.ink;
    context.textAlign = 'left';
    context.fillText('start', x + 8, y + 14);
  }

  robot(context, { at, turn }) {
    context.save();
    context.translate(...at(this.pose));
    context.rotate(Math.PI / 2 - turn - this.pose[2]);
    if (this.touches) {
      context.strokeStyle = palette.bad;
      context.lineWidth = 3;
      context.beginPath();
      context.arc(0, 0, 16, 0, 2 * Math.PI);
      context.stroke();
    }
    context.beginPath();
    context.moveTo(0, -11);
    context.lineTo(7.5, 8);
    context.lineTo(0, 4);
    context.lineTo(-7.5, 8);
    context.closePath();
    context.fillStyle = this.touches ? palette.bad : palette.ink;
    context.strokeStyle = palette.box;
    context.lineWidth = 2;
    context.stroke();
    context.fill();
    context.restore();
  }

  /** Position and heading in odom, in words. */
  numbers(context) {
    if (!this.pose) {
      this.words(context, 'no odometry heard');
      return;
    }
    const [x, y, yaw] = this.pose;
    const degrees = Math.round((Math.atan2(Math.sin(yaw), Math.cos(yaw)) * 180) / Math.PI);
    this.words(context, `odom x ${fixed(x, 2)}  y ${fixed(y, 2)}  yaw ${degrees}°`);
  }

  words(context, text) {
    context.fillStyle = palette.box;
    context.fillRect(5, 1, context.measureText(text).width + 8, 15);
    context.fillStyle = palette.quiet;
    context.textAlign = 'left';
    context.fillText(text, 9, 12);
  }

  scaleBar(context, { scale }) {
    const { width, height } = this.sheet;
    const metres = niceStep((width * 0.4) / scale, 1.6);
    const text = `${metres < 1 ? metres.toFixed(1) : metres} m`;
    const [left, at] = [10, height - 9];
    const right = left + metres * scale;
    context.fillStyle = palette.box;
    context.fillRect(left - 4, at - 10, metres * scale + context.measureText(text).width + 16, 15);
    context.strokeStyle = palette.ink;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(left, at - 4);
    context.lineTo(left, at);
    context.lineTo(right, at);
    context.lineTo(right, at - 4);
    context.stroke();
    context.fillStyle = palette.quiet;
    context.textAlign = 'left';
    context.fillText(text, right + 6, at + 1);
  }
}
