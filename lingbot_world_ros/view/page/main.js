// SPDX-License-Identifier: Apache-2.0
/** Wires the page: what the server says goes to the screen, what the operator does goes back. */
import { Controls } from './controls.js';
import { byId, fixed, isNumber, make, setProperty, setText } from './dom.js';
import { Drive } from './drive.js';
import { Joints } from './joints.js';
import { Link, SILENT_MS } from './link.js';
import { FloorMap } from './map.js';
import { Pictures } from './pictures.js';
import { History, TimePlot } from './plots.js';

const NUMBERS_MS = 250; // plots and numbers are redrawn at most this often
const TAKE_GRACE_MS = 400; // an older status may still say that somebody else drives
const NOTE_MS = { info: 5000, warn: 8000, error: 14000 };
const MAX_NOTES = 3;
const FRESH_MS = 2000; // a latency that was measured longer ago fades
const CONTACT = 0.5; // probability from which on the base counts as touching something

const SERVER_LOST = "The page's server does not answer; this page reconnects by itself.";
const SERVER_HINT = 'If it was ended, start it again: make sim, or lingbot-world view.'
  + ' With a token, open the address it prints.';
const HINTS = {
  paused: 'Keys: P plays, N makes one step.',
  stopped: 'Key: P plays.',
  stepping: 'Key: N makes one step.',
  error: 'Key: R resets.',
};
// How a picture is covered: a band leaves it readable, a cover says that it is not of now.
const COVERS = {
  paused: 'band', stopped: 'band', stepping: 'band', loading: 'cover calm', waiting: 'cover calm',
  no_world: 'cover calm',
};

const view = { world: null, status: null, statusAt: -Infinity, link: '', gone: '',
               takenAt: -Infinity, numbersAt: -Infinity, latencyAt: -Infinity };
const pictures = new Pictures(() => {
  if (performance.now() - view.numbersAt >= NUMBERS_MS) showNumbers();
});
const history = new History();
const map = new FloorMap('plot-map');
const plots = [
  new TimePlot('plot-rtf', {
    unit: '×', top: 1.25,
    lines: [{ key: 'rtf', color: 'accent' }],
    marks: () => [{ value: 1, color: 'edge', label: 'real time' }],
  }),
  new TimePlot('plot-latency', {
    unit: 'ms', top: 50, lines: [{ key: 'latency_ms', color: 'accent' }], marks: () => [],
  }),
  new TimePlot('plot-uncertainty', {
    unit: '', top: 0.05,
    lines: [{ key: 'uncertainty', color: 'accent', label: 'expected' },
            { key: 'truth_error', color: 'true', label: 'true error' }],
    marks: () => [{ value: view.world?.uncertainty_limit, color: 'warn', label: 'limit' }],
    note: uncertaintyNote,
  }),
];

const link = new Link({
  message: (message) => handlers[message.type]?.(message),
  picture: (picture) => pictures.put(picture),
  opened: () => show(),
  lost: onLost,
});
const send = (message) => link.send(message);

const drive = new Drive({
  send,
  mayDrive: () => !lostFor() && !otherDrives(),
  refused: () => note('warn', lostFor()
    || 'Another page drives. Press Take controls to drive from here.'),
  shortcut: (what) => shortcuts[what](),
});
const joints = new Joints({
  send,
  addJointHold: (button, name, direction) => drive.addJointHold(button, name, direction),
});
const controls = new Controls({ send, take, note, resetDone: () => joints.follow() });

const shortcuts = {
  help: () => byId('help').open || openHelp(),
  play: () => controls.playOrPause(),
  step: () => controls.step(1),
  reset: () => controls.reset(),
};

const handlers = {
  hello: () => show(),
  world: onWorld,
  map: (told) => map.setMap(told),
  status: onStatus,
  done: (message) => controls.onDone(message),
  note: ({ level, text }) => note(level, text),
};

// -- what the server says

function onWorld(world) {
  const isFirst = view.world === null;
  view.world = world;
  drive.setLimits({
    linear: world.linear_max_mps ?? 0, lateral: world.lateral_max_mps ?? 0,
    angular: world.angular_max_radps ?? 0, curvature: world.max_curvature ?? Infinity,
  });
  drive.setJoints((world.joints ?? []).map((joint) => joint.name));
  joints.setWorld(world.joints ?? [], world.known && !world.joints?.length);
  joints.lock(lockedBy());
  map.setRoom(world.plan);
  controls.setWorld(world);
  showPictureChoices(world, isFirst);
  showWords(world);
  show();
}

