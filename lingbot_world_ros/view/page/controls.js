// SPDX-License-Identifier: Apache-2.0
/** Buttons and fields of the world: play, step, reset, seed, world, mode, prompt. */
import { allow, byId, make, setProperty, setText } from './dom.js';

const ANSWER_MS = 30000;
const MAX_STEPS = 1000;
const MAX_SEED = 2 ** 31 - 1;
const KEY_PAUSE_MS = 800; // a choice made by keys counts once the keys rest
const NOT_OFFERED = {
  pause: 'This world offers no service to pause and play.',
  step: 'This world offers no service to step.',
  reset: 'This world offers no service to reset.',
  load: 'This world offers no service to load another.',
  mode: 'The mode of this world cannot be changed from here.',
  prompt: 'This world takes no prompt.',
};
const STANDS = new Set(['paused', 'stopped', 'stepping']);

export class Controls {
  /**
   * @param {{send: function(object): boolean, take: function(),
   *          note: function(string, string), resetDone: function()}} host
   */
  constructor(host) {
    this.host = host;
    this.waiting = new Map(); // id -> {what, timer}
    this.nextId = 1;
    this.furtherSteps = 0; // asked for while a step runs, made together after it
    this.why = {};
    this.world = null;
    this.status = null;
    byId('play').addEventListener('click', () => this.playOrPause());
    byId('step').addEventListener('click', () => this.step(this.stepCount()));
    byId('reset').addEventListener('click', () => this.reset());
    byId('seed').addEventListener('input', () => { this.seedTyped = byId('seed').value !== ''; });
    onEnter(byId('seed'), () => this.reset());
    onEnter(byId('steps'), () => this.step(this.stepCount()));
    this.listenChoice(byId('world-select'), 'load', 'world');
    this.listenChoice(byId('mode'), 'mode', 'mode');
    byId('prompt-form').addEventListener('submit', (event) => this.sendPrompt(event));
    byId('prompt').addEventListener('input', () => { this.promptTyped = true; });
    for (const field of [byId('seed'), byId('steps'), byId('prompt')]) {
      field.addEventListener('keydown', (event) => event.key === 'Escape' && field.blur());
    }
  }

  // -- asking

  /** Ask the world for something; takes free controls first. */
  ask(what, more = {}) {
    if (this.why[what]) {
      this.host.note('warn', `${titleOf(what)}: ${this.why[what]}`);
      return;
    }
    if (!this.status?.driver?.mine) this.host.take();
    const id = this.nextId;
    this.nextId += 1;
    const timer = setTimeout(() => this.onDone({
      id, ok: false, text: `no answer after ${ANSWER_MS / 1000} s`,
    }), ANSWER_MS);
    this.waiting.set(id, { what, timer });
    if (!this.host.send({ type: 'do', id, what, ...more })) {
      this.onDone({ id, ok: false, text: "The page's server does not answer." });
    }
    this.show();
  }

  onDone({ id, ok, text }) {
    const asked = this.waiting.get(id);
    if (!asked) return;
    clearTimeout(asked.timer);
    this.waiting.delete(id);
    if (!ok) this.host.note('error', `${titleOf(asked.what)}: ${text || 'refused'}`);
    else if (text && asked.what !== 'step') this.host.note('info', text);
    if (ok && (asked.what === 'reset' || asked.what === 'load')) this.host.resetDone();
    if (!ok) this.showChoices();
    this.show();
    if (asked.what === 'step') this.stepOn(ok);
  }

  stepOn(ok) {
    const steps = Math.min(this.furtherSteps, MAX_STEPS);
    this.furtherSteps = 0;
    if (ok && steps) this.step(steps);
  }

  /** Give up on all answers: the server that owed them is gone. */
  forget() {
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
    this.furtherSteps = 0;
  }

  playOrPause() {
    this.ask(STANDS.has(this.status?.link) ? 'play' : 'pause');
  }

  stepCount() {
    return this.whole(byId('steps').value, 1, MAX_STEPS, 'Step: the number of steps');
  }

  step(steps) {
    if (steps === null) return;
    const runs = [...this.waiting.values()].some((one) => one.what === 'step');
    if (runs) this.furtherSteps += steps;
    else this.ask('step', { steps });
  }

  /** Read a whole number; null after a note where it is none. */
  whole(text, low, high, what) {
    const value = /^\d+$/.test(text.trim()) ? Number(text) : NaN;
    if (value >= low && value <= high) return value;
    this.host.note('error', `${what} is a whole number from ${low} to ${high}, not "${text}".`);
    return null;
  }

  reset() {
    const text = byId('seed').value.trim();
    if (!this.seedTyped || text === '') {
      this.ask('reset');
      return;
    }
    const seed = this.whole(text, 0, MAX_SEED, 'Reset: the seed');
    if (seed === null) return;
    this.seedTyped = false;
    this.ask('reset', { seed });
  }

  sendPrompt(event) {
    event.preventDefault();
    this.promptTyped = false;
    this.ask('prompt', { text: byId('prompt').value });
    byId('prompt').blur();
  }

