// SPDX-License-Identifier: Apache-2.0
/**
 * Keyboard, gamepad, touch stick and hold buttons -> one held command.
 *
 * A command lasts only while something is held. Everything is let go, and a stop is sent, when
 * the window loses the focus, is hidden or left, when a text field gets the focus, when the
 * server is lost and when another page takes the controls.
 */
import { byId, clamp, setProperty, setText } from './dom.js';

const HEARTBEAT_MS = 100; // the server stops the robot after 300 ms of silence
const ANALOG_MS = 33; // least time between two messages for one analog motion
const DEAD_ZONE = 0.12;
const STICK_REACH_PX = 46;
// Keys by place on the keyboard, not by letter: [forward, to the left, turn to the left].
const BASE_KEYS = new Map([
  ['KeyW', [1, 0, 0]], ['ArrowUp', [1, 0, 0]], ['KeyS', [-1, 0, 0]], ['ArrowDown', [-1, 0, 0]],
  ['KeyA', [0, 0, 1]], ['ArrowLeft', [0, 0, 1]], ['KeyD', [0, 0, -1]],
  ['ArrowRight', [0, 0, -1]], ['KeyQ', [1, 0, 1]], ['KeyE', [1, 0, -1]],
]);
// In their place, for a robot that strafes.
const STRAFE_KEYS = new Map([['KeyQ', [0, 1, 0]], ['KeyE', [0, -1, 0]]]);
// Of each joint: more, less; as in teleop (actions/keyboard.py).
export const JOINT_KEYS = [['KeyU', 'KeyJ'], ['KeyI', 'KeyK'], ['KeyO', 'KeyL'], ['KeyY', 'KeyH'],
                           ['KeyT', 'KeyG'], ['KeyF', 'KeyV'], ['BracketLeft', 'Quote']];
const MODIFIERS = new Set(['Control', 'Alt', 'Meta', 'AltGraph']);
const TEXT = "input:not([type='range'], [type='checkbox']), select, textarea";

const NO_PAD = { base: [0, 0, 0], joints: [] };

/** Zero inside the dead zone, then rising from 0 to 1, in steps that hide jitter. */
function outsideDeadZone(value) {
  const size = Math.abs(value);
  if (size < DEAD_ZONE) return 0;
  const scaled = Math.min(1, (size - DEAD_ZONE) / (1 - DEAD_ZONE));
  return Math.sign(value) * Math.round(scaled * 40) / 40;
}

export class Drive {
  /**
   * @param {{send: function(object): boolean, mayDrive: function(): boolean,
   *          shortcut: function(string), refused: function()}} host
   */
  constructor(host) {
    this.host = host;
    this.keys = new Set();
    this.stick = [0, 0, 0];
    this.pad = NO_PAD;
    this.holds = new Map(); // joint name -> -1 or 1, from the hold buttons
    this.sideways = 0; // -1 or 1, from the hold buttons
    this.limits = { linear: 0, lateral: 0, angular: 0, curvature: Infinity };
    this.joints = [];
    this.jointKeys = new Map(); // code -> [joint name, -1 or 1]
    this.seq = 0;
    this.sent = this.command();
    this.sentAt = -Infinity;
    this.listenKeys();
    this.listenStick();
    this.listenPads();
    for (const [id, direction] of [['strafe-left', 1], ['strafe-right', -1]]) {
      this.addHold(byId(id), (held) => { this.sideways = held ? direction : 0; });
    }
    byId('speed').addEventListener('input', () => this.update());
    this.showCommand();
  }

  setJoints(names) {
    this.joints = names;
    this.jointKeys = new Map(names.slice(0, JOINT_KEYS.length).flatMap((name, i) => (
      JOINT_KEYS[i].map((code, less) => [code, [name, less ? -1 : 1]]))));
    this.update();
  }