function onStatus(status) {
  if (isNewRun(view.status, status)) {
    map.clear();
    joints.follow();
  }
  if (view.status && status.refused > view.status.refused && status.message) {
    note('warn', `Refused: ${status.message}`);
  }
  const now = performance.now();
  // The world repeats its newest latency until another is measured.
  if (view.status && status.latency_ms !== view.status.latency_ms) view.latencyAt = now;
  view.status = status;
  view.statusAt = now;
  const moves = status.link === 'live' || status.link === 'stepping';
  history.add(now, !moves ? {} : isFresh() ? status : { ...status, latency_ms: null });
  if (status.pose && status.pose.every(isNumber)) map.add(status.pose, touches());
  if (otherDrives()) drive.forget();
  controls.setStatus(status);
  showLink();
  showDriver();
  // With a picture, if there is one: a redraw of the page costs more than what is drawn.
  if (view.statusAt - view.numbersAt >= 2 * NUMBERS_MS) showNumbers();
}

/** Whether a status belongs to another run than the one before: a reset or another scene. */
function isNewRun(before, now) {
  if (!before) return false;
  // A server that has just begun to listen has no scene and seed yet: to learn them is no new run.
  const differs = (key, none) => before[key] !== none && now[key] !== before[key];
  return now.step < before.step || now.sim_s < before.sim_s || differs('scene', '')
    || differs('seed', null);
}

function onLost() {
  drive.forget();
  controls.forget();
  show();
}

// -- the state of the link, judged by the page too

/** @return {{link: string, text: string, hint: string, isDeaf: boolean}} what to show now */
function judge() {
  const lost = link.refusal
    ? { link: 'lost', text: `The page's server refuses this page: ${link.refusal}`, hint: '' }
    : { link: 'lost', text: SERVER_LOST, hint: SERVER_HINT };
  if (link.isSilent()) return { ...lost, isDeaf: true };
  const { status } = view;
  if (!status) return { link: 'waiting', text: "Connecting to the page's server." };
  const quiet = performance.now() - view.statusAt;
  if (quiet > SILENT_MS) return { ...lost, isDeaf: true };
  // The server has newer pictures than this page: they do not get through.
  const behind = pictures.age() - (status.image_age_s ?? Infinity);
  if (status.link === 'live' && behind > 3 && !document.hidden) {
    return { link: 'stale', text: 'Pictures do not reach this page: the connection is too slow.' };
  }
  return { link: status.link, text: status.text ?? '' };
}

/** Why nobody can drive, '' where they can. */
function lostFor() {
  const { link: state, text } = judge();
  return state === 'lost' ? text || SERVER_LOST : '';
}

function showLink() {
  const { link: state, text, hint = HINTS[state] ?? '', isDeaf = false } = judge();
  const name = state.replaceAll('_', ' ');
  setText(byId('link'), name);
  setText(byId('link-text'), text);
  setText(byId('overlay-text'), text);
  if (state === view.link && hint === view.hint) return;
  view.link = state;
  view.hint = hint;
  document.body.dataset.link = state;
  if (state === 'lost') drive.stop(); // what was held must not act once it is back
  setText(byId('overlay-title'), name[0].toUpperCase() + name.slice(1));
  setText(byId('overlay-hint'), hint);
  setText(byId('announce'), `${name}. ${text}`);
  coverPictures(state);
  document.title = state === 'live' ? 'lingbot_world_ros' : `${name} – lingbot_world_ros`;
  view.gone = isDeaf ? text : state === 'lost' ? 'The world is gone.' : '';
  controls.show(view.gone);
  joints.lock(lockedBy());
}

function coverPictures(state) {
  const cover = state === 'live' ? '' : COVERS[state] ?? 'cover';
  byId('overlay').hidden = cover === '';
  setProperty(byId('overlay'), 'className', cover);
  for (const glass of document.querySelectorAll('.glass')) {
    glass.classList.toggle('old', cover.startsWith('cover'));
  }
}

// -- who drives

function otherDrives() {
  const driver = view.status?.driver;
  if (!driver?.held || driver.mine) return false;
  return performance.now() - view.takenAt > TAKE_GRACE_MS;
}

