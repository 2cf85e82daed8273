// SPDX-License-Identifier: Apache-2.0
/**
 * Draws the newest picture of each kind, at most once per screen refresh, and never queues.
 *
 * While one picture is decoded only the newest that arrives meanwhile is kept.
 */

const KINDS = new Map([[1, 'camera'], [2, 'depth'], [3, 'truth']]);

class Screen {
  /**
   * @param {HTMLCanvasElement} canvas its size follows the pictures
   * @param {function()} drawn called after each picture, before the screen is refreshed
   */
  constructor(canvas, drawn) {
    this.drawn = drawn;
    this.canvas = canvas;
    this.context = canvas.getContext('2d', { alpha: false });
    this.next = null; // newest encoded picture that waits for the decoder
    this.ready = null; // decoded, waits for the screen
    this.decoding = false;
    this.frames = 0;
    this.stamp = null;
    this.arrivedAt = -Infinity;
  }

  /** Take a picture; an older one that still waits is dropped. */
  put(picture) {
    this.next = picture;
    this.arrivedAt = performance.now();
    this.decode();
  }

  async decode() {
    if (this.decoding || !this.next || document.hidden) return;
    this.decoding = true;
    const picture = this.next;
    this.next = null;
    try {
      const bitmap = await createImageBitmap(picture.blob);
      if (this.ready) this.ready.bitmap.close();
      else requestAnimationFrame(() => this.draw());
      this.ready = { bitmap, stamp: picture.stamp };
    } catch {
      // A picture that cannot be decoded is skipped: its age then tells that none arrives.
      this.arrivedAt = this.drawnAt ?? -Infinity;
    }
    this.decoding = false;
    this.decode();
  }

  draw() {
    const { bitmap, stamp } = this.ready;
    this.ready = null;
    const canvas = this.canvas;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      const box = canvas.id === 'camera' ? document.documentElement : canvas.closest('figure');
      box.style.setProperty('--aspect', bitmap.width / bitmap.height);
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.stamp = stamp;
    this.drawnAt = this.arrivedAt;
    this.frames += 1;
    this.drawn();
  }
}

export class Pictures {
  /** @param {function()} drawn called after each colour picture */
  constructor(drawn) {
    this.screens = new Map();
    for (const [kind, id] of KINDS) {
      const tell = id === 'camera' ? drawn : () => {};
      this.screens.set(kind, new Screen(document.getElementById(id), tell));
    }
    document.addEventListener('visibilitychange', () => {
      for (const screen of this.screens.values()) screen.decode();
    });
  }

  put(picture) {
    this.screens.get(picture.kind)?.put(picture);
  }

  get camera() {
    return this.screens.get(1);
  }

  /** Age of the newest colour picture on this page in seconds; Infinity before the first. */
  age() {
    return (performance.now() - this.camera.arrivedAt) / 1000;
  }
}