  /** A choice by mouse counts at once; keys run through the list, so they count when they rest. */
  listenChoice(select, what, key) {
    let byKeys = false;
    let timer = 0;
    const ask = () => {
      clearTimeout(timer);
      if (select.value && select.value !== select.dataset.now) {
        this.ask(what, { [key]: select.value });
      }
    };
    select.addEventListener('pointerdown', () => { byKeys = false; });
    select.addEventListener('keydown', (event) => {
      byKeys = event.key !== 'Tab';
      if (event.key === 'Enter') ask();
    });
    select.addEventListener('change', () => {
      clearTimeout(timer);
      if (byKeys) timer = setTimeout(ask, KEY_PAUSE_MS);
      else ask(), select.blur();
    });
    select.addEventListener('blur', () => { byKeys = false; });
  }

  // -- showing

  setWorld(world) {
    this.world = world;
    this.worlds = world.worlds?.length ? world.worlds
      : (world.scenes ?? []).map((name) => ({ name }));
    fillSelect(byId('world-select'), this.worlds.map(({ name, description, uri }) => (
      { value: uri || name, text: name, title: description || uri || '' })));
    fillSelect(byId('mode'), (world.modes ?? []).map((value) => ({ value })));
    byId('prompt-form').hidden = !world.takes_text;
    this.show();
  }

  setStatus(status) {
    this.status = status;
    const { link, driver, seed, scene, mode, prompt } = status;
    const key = JSON.stringify([link, driver?.mine, driver?.held, seed, scene, mode, prompt]);
    if (key === this.shown) return;
    this.shown = key;
    this.show();
  }

  /** Put what runs now into fields nobody is typing into. */
  showChoices() {
    const { status, world } = this;
    const name = world?.world || status?.scene || world?.scene || '';
    const known = this.worlds?.find((one) => one.name === name);
    choose(byId('world-select'), known?.uri || name);
    choose(byId('mode'), status?.mode || world?.mode || '');
    const seed = status?.seed ?? world?.seed;
    if (!this.seedTyped && document.activeElement !== byId('seed') && seed != null) {
      setProperty(byId('seed'), 'value', String(seed));
    }
    if (!this.promptTyped && document.activeElement !== byId('prompt')) {
      setProperty(byId('prompt'), 'value', status?.prompt ?? world?.prompt ?? '');
    }
  }

  /** Enable what can be done now; the rest says in its title why not. */
  show(unreachable = this.unreachable) {
    this.unreachable = unreachable;
    const can = this.world?.can ?? {};
    const driver = this.status?.driver;
    const common = unreachable
      || (driver?.held && !driver.mine ? 'Another page drives: take the controls first.' : '');
    for (const what of Object.keys(NOT_OFFERED)) {
      this.why[what] = common || (can[what] ? '' : NOT_OFFERED[what]);
    }
    this.why.play = this.why.pause;
    const busy = new Set([...this.waiting.values()].map((one) => one.what));
    const stands = STANDS.has(this.status?.link);
    setText(byId('play'), stands ? 'Play' : 'Pause');
    const pressed = String(!stands);
    if (byId('play').getAttribute('aria-pressed') !== pressed) {
      byId('play').setAttribute('aria-pressed', pressed);
    }
    allow(byId('play'), this.why.pause);
    const runs = (what, words) => (busy.has(what) ? words : '');
    allow(byId('step'), this.why.step || runs('step', 'The last step still runs.'));
    allow(byId('steps'), this.why.step);
    allow(byId('reset'), this.why.reset || runs('reset', 'The last reset still runs.'));
    allow(byId('seed'), this.why.reset || (can.seed ? '' : 'This world takes no seed.'));
    allow(byId('world-select'), this.why.load || runs('load', 'A world is loading.'));
    allow(byId('mode'), this.why.mode);
    allow(byId('prompt'), this.why.prompt);
    allow(byId('prompt-send'), this.why.prompt);
    this.explain(common, can);
    this.showChoices();
  }

  /** One visible sentence for people who cannot hover over a disabled button. */
  explain(common, can) {
    const missing = ['pause', 'step', 'reset', 'seed', 'load', 'mode'].filter((one) => !can[one]);
    const isKnown = this.world && this.status?.link !== 'waiting';
    const text = common ? common
      : isKnown && missing.length ? `Not offered by this world: ${missing.join(', ')}.` : '';
    setText(byId('controls-why'), text);
    setProperty(byId('controls-why'), 'hidden', text === '');
  }
}

const titleOf = (what) => what[0].toUpperCase() + what.slice(1);

function onEnter(field, act) {
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    act();
    field.blur();
  });
}

function fillSelect(select, options) {
  const key = JSON.stringify(options);
  if (select.dataset.options === key) return;
  select.dataset.options = key;
  select.replaceChildren(...options.map(({ value, text, title }) => {
    const option = make('option', '', text ?? value);
    Object.assign(option, { value, title: title ?? '' });
    return option;
  }));
}

/** Show a value in a select nobody is using; one that is not offered is added as it is. */
function choose(select, value) {
  if (select.dataset.now === value && select.value === value) return;
  if (document.activeElement === select && select.dataset.now === value) return;
  select.dataset.now = value;
  if (value && ![...select.options].some((option) => option.value === value)) {
    const option = make('option', '', value);
    option.value = value;
    select.prepend(option);
  }
  setProperty(select, 'value', value);
}