const lockedBy = () => view.gone
  || (otherDrives() ? 'Another page drives: take the controls first.' : '');

function take() {
  view.takenAt = performance.now();
  send({ type: 'take' });
}

function showDriver() {
  const driver = view.status?.driver ?? {};
  const who = link.isSilent() ? 'unknown' : driver.mine ? 'me' : driver.held ? 'other' : 'nobody';
  const watchers = view.status?.watchers ?? 0;
  const also = watchers > 0 && who !== 'unknown' ? ` · ${watchers + 1} pages open` : '';
  const text = { me: 'You drive', other: 'Another page drives', nobody: 'Nobody drives',
                 unknown: 'No connection' }[who];
  setText(byId('driver-text'), text + also);
  showOthers(view.status?.others_on_cmd_vel ?? 0);
  if (who === view.who) return;
  view.who = who;
  byId('driver').dataset.who = who;
  byId('take').hidden = who === 'me';
  byId('take').disabled = who === 'unknown';
  byId('release').hidden = who !== 'me';
  byId('stick').classList.toggle('locked', who === 'other');
  joints.lock(lockedBy());
}

function showOthers(count) {
  const text = count > 0
    ? `${count} other ${count > 1 ? 'publishers' : 'publisher'} on ${topicName('cmd_vel')}:`
      + ' the robot may follow them too.' : '';
  setText(byId('others'), text);
  setProperty(byId('others'), 'hidden', text === '');
}

const topicName = (key) => view.world?.topics?.[key] ?? key;

// -- numbers, plots and words

function showNumbers() {
  view.numbersAt = performance.now();
  if (document.hidden || !view.status) return;
  const { status } = view;
  const seconds = fixed(status.sim_s, 1);
  const rate = fixed(status.frame_rate_hz, 1);
  const refused = status.refused > 0 ? ` · refused ${status.refused}` : '';
  const problem = status.message ? `; ${status.message}` : '';
  setText(byId('camera-numbers'),
    `${seconds} s · step ${status.step ?? '–'} · ${rate} Hz${refused}`);
  setProperty(byId('camera-numbers'), 'title',
    `sim time, steps since the reset, pictures per second${problem}`);
  setText(byId('rtf-value'), `${fixed(status.rtf, 2)} ×`);
  showLatency(status);
  showContact();
  showUncertainty(status);
  showTruth(status);
  joints.show(status.joints ?? {});
  drawPlots();
}

const isFresh = () => performance.now() - view.latencyAt < FRESH_MS;

function showLatency({ latency_ms: latency }) {
  const value = byId('latency-value');
  const isOld = isNumber(latency) && !isFresh();
  setText(value, isNumber(latency) ? `${isOld ? 'last ' : ''}${fixed(latency, 0)} ms`
    : view.world?.known ? 'none yet' : '–');
  value.classList.toggle('faded', isOld);
  setProperty(value, 'title', isOld ? 'of the last command; no new one has come' : '');
}

const touches = () => (view.status?.contact ?? 0) > CONTACT;

function showContact() {
  const now = touches() && !byId('camera').parentElement.classList.contains('old');
  setProperty(byId('contact'), 'hidden', !now);
  byId('camera').parentElement.classList.toggle('touch', now);
}

function uncertaintyNote() {
  const { uncertainty, calibrated } = view.status ?? {};
  if (!isNumber(uncertainty)) return view.world?.known ? 'unknown: not estimated' : 'unknown';
  return calibrated === false ? 'beyond what it was calibrated for' : '';
}

function showUncertainty({ uncertainty, calibrated }) {
  const value = byId('uncertainty-value');
  const over = isNumber(uncertainty) && calibrated === false;
  setText(value, !isNumber(uncertainty) ? 'unknown'
    : over ? `${uncertainty.toFixed(3)} uncalibrated` : uncertainty.toFixed(3));
  value.classList.toggle('over', over);
  setProperty(value, 'title', over ? 'beyond what it was calibrated for' : '');
}

function showTruth({ truth_error: error, truth_position_error_m: offset }) {
  if (byId('truth-figure').hidden) return;
  const parts = [isNumber(error) ? `RMS error ${error.toFixed(3)}` : 'error unknown'];
  if (isNumber(offset)) parts.push(`base ${offset.toFixed(2)} m off`);
  setText(byId('truth-numbers'), parts.join(' · '));
}

