// Tables with a fixed lay-out, so that changing figures move nothing, with rows that keep their identity, and sorted by any column;
// and the filter for their rows.

import { h } from '../lib/dom.js';
import { inOrder } from '../lib/format.js';

// `columns`: `{ id, label, width (rem; absent: takes what is left), number, cell(row), sort(row), hint, wrap, place }`; `cell` gives what
// stands in the cell, `sort` makes the column sortable, `place` says where it is in a card: 'lead', 'side', 'wide',
// 'whole' or 'drop' (nowhere). `order`: `{ by, down }`. `detail(row)`: what stands below a row.
// `same`: as long as it is equal, nothing in the table is another one; for long tables, which are costly to compare.
export function table({
  label,
  columns,
  rows,
  key,
  order,
  onOrder,
  detail,
  cards = false,
  empty = 'Nothing to show.',
  same,
}) {
  const sorted = order ? sortRows(rows, columns, order) : rows;
  const least = columns.reduce((sum, column) => sum + (column.width || column.least || 12), 0);
  return h(
    'div',
    {
      class: `scroll${cards ? ' cards' : ''}`,
      tabindex: cards ? undefined : '0',
      role: 'region',
      'aria-label': label,
      same: same === undefined ? undefined : `${same} ${JSON.stringify(order)}`,
    },
    h(
      'table',
      { css: { 'min-width': `${least}rem` } },
      h('caption', { class: 'quiet' }, label),
      h(
        'colgroup',
        null,
        columns.map((column) => h('col', { css: column.width ? { width: `${column.width}rem` } : {} })),
      ),
      h(
        'thead',
        null,
        h(
          'tr',
          null,
          columns.map((column) => heading(column, order, onOrder)),
        ),
      ),
      h(
        'tbody',
        null,
        sorted.length === 0
          ? h('tr', { key: 'nothing' }, h('td', { colspan: columns.length, class: 'empty whole' }, empty))
          : null,
        sorted.flatMap((row) => {
          const below = detail ? detail(row) : null;
          return [
            h(
              'tr',
              { key: `row ${key(row)}` },
              columns.map((column) =>
                h(
                  'td',
                  {
                    class: classes(column),
                    'data-label': column.label && !['lead', 'side'].includes(column.place) ? column.label : undefined,
                  },
                  column.cell(row),
                ),
              ),
            ),
            below
              ? h(
                  'tr',
                  { key: `below ${key(row)}`, class: 'detail' },
                  h('td', { colspan: columns.length, class: 'whole' }, below),
                )
              : null,
          ];
        }),
      ),
    ),
  );
}

function classes(column) {
  return [column.number && 'number', column.place, column.wrap && 'wrap'].filter(Boolean).join(' ') || undefined;
}

function heading(column, order, onOrder) {
  const active = order && order.by === column.id;
  const props = {
    scope: 'col',
    class: column.number ? 'number' : undefined,
    title: column.hint,
    'aria-sort': active ? (order.down ? 'descending' : 'ascending') : undefined,
  };
  if (!column.sort || !onOrder) return h('th', props, column.label || h('span', { class: 'quiet' }, column.id));
  const next = { by: column.id, down: active ? !order.down : Boolean(column.number) };
  return h(
    'th',
    props,
    h(
      'button',
      { type: 'button', on: { click: () => onOrder(next) } },
      column.label,
      h('span', { class: 'arrow', 'aria-hidden': 'true' }, active && order.down ? '↓' : '↑'),
    ),
  );
}

// What is not known comes last, whichever way it is sorted; what is equal keeps its place.
function sortRows(rows, columns, { by, down }) {
  const column = columns.find((one) => one.id === by);
  if (!column || !column.sort) return rows;
  const sign = down ? -1 : 1;
  return rows
    .map((row) => [row, column.sort(row)])
    .sort(([, a], [, b]) => {
      const lost = (value) => value === null || value === undefined || Number.isNaN(value);
      if (lost(a) || lost(b)) return Number(lost(a)) - Number(lost(b));
      return sign * (typeof a === 'string' ? inOrder(a, b) : a - b);
    })
    .map(([row]) => row);
}

// A test for what is typed into a filter: whether a text holds each of its words, in any order and case.
export function matcher(filter) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return (text) => words.every((word) => text.toLowerCase().includes(word));
}