  /**
   * Take over what the robot can do.
   *
   * @param {{linear: number, lateral: number, angular: number, curvature: number}} limits m/s,
   *   rad/s and 1/m; lateral 0: it does not strafe; curvature infinite: it turns on the spot
   */
  setLimits(limits) {
    this.limits = limits;
    const [strafes, steers] = [limits.lateral > 0, Number.isFinite(limits.curvature)];
    byId('strafe').hidden = !strafes;
    for (const element of document.querySelectorAll('[data-drive]')) {
      const kind = element.dataset.drive;
      element.hidden = kind === 'strafes' ? !strafes : kind === 'arcs' ? strafes : !steers;
    }
    this.showCommand();
  }

  /** The push of a key on the base, undefined for other keys. */
  baseKey(code) {
    return (this.limits.lateral > 0 && STRAFE_KEYS.get(code)) || BASE_KEYS.get(code);
  }

  // -- one command from all that is held

  /**
   * @return {{linear: number, lateral: number, angular: number,
   *           joints: Object<string, number>}} -1..1 each
   */
  command() {
    const speed = Number(byId('speed').value);
    const base = this.stick.map((value, i) => value + this.pad.base[i]);
    base[1] += this.sideways;
    const joints = new Map(this.holds);
    this.pad.joints.forEach((value, i) => value && this.joints[i]
      && joints.set(this.joints[i], value));
    for (const code of this.keys) {
      this.baseKey(code)?.forEach((push, i) => { base[i] += push; });
      const [name, push] = this.jointKeys.get(code) ?? [];
      if (name) joints.set(name, (joints.get(name) ?? 0) + push);
    }
    const share = (value) => Math.round(clamp(value, -1, 1) * speed * 1000) / 1000 || 0;
    const moving = [...joints].map(([name, value]) => [name, share(value)]);
    return {
      linear: share(base[0]),
      lateral: this.limits.lateral > 0 ? share(base[1]) : 0,
      angular: share(base[2]),
      joints: Object.fromEntries(moving.filter(([, value]) => value !== 0)),
    };
  }

  /** Send the command if it changed; analog motion is thinned out, start and stop never are. */
  update() {
    const command = this.command();
    const text = JSON.stringify(command);
    if (text === JSON.stringify(this.sent)) return;
    const edge = isZero(command) !== isZero(this.sent);
    const wait = this.sentAt + ANALOG_MS - performance.now();
    clearTimeout(this.later);
    if (!edge && wait > 0) {
      this.later = setTimeout(() => this.update(), wait);
      return;
    }
    if (!isZero(command) && !this.host.mayDrive()) {
      this.forget();
      this.host.refused();
      return;
    }
    this.transmit(command);
  }

  transmit(command) {
    this.sent = command;
    this.sentAt = performance.now();
    this.seq += 1;
    this.host.send({ type: 'drive', ...command, seq: this.seq });
    this.showCommand();
    clearInterval(this.heartbeat);
    if (isZero(command)) return;
    this.heartbeat = setInterval(() => this.beat(), HEARTBEAT_MS);
  }

  /** Repeat what is held, so that a page that froze is told from one that drives on. */
  beat() {
    if (!this.host.mayDrive()) this.forget();
    else if (document.activeElement?.matches(TEXT)) this.stop(); // where focusin did not come
    else this.transmit(this.sent);
  }

  /** Let go of everything and say so. */
  stop() {
    this.letGo();
    clearTimeout(this.later);
    if (!isZero(this.sent)) this.transmit(this.command());
    this.showCommand();
  }

  /** Let go of everything without a word: somebody else drives, or nobody listens. */
  forget() {
    this.letGo();
    clearTimeout(this.later);
    clearInterval(this.heartbeat);
    this.sent = this.command();
    this.showCommand();
  }

  letGo() {
    this.keys.clear();
    this.holds.clear();
    this.sideways = 0;
    this.stick = [0, 0, 0];
    this.stickPointer = null;
    this.pad = NO_PAD;
    this.padNeedsRest = true;
    byId('stick').classList.remove('held');
    for (const button of document.querySelectorAll('button.on')) {
      button.classList.remove('on');
    }
  }