function drawPlots() {
  const now = performance.now();
  for (const plot of plots) plot.draw(history.rows, now);
  map.draw();
}

/** Say which states the model predicts and which are only summed up from the commands. */
function showWords(world) {
  setText(byId('camera-what'), ['Camera', world.engine, world.scene].filter(Boolean).join(' · '));
  if (isNumber(world.depth_far_m)) {
    setText(byId('depth-scale'), `red is near, blue ${world.depth_far_m} m and more`);
  }
  setProperty(byId('camera-what'), 'title', [world.model, topicName('image')].join('; '));
  showKind(byId('joints-kind'), world, 'joint');
  showKind(byId('map-kind'), world, 'base');
  setProperty(byId('map-figure'), 'title', world.plan
    ? 'Walls and furniture are those of the scene, objects where the world has them; the line is'
      + ' the way of the base by its odometry since the reset.'
    : 'The way of the base by its odometry since the reset, x up.');
  setText(byId('help-where'), `${topicName('image')} and ${topicName('cmd_vel')}`
    + `${isNumber(world.domain) ? `, ROS_DOMAIN_ID ${world.domain}` : ''}`
    + `${world.model ? `, model ${world.model}` : ''}.`);
}

function showKind(tag, world, word) {
  const has = (list) => (list ?? []).some((one) => one.includes(word));
  const kind = has(world.predicted) ? 'predicted' : has(world.integrated) ? 'integrated' : '';
  setText(tag, kind);
  tag.title = kind === 'integrated' ? 'computed from the commands; the model never sees it'
    : 'predicted by the model';
  tag.hidden = kind === '';
}

// -- pictures that can be switched on

function showPictureChoices(world, isFirst) {
  const [depth, truth] = [byId('show-depth'), byId('show-truth')];
  for (const [box, has, why] of [[depth, world.has_depth, 'This world has no depth.'],
                                 [truth, world.has_truth, 'No reference world runs beside it.']]) {
    box.disabled = !has;
    box.closest('label').title = has ? '' : why;
  }
  if (isFirst || world.has_truth !== view.hadTruth) truth.checked = world.has_truth;
  view.hadTruth = world.has_truth;
  onShow();
}

function onShow() {
  const depth = byId('show-depth').checked && Boolean(view.world?.has_depth);
  const truth = byId('show-truth').checked && Boolean(view.world?.has_truth);
  byId('depth-figure').hidden = !depth;
  byId('truth-figure').hidden = !truth;
  byId('side').hidden = !depth && !truth;
  const left = document.querySelector('.left');
  left.classList.toggle('side-1', depth !== truth);
  left.classList.toggle('side-2', depth && truth);
  setProperty(byId('depth-figure'), 'title', topicName('depth'));
  send({ type: 'show', depth, truth });
}

// -- notes and help

function note(level, text) {
  const box = byId('notes');
  const last = box.lastElementChild;
  if (last?.dataset.text === text) last.remove();
  const close = make('button', '', '×');
  close.type = 'button';
  close.setAttribute('aria-label', 'Dismiss');
  const one = make('div', `note ${level}`, make('p', '', text), close);
  one.dataset.text = text;
  close.addEventListener('click', () => one.remove());
  setTimeout(() => one.remove(), NOTE_MS[level] ?? NOTE_MS.info);
  box.append(one);
  while (box.children.length > MAX_NOTES) box.firstElementChild.remove();
}

function openHelp() {
  drive.stop();
  byId('help').showModal();
}

function show() {
  showLink();
  showDriver();
}

byId('take').addEventListener('click', () => take());
byId('release').addEventListener('click', () => {
  drive.stop();
  send({ type: 'release' });
});
byId('help-open').addEventListener('click', openHelp);
byId('help-close').addEventListener('click', () => byId('help').close());
byId('show-depth').addEventListener('change', onShow);
byId('show-truth').addEventListener('change', onShow);
// The page's own watch: with no message there is no other occasion to see that none comes.
setInterval(showLink, 250);
setInterval(() => document.hidden || view.link === 'live' || drawPlots(), 1000);
document.addEventListener('visibilitychange', () => document.hidden || showNumbers());

/** For tests and curious people; nothing here can be changed. */
window.lingbot = Object.freeze({
  get frames() { return pictures.camera.frames; },
  get lastStamp() { return pictures.camera.stamp; },
  get state() { return view.status; },
  get world() { return view.world; },
  get map() { return map.told; },
});
