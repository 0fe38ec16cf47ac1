// Time lines, drawn by hand: paths in SVG that stretch with the page, labels in HTML that do not.
//
// All charts of a view share one time axis and one cursor. Where nothing was measured there is a gap, no line. Nothing here
// moves when figures change: heights are fixed, and the scale follows round numbers.

import { h } from '../lib/dom.js';
import { clock, NONE } from '../lib/format.js';

const HEIGHT = 100;
const WIDTH = 1000;

// A round number at or above `value`: 1, 2, 2.5 or 5 times a power of ten.
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

// Lengths of time have round numbers of their own.
const ROUND_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500];
ROUND_MS.push(...[1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800].map((seconds) => seconds * 1000));
ROUND_MS.push(...[1, 2, 6, 12, 24, 48, 120, 240, 480, 1200, 2400, 4800, 12000].map((hours) => hours * 3_600_000));

export const roundUpMs = (value) => ROUND_MS.find((step) => step >= value) || roundUp(value);

// The cursor that charts of a view share: a share of the time axis, or null.
export class Cursor {
  constructor(changed) {
    this.at = null;
    this.changed = changed;
  }

  set(at) {
    if (this.at === at) return;
    this.at = at;
    this.changed();
  }
}

// `series`: `{ name, points: [[ms, value]…] }`, at most four. `from`, `to`: the time axis. `unit`: value to text. `gap`: milliseconds
// without a point after which the line is broken. `round`: the least round number that is not below a value. `none`: what to say
// when there is no value.
export function chart({ title, series, from, to, unit, gap, cursor, round = roundUp, none = 'nothing measured' }) {
  const values = series
    .flatMap((one) => one.points.filter(([at]) => at >= from).map(([, value]) => value))
    .filter(Number.isFinite);
  const top = round(Math.max(0, ...values));
  const span = Math.max(1, to - from);
  const x = (at) => ((at - from) / span) * WIDTH;
  const y = (value) => HEIGHT - (value / top) * HEIGHT;
  const picked = cursor.at === null ? null : from + cursor.at * span;
  const near = series.map((one) => nearest(one.points, picked ?? to, picked === null ? Infinity : gap));
  const spoken = series.map((one, index) => `${one.name} ${unit(near[index] ? near[index][1] : null)}`).join(', ');
  return h(
    'figure',
    { class: 'chart', key: title },
    h(
      'figcaption',
      null,
      h('h3', null, title),
      h(
        'span',
        { class: 'readings' },
        series.map((one, index) =>
          h(
            'span',
            { class: `reading series-${index + 1}` },
            h('i'),
            series.length > 1 ? `${one.name} ` : '',
            h('b', null, unit(near[index] ? near[index][1] : null)),
          ),
        ),
      ),
      h('span', { class: 'moment' }, picked === null ? '' : clock(picked)),
    ),
    h(
      'div',
      { class: 'plot' },
      h(
        'div',
        { class: 'scale', 'aria-hidden': 'true' },
        [1, 0.5, 0].map((share) => h('span', null, values.length ? unit(top * share) : NONE)),
      ),
      h(
        'div',
        {
          class: 'area',
          tabindex: '0',
          role: 'img',
          'aria-label': `${title}: ${spoken}`,
          on: {
            pointermove: (event) => cursor.set(share(event)),
            pointerdown: (event) => cursor.set(share(event)),
            pointerleave: () => cursor.set(null),
            blur: () => cursor.set(null),
            keydown: (event) => steps(event, cursor),
          },
        },
        h(
          'svg',
          { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
          [0, 0.5, 1].map((line) => h('line', { class: 'grid', x1: 0, x2: WIDTH, y1: line * HEIGHT, y2: line * HEIGHT })),
          series.map((one, index) =>
            h('path', {
              key: one.name,
              class: `line series-${index + 1}`,
              d: line(one.points, x, y, gap, from),
            }),
          ),
          picked === null ? null : h('line', { class: 'cursor', x1: x(picked), x2: x(picked), y1: 0, y2: HEIGHT }),
        ),
        values.length === 0 ? h('span', { class: 'nothing muted small' }, none) : null,
      ),
    ),
    h(
      'div',
      { class: 'axis', 'aria-hidden': 'true' },
      [0, 0.5, 1].map((at) => h('span', null, clock(from + at * span, to).slice(-8))),
    ),
  );
}

function share(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
}

function steps(event, cursor) {
  const step = { ArrowLeft: -0.01, ArrowRight: 0.01, PageUp: -0.1, PageDown: 0.1 }[event.key];
  if (step) cursor.set(Math.min(1, Math.max(0, (cursor.at ?? 1) + step)));
  else if (event.key === 'Escape') cursor.set(null);
  else return;
  event.preventDefault();
}

function nearest(points, at, reach) {
  let best = null;
  for (const point of points)
    if (Number.isFinite(point[1]) && (!best || Math.abs(point[0] - at) < Math.abs(best[0] - at))) best = point;
  return best && Math.abs(best[0] - at) <= reach ? best : null;
}

function line(points, x, y, gap, from) {
  let path = '';
  let before = null;
  for (const [at, value] of points) {
    if (at < from - gap) continue;
    if (!Number.isFinite(value)) {
      before = null;
      continue;
    }
    const place = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    // A line without length is a dot: a point that stands alone is seen.
    path += before !== null && at - before <= gap ? `L${place}` : `M${place}h0`;
    before = at;
  }
  return path;
}

// A small line without axes, for tables.
export function spark(points, from, to) {
  const top = Math.max(0, ...points.map(([, value]) => value).filter(Number.isFinite)) || 1;
  const path = line(
    points,
    (at) => ((at - from) / Math.max(1, to - from)) * 100,
    (value) => 19 - (value / top) * 17,
    Infinity,
    from,
  );
  return h(
    'svg',
    { class: 'spark', viewBox: '0 0 100 20', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    h('path', { class: 'line series-1', d: path }),
  );
}
