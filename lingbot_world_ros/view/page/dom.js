// SPDX-License-Identifier: Apache-2.0
/** Small DOM helpers: elements by id, and writes that touch the page only on a change. */

/**
 * @param {string} id of an element that exists
 * @return {HTMLElement}
 */
export const byId = (id) => document.getElementById(id);

/** Set the text of an element if it is another one. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a property of an element if it has another value. */
export function setProperty(element, name, value) {
  if (element[name] !== value) element[name] = value;
}

/** Make an element with a class and children (elements or text). */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Disable a control and say why in its title; '' enables it and gives its own title back. */
export function allow(element, why) {
  element.dataset.title ??= element.title;
  setProperty(element, 'disabled', why !== '');
  setProperty(element, 'title', why || element.dataset.title);
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A number with fixed digits, or a dash where there is none. */
export const fixed = (value, digits) =>
  (isNumber(value) ? value.toFixed(digits).replace(/^-(?=[0.]+$)/, '') : '–');

export const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