  showCommand() {
    const { linear, lateral, angular } = this.sent;
    const limits = this.limits;
    const forward = linear * limits.linear;
    const knob = byId('knob');
    const size = Math.max(1, Math.hypot(linear, angular));
    const [x, y] = [-angular, -linear].map((value) => (value / size) * STICK_REACH_PX);
    knob.style.transform = `translate(${x}px, ${y}px)`;
    knob.classList.toggle('active', linear !== 0 || angular !== 0);
    setText(byId('asked-linear'), `${signed(forward)} m/s`);
    setText(byId('asked-lateral'), `${signed(lateral * limits.lateral)} m/s left`);
    const turn = steered(forward, angular * limits.angular, limits.curvature);
    setText(byId('asked-angular'), `${signed(turn)} rad/s`);
    setText(byId('speed-value'), `${Math.round(Number(byId('speed').value) * 100)} %`);
  }

  // -- keyboard

  listenKeys() {
    addEventListener('keydown', (event) => this.onKeyDown(event));
    addEventListener('keyup', (event) => {
      if (this.keys.delete(event.code)) this.update();
    });
    addEventListener('blur', () => this.stop());
    addEventListener('pagehide', () => this.stop());
    document.addEventListener('visibilitychange', () => document.hidden && this.stop());
    document.addEventListener('freeze', () => this.stop());
    addEventListener('focusin', (event) => event.target.matches?.(TEXT) && this.stop());
  }

  onKeyDown(event) {
    if (MODIFIERS.has(event.key)) this.stop(); // the keyup of what is held may go elsewhere
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.target.matches?.(TEXT) || document.querySelector('dialog[open]')) return;
    if (event.code === 'Space') this.onSpace(event);
    else if (isWidgetKey(event)) return;
    else if (this.baseKey(event.code) || this.jointKeys.has(event.code)) this.onHeldKey(event);
    else if (!event.repeat) this.onShortcut(event);
  }

  onHeldKey(event) {
    event.preventDefault();
    if (event.repeat) return;
    this.keys.add(event.code);
    this.update();
  }

  /** Space stops; on a button it also presses the button, as everywhere. */
  onSpace(event) {
    if (event.target.closest?.('[data-hold]')) return;
    this.stop();
    if (this.host.mayDrive()) this.host.send({ type: 'stop' });
    if (!event.target.closest?.('button, input')) event.preventDefault();
  }

  onShortcut(event) {
    if (event.key === '?') this.host.shortcut('help');
    else if (event.shiftKey) return;
    else if (event.code === 'KeyP') this.host.shortcut('play');
    else if (event.code === 'KeyN') this.host.shortcut('step');
    else if (event.code === 'KeyR') this.host.shortcut('reset');
  }

  // -- touch stick

  listenStick() {
    const stick = byId('stick');
    stick.addEventListener('pointerdown', (event) => this.onStickDown(event));
    stick.addEventListener('pointermove', (event) => this.onStickMove(event));
    for (const type of ['pointerup', 'pointercancel', 'lostpointercapture']) {
      stick.addEventListener(type, (event) => this.onStickUp(event));
    }
    stick.addEventListener('contextmenu', (event) => event.preventDefault());
  }

  onStickDown(event) {
    if (this.stickPointer != null || event.button !== 0) return;
    event.preventDefault();
    document.activeElement?.blur?.();
    byId('stick').setPointerCapture(event.pointerId);
    this.stickPointer = event.pointerId;
    byId('stick').classList.add('held');
    this.onStickMove(event);
  }

  onStickMove(event) {
    if (event.pointerId !== this.stickPointer) return;
    const box = byId('stick').getBoundingClientRect();
    const x = (event.clientX - box.left - box.width / 2) / STICK_REACH_PX;
    const y = (event.clientY - box.top - box.height / 2) / STICK_REACH_PX;
    this.stick = [outsideDeadZone(-y), 0, outsideDeadZone(-x)];
    this.update();
  }

  onStickUp(event) {
    if (event.pointerId !== this.stickPointer) return;
    this.stickPointer = null;
    this.stick = [0, 0, 0];
    byId('stick').classList.remove('held');
    this.update();
  }

  // -- hold buttons

  /** Make a button move a joint while it is pressed. */
  addJointHold(button, name, direction) {
    this.addHold(button, (held) => (held ? this.holds.set(name, direction)
      : this.holds.delete(name)));
  }

  /** Call back when a button is pressed and let go, by pointer or by Space and Enter. */
  addHold(button, onHeld) {
    button.dataset.hold = '';
    const press = () => {
      onHeld(true);
      button.classList.add('on');
      this.update();
    };
    const release = () => {
      if (!button.classList.contains('on')) return;
      button.classList.remove('on');
      onHeld(false);
      this.update();
    };
    button.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      press();
    });
    for (const type of ['pointerup', 'pointercancel', 'lostpointercapture', 'blur']) {
      button.addEventListener(type, release);
    }
    button.addEventListener('keydown', (event) => {
      if (!isPressKey(event)) return;
      event.preventDefault();
      if (!event.repeat) press();
    });
    button.addEventListener('keyup', (event) => isPressKey(event) && release());
    button.addEventListener('contextmenu', (event) => event.preventDefault());
  }

  // -- gamepad

  listenPads() {
    const start = () => this.padLoop || (this.padLoop = requestAnimationFrame(() => this.poll()));
    addEventListener('gamepadconnected', start);
    addEventListener('gamepaddisconnected', start);
  }

  /** Read the first pad of the standard layout, once per screen refresh while there is one. */
  poll() {
    const pads = navigator.getGamepads().filter((pad) => pad && pad.connected);
    const pad = pads.find((one) => one.mapping === 'standard');
    this.notePad(pad, pads[0]);
    this.padLoop = pads.length ? requestAnimationFrame(() => this.poll()) : 0;
    const read = pad && document.hasFocus() ? readPad(pad) : NO_PAD;
    // After a stop the pad has to come to rest once before it drives again.
    const rests = [...read.base, ...read.joints].every((value) => value === 0);
    this.padNeedsRest = this.padNeedsRest && !rests;
    if (this.padNeedsRest) return;
    this.pad = read;
    this.update();
  }

  notePad(pad, other) {
    const note = byId('pad-note');
    const text = pad ? `gamepad: ${pad.id}`
      : other ? `gamepad not usable (no standard layout): ${other.id}` : '';
    setText(note, text.slice(0, 80));
    setProperty(note, 'hidden', text === '');
  }
}

