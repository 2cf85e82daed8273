// SPDX-License-Identifier: Apache-2.0
/** One row per joint: a slider for what is asked, a mark for where the joint is. */
import { byId, clamp, isNumber, make, setProperty, setText } from './dom.js';
import { JOINT_KEYS } from './drive.js';

const SEND_MS = 50; // least time between two position commands of one slider
const SETTLE_MS = 1500; // a slider that was let go shows what was asked at least this long
const UNKNOWN_LIMIT = 3.1416;

class JointRow {
  constructor(joint, index, host) {
    this.joint = joint;
    this.host = host;
    this.low = isNumber(joint.min) ? joint.min : -UNKNOWN_LIMIT;
    this.high = isNumber(joint.max) ? joint.max : UNKNOWN_LIMIT;
    this.heldUntil = -Infinity;
    this.build(index);
  }

  build(index) {
    const { name, unit } = this.joint;
    const isGripper = /grip|finger/.test(name);
    this.slider = make('input');
    Object.assign(this.slider, {
      type: 'range', id: `joint-${name}`, min: this.low, max: this.high,
      step: (this.high - this.low) / 200, value: this.low,
    });
    this.slider.setAttribute('aria-label',
      `${name}, asked position in ${unit}, ${this.low} to ${this.high}`);
    this.output = make('output', '', '–');
    this.output.id = `joint-${name}-value`;
    this.output.htmlFor = this.slider.id;
    this.mark = make('span', 'mark');
    this.mark.hidden = true;
    const keys = (JOINT_KEYS[index] ?? []).map(keyName);
    const less = this.holdButton(-1, isGripper ? 'close' : 'less', keys[1]);
    const more = this.holdButton(1, isGripper ? 'open' : 'more', keys[0]);
    const label = make('label', 'name', ...keys.map((key) => make('kbd', '', key)),
      make('span', '', shortName(name)));
    label.htmlFor = this.slider.id;
    label.title = `${name}: ${this.low} to ${this.high} ${unit}`;
    const track = make('span', 'track', this.slider, make('span', 'where', this.mark));
    this.row = make('div', 'joint', label, this.output, less, track, more);
    this.listen();
  }

  holdButton(direction, word, key) {
    const button = make('button', '', direction < 0 ? '−' : '+');
    button.type = 'button';
    button.title = `hold: ${word}${key ? ` (${key})` : ''}`;
    button.setAttribute('aria-label', `${this.joint.name}: hold for ${word}`);
    this.host.addJointHold(button, this.joint.name, direction);
    return button;
  }

  listen() {
    this.slider.addEventListener('input', () => this.onInput());
    this.slider.addEventListener('pointerdown', () => { this.grabbed = true; });
    for (const type of ['pointerup', 'pointercancel', 'blur']) {
      this.slider.addEventListener(type, () => { this.grabbed = false; });
    }
    // Keys go back to driving once the mouse lets go of a slider.
    this.slider.addEventListener('pointerup', () => this.slider.blur());
  }

  onInput() {
    this.heldUntil = performance.now() + SETTLE_MS;
    clearTimeout(this.later);
    const wait = (this.sentAt ?? -Infinity) + SEND_MS - performance.now();
    if (wait > 0) this.later = setTimeout(() => this.send(), wait);
    else this.send();
  }

  send() {
    this.sentAt = performance.now();
    this.host.send({ type: 'joint', name: this.joint.name, position: Number(this.slider.value) });
  }

  /** Show where the joint is; the slider follows unless somebody has just moved it. */
  show(position) {
    if (!isNumber(position)) return;
    const share = (clamp(position, this.low, this.high) - this.low) / (this.high - this.low || 1);
    const percent = `${(share * 100).toFixed(1)}%`;
    this.mark.hidden = false;
    if (this.mark.style.left !== percent) this.mark.style.left = percent;
    setText(this.output, `${positionText(position, this.joint.unit)} ${this.joint.unit}`);
    if (this.grabbed || performance.now() < this.heldUntil) return;
    const value = String(position);
    if (Math.abs(Number(this.slider.value) - position) > Number(this.slider.step) / 2) {
      setProperty(this.slider, 'value', value);
    }
  }
}

/** What stands on a key of a US keyboard. */
const keyName = (code) => ({ BracketLeft: '[', Quote: "'" }[code] ?? code.replace('Key', ''));

const shortName = (name) => name.replace(/_joint$/, '').replaceAll('_', ' ');

const positionText = (position, unit) =>
  (Math.abs(position) < 5e-4 ? 0 : position).toFixed(unit === 'm' ? 3 : 2);

export class Joints {
  /** @param {{send: function(object), addJointHold: function}} host */
  constructor(host) {
    this.host = host;
    this.rows = [];
  }

  /** Build the rows anew if the joints of the world changed; no panel for a robot without. */
  setWorld(joints, hasNone) {
    for (const element of document.querySelectorAll('[data-joints]')) element.hidden = hasNone;
    const key = JSON.stringify(joints);
    if (key === this.key) return;
    this.key = key;
    this.rows = joints.map((joint, index) => new JointRow(joint, index, this.host));
    const none = make('p', 'quiet', 'No joints received.');
    byId('joints').replaceChildren(...(joints.length ? this.rows.map((one) => one.row) : [none]));
  }

  show(positions) {
    for (const one of this.rows) one.show(positions[one.joint.name]);
  }

  /** Follow the world again at once, as after a reset. */
  follow() {
    for (const one of this.rows) one.heldUntil = -Infinity;
  }

  /** Lock sliders and buttons, with the reason; '' unlocks them. */
  lock(why) {
    for (const one of this.rows) {
      for (const control of one.row.querySelectorAll('input, button')) {
        setProperty(control, 'disabled', why !== '');
      }
      setProperty(one.row, 'title', why);
    }
  }
}
