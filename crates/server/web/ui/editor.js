// A text field for SQL with colours, line numbers and a mark where something is wrong. It is the browser's own text field, over a
// coloured copy of its text, so typing, undoing, selecting and reading it aloud work as everywhere.

import { h } from '../lib/dom.js';
import { wordsOf, placeOf } from '../lib/sql-words.js';

// Longer text is not coloured: it would make typing slow.
const COLOURED_CHARACTERS_MAX = 100_000;

export function editor({ id, label, value, wrong, describedBy, onInput, onRun, onPreview }) {
  const lines = value.split('\n').length;
  const place = wrong ? placeOf(value, wrong.line, wrong.column) : null;
  return h(
    'div',
    { class: `editor${wrong ? ' invalid' : ''}` },
    h(
      'div',
      { class: 'numbers', 'aria-hidden': 'true', same: `${lines} ${place ? place.line : ''}` },
      Array.from({ length: lines }, (_, index) =>
        h('span', { class: place && place.line === index + 1 ? 'wrong' : undefined }, index + 1),
      ),
    ),
    h(
      'div',
      { class: 'text' },
      // The last line must have a height also when it is empty.
      h('pre', { 'aria-hidden': 'true' }, coloured(value, place), '\n'),
      h('textarea', {
        id,
        'aria-label': label,
        spellcheck: 'false',
        autocapitalize: 'off',
        autocomplete: 'off',
        wrap: 'off',
        'aria-invalid': wrong ? 'true' : undefined,
        'aria-describedby': describedBy,
        value,
        on: {
          input: (event) => onInput(event.target.value),
          keydown: (event) => {
            if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
              event.preventDefault();
              if (event.shiftKey) onPreview();
              else onRun();
            }
          },
        },
      }),
    ),
  );
}

let last = { value: null, words: [] };

function coloured(value, place) {
  if (value.length > COLOURED_CHARACTERS_MAX) return value;
  // The page is drawn anew each second, the text is mostly the same.
  if (last.value !== value) last = { value, words: wordsOf(value) };
  let at = 0;
  return last.words.flatMap(([kind, text]) => {
    const start = at;
    at += text.length;
    if (!place || place.at < start || place.at >= at) return span(kind, text);
    const from = place.at - start;
    const to = Math.min(text.length, from + place.length);
    return [
      span(kind, text.slice(0, from)),
      h('span', { class: 'wrong' }, span(kind, text.slice(from, to))),
      span(kind, text.slice(to)),
    ];
  });
}

const span = (kind, text) => (text === '' ? null : kind ? h('span', { class: kind }, text) : text);

// The line in which the cursor is, from 1.
export function lineOfCursor(id) {
  const field = document.getElementById(id);
  return field ? field.value.slice(0, field.selectionStart).split('\n').length : 1;
}

// Puts the cursor at a line and column and shows it.
export function goTo(id, line, column) {
  const field = document.getElementById(id);
  if (!field) return;
  const place = placeOf(field.value, line, column);
  field.focus();
  if (place) field.setSelectionRange(place.at, place.at + place.length);
}