const isZero = ({ linear, lateral, angular, joints }) =>
  linear === 0 && lateral === 0 && angular === 0 && Object.keys(joints).length === 0;

/** A turn no faster than steering allows at a speed, as the server has it. */
const steered = (forward, turn, curvature) => (curvature === Infinity ? turn
  : clamp(turn, -Math.abs(forward) * curvature, Math.abs(forward) * curvature));

const isPressKey = (event) => event.code === 'Space' || event.code === 'Enter';

function signed(value) {
  const sign = value < 0 ? '−' : value > 0 ? '+' : ' ';
  return sign + Math.abs(value).toFixed(2);
}

/** Whether a key belongs to the slider that has the focus. */
const isWidgetKey = (event) =>
  event.target.matches?.("input[type='range']") && event.code.startsWith('Arrow');

/**
 * Left stick: base. Triggers: sideways. Right stick: joints 1, 2. D-pad: joints 3, 4.
 * Shoulders: joint 5.
 */
function readPad(pad) {
  const held = (i) => (pad.buttons[i]?.pressed ? 1 : 0);
  const pull = (i) => outsideDeadZone(pad.buttons[i]?.value ?? 0);
  const axis = (i) => outsideDeadZone(pad.axes[i] ?? 0);
  return {
    base: [-axis(1) || 0, pull(6) - pull(7), -axis(0) || 0],
    joints: [-axis(2) || 0, axis(3), held(13) - held(12), held(15) - held(14),
             held(5) - held(4)],
  };
}
