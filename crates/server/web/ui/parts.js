// Small parts that views share: chips of states, figures, notices, bars of load.

import { h } from '../lib/dom.js';
import { behind, eventTime, NONE, percent } from '../lib/format.js';
import { mark } from './icons.js';

// How much a state asks for attention: the kind of its chip, and where it comes when jobs are sorted by state.
const STATES = {
  failed: ['bad', 0],
  restarting: ['warn', 1],
  waiting: ['warn', 2],
  stopping: ['accent', 3],
  deploying: ['accent', 4],
  starting: ['accent', 4],
  rescaling: ['accent', 4],
  created: ['accent', 5],
  running: ['ok', 6],
  finished: ['idle', 8],
  stopped: ['idle', 9],
  cancelled: ['idle', 10],
};

export const kindOfState = (state) => (STATES[state] || ['idle', 7])[0];
export const rankOfState = (state) => (STATES[state] || ['idle', 7])[1];

export function chip(text, kind = 'idle', title) {
  return h('span', { class: `chip ${kind}`, title }, mark(kind), text);
}

export const stateChip = (state) => chip(state, kindOfState(state));

// `[{ label, value, note, title, kind }]` as a strip of figures.
export function figures(list) {
  return h(
    'dl',
    { class: 'figures live' },
    list.map((one) =>
      h(
        'div',
        { class: `figure ${one.kind || ''}`, key: one.label, title: one.title },
        h('dt', null, one.label),
        h('dd', null, h('span', null, one.value), h('span', { class: 'note' }, one.note || '')),
      ),
    ),
  );
}

export function notice(kind, label, text, ...more) {
  return h(
    'div',
    { class: `notice ${kind}`, key: `${kind} ${label}`, role: kind === 'bad' ? 'alert' : 'status' },
    h('div', null, h('span', { class: 'label' }, label), text ? ' ' : '', text ? h('span', { class: 'told' }, text) : null),
    more,
  );
}

// How busy and how blocked a task is, as a bar and in words for who cannot see it.
export function load(busy, blocked) {
  const known = busy !== null && busy !== undefined;
  const words = known ? `busy ${percent(busy)}, backpressured ${percent(blocked)}` : 'load not known';
  return h(
    'span',
    { class: 'load', role: 'img', 'aria-label': words, title: words },
    h('i', { class: 'busy', css: { width: `${Math.round((known ? busy : 0) * 100)}%` } }),
    h('i', { class: 'blocked', css: { width: `${Math.round((blocked || 0) * 100)}%` } }),
  );
}

export const loadLegend = () =>
  h(
    'div',
    { class: 'legend', 'aria-hidden': 'true' },
    h('span', null, h('i', { class: 'swatch busy' }), 'busy'),
    h('span', null, h('i', { class: 'swatch blocked' }), 'backpressured'),
    h('span', null, h('i', { class: 'swatch' }), 'idle'),
  );

// How far the watermark of a subtask is behind `now`, as a cell of a table; the watermark itself is the cell's title.
export function watermarkCell(row, now) {
  if (row.watermark_at_end) return 'at the end';
  if (row.watermark_ms === null) return NONE;
  return h('span', { title: `${eventTime(row.watermark_ms)} UTC` }, behind(row.watermark_ms, now));
}

export function panel(title, props, ...children) {
  const { end, label } = props || {};
  return h(
    'section',
    { class: 'panel', key: `panel ${label || title}`, 'aria-label': label || title },
    h('header', null, h('h2', null, title), end ? h('div', { class: 'end row' }, end) : null),
    children,
  );
}

// Until the first answer: boxes of about the size of what comes, so that little moves.
export const loading = (rows = 8) =>
  h(
    'div',
    { class: 'loading', 'aria-busy': 'true' },
    h('span', { class: 'quiet' }, 'Loading'),
    Array.from({ length: rows }, () => h('div', { class: 'bone' })),
  );

// What is shown in place of a view whose first answer is an error.
export function failed(error, what) {
  return notice(error.status === 501 || error.status === 404 ? 'warn' : 'bad', `${what} cannot be shown:`, error.message);
}

// A panel that has nothing to show: its first answer is under way, or is an error.
export const unansweredPanel = (title, error, what, rows) =>
  panel(title, {}, h('div', { class: 'body' }, error ? failed(error, what) : loading(rows)));

export const facts = (pairs) =>
  h(
    'dl',
    { class: 'facts' },
    pairs.filter(Boolean).flatMap(([name, value]) => [h('dt', null, name), h('dd', null, value ?? NONE)]),
  );

// Sum of the lag over the sources of a job, in one unit only; null where nothing is known.
export function lagOf(lag) {
  if (!lag || lag.length === 0) return null;
  const unit = lag[0].unit;
  return { total: lag.filter((one) => one.unit === unit).reduce((sum, one) => sum + one.total, 0), unit };
}
