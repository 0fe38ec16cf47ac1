// Small drawings in the colour of the text beside them. They say nothing alone: each stands beside a word or in a control with a name.

import { h } from '../lib/dom.js';

const PATHS = {
  brand: ['M3 4c5 0 6 8 11 8h7', 'M3 12h18', 'M3 20c5 0 6-8 11-8'],
  system: ['M4 5h16v11H4z', 'M9 20h6'],
  light: [
    'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8',
    'M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5',
  ],
  dark: ['M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z'],
  help: ['M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4', 'M12 18.2v.1'],
  close: ['M6 6l12 12M18 6 6 18'],
  key: ['M8 11.5a4 4 0 1 0 0 8 4 4 0 0 0 0-8', 'M11 12.5l8.5-8.5M16 7.5l3 3'],
  more: ['M12 5v14M5 12h14'],
  less: ['M5 12h14'],
  source: ['M4 5v14', 'M9 12h11M15 7l5 5-5 5'],
  sink: ['M20 5v14', 'M3 12h12M10 7l5 5-5 5'],
  calc: ['M5 7h14M5 12h9M5 17h6'],
  join: ['M5 6l14 12V6L5 18z'],
  window: ['M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16', 'M12 8v4.5l3 2'],
  aggregate: ['M17 6V5H7l6 7-6 7h10v-1'],
  other: ['M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6'],
  fit: ['M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5'],
};

export function icon(name) {
  return h(
    'svg',
    {
      viewBox: '0 0 24 24',
      fill: 'none',
      stroke: 'currentColor',
      'stroke-width': 2,
      'stroke-linecap': 'round',
      'stroke-linejoin': 'round',
      'aria-hidden': 'true',
    },
    PATHS[name].map((d) => h('path', { d })),
  );
}

// A shape for each kind of state, so that colour is never all that tells them apart.
const MARKS = {
  ok: h('circle', { cx: 5, cy: 5, r: 4, fill: 'currentColor' }),
  warn: h('path', { d: 'M5 .8 9.6 9H.4z', fill: 'currentColor' }),
  bad: h('path', { d: 'M1.5 1.5l7 7M8.5 1.5l-7 7', stroke: 'currentColor', 'stroke-width': 2.2, 'stroke-linecap': 'round' }),
  accent: h('circle', { cx: 5, cy: 5, r: 3.4, fill: 'none', stroke: 'currentColor', 'stroke-width': 2 }),
  idle: h('rect', { x: 1.5, y: 1.5, width: 7, height: 7, rx: 1, fill: 'currentColor' }),
};

export const mark = (kind) =>
  h('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true', same: kind, key: kind }, { ...MARKS[kind] });
