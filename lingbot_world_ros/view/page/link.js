// SPDX-License-Identifier: Apache-2.0
/**
 * The WebSocket to the page's server: text messages, pictures, and coming back after a loss.
 *
 * A server that says nothing for SILENT_MS counts as lost even while the socket looks open; the
 * socket is then replaced. No message is kept for later: an old command must never act late.
 * Why a socket was refused a browser does not tell, so the server is asked once more without one.
 */

export const SILENT_MS = 1500;
const RETRY_MS = [250, 500, 1000, 2000];
const PICTURE_HEADER = 16;
const MAX_BACKLOG = 4096; // bytes the socket may hold back before drive commands are dropped

/** Address of the socket: beside the page, with the page's token. */
function socketUrl() {
  const url = new URL('ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  const token = new URLSearchParams(location.search).get('token');
  url.search = token ? `?${new URLSearchParams({ token })}` : '';
  return url;
}

/**
 * Split a binary message into its header and the encoded image.
 *
 * @param {ArrayBuffer} buffer
 * @return {{kind: number, sequence: number, stamp: number, blob: Blob}|null}
 */
function readPicture(buffer) {
  if (buffer.byteLength <= PICTURE_HEADER) return null;
  const view = new DataView(buffer);
  if (view.getUint8(1) !== 1) return null;
  const bytes = new Uint8Array(buffer, PICTURE_HEADER);
  return {
    kind: view.getUint8(0),
    sequence: view.getUint32(4, true),
    stamp: view.getFloat64(8, true),
    blob: new Blob([bytes], { type: 'image/jpeg' }),
  };
}

export class Link {
  /**
   * @param {{message: function(object), picture: function(object), opened: function(),
   *          lost: function()}} on what to call
   */
  constructor(on) {
    this.on = on;
    this.heardAt = -Infinity;
    this.isLost = false;
    this.tries = 0;
    this.refusal = ''; // why the server lets this page in no more, in its words
    this.connect();
    setInterval(() => this.watch(), 250);
    addEventListener('online', () => this.retryNow());
    document.addEventListener('visibilitychange', () => document.hidden || this.retryNow());
  }

  connect() {
    this.startedAt = performance.now();
    const socket = new WebSocket(socketUrl());
    socket.binaryType = 'arraybuffer';
    this.opened = false;
    socket.onopen = () => {
      this.opened = true;
      this.refusal = '';
      this.on.opened();
    };
    socket.onmessage = (event) => this.receive(event.data);
    socket.onclose = () => this.drop(socket);
    this.socket = socket;
  }

  receive(data) {
    this.heardAt = performance.now();
    this.isLost = false;
    this.tries = 0;
    if (typeof data === 'string') {
      this.on.message(JSON.parse(data));
    } else {
      const picture = readPicture(data);
      if (picture) this.on.picture(picture);
    }
  }

  /** Ask the server why it refused a socket; one that is gone does not answer. */
  async askWhy() {
    try {
      const query = new URLSearchParams({ origin: location.origin });
      const answer = await fetch(new URL(`reach?${query}`, location.href));
      this.refusal = answer.ok ? '' : (await answer.text()).trim();
    } catch {
      this.refusal = '';
    }
  }

  /** Close a socket that is no use any more and plan the next try. */
  drop(socket) {
    if (socket !== this.socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    if (!this.opened) this.askWhy();
    this.socket = null;
    const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)];
    this.tries += 1;
    this.retry = setTimeout(() => this.connect(), wait);
    this.tell();
  }

  retryNow() {
    if (this.socket) return;
    clearTimeout(this.retry);
    this.tries = 0;
    this.connect();
  }

  watch() {
    const now = performance.now();
    const since = Math.max(this.heardAt, this.startedAt);
    if (this.socket && now - since > 2 * SILENT_MS) this.drop(this.socket);
    this.tell();
  }

  tell() {
    if (this.isLost || !this.isSilent()) return;
    this.isLost = true;
    this.on.lost();
  }

  /** Whether the server has said nothing for too long. */
  isSilent() {
    const since = this.heardAt === -Infinity ? (this.firstAt ??= performance.now()) : this.heardAt;
    return performance.now() - since > SILENT_MS;
  }

  /**
   * Send a message now or not at all.
   *
   * @return {boolean} whether it was handed to the socket
   */
  send(message) {
    const socket = this.socket;
    if (!socket || socket.readyState !== WebSocket.OPEN) return false;
    if (message.type === 'drive' && socket.bufferedAmount > MAX_BACKLOG) return false;
    socket.send(JSON.stringify(message));
    return true;
  }
}
