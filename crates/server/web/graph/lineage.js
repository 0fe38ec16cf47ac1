// Draws from which columns of which tables the columns of a sink come: tables on the left, the sink on the right, a line for
// each origin. A column that is pointed at, or has the focus, shows its own lines alone.

import { h } from '../lib/dom.js';
import { plural } from '../lib/format.js';

const ROW = 26;
const MIDDLE = 220;

const keyOf = (origin) => `${origin.operator} ${origin.column}`;
const nameOf = (origin) => `${origin.table}.${origin.column}`;

export class LineageDrawing {
  constructor(changed) {
    this.changed = changed;
    this.picked = null;
  }

  pick(what) {
    if (this.picked === what) return;
    this.picked = what;
    this.changed();
  }

  draw(sink) {
    const left = originsOf(sink);
    const lines = sink.columns.flatMap((column, index) =>
      column.from.map((origin) => ({ from: keyOf(origin), to: `${sink.operator} > ${index}` })),
    );
    const mine = this.picked === null ? lines : lines.filter((line) => line.from === this.picked || line.to === this.picked);
    const lit = new Set(mine.flatMap((line) => [line.from, line.to]));
    const rowsLeft = left.reduce((sum, table) => sum + 1 + table.columns.length, 0);
    const rows = Math.max(rowsLeft, sink.columns.length + 1);
    const y = new Map();
    let at = (rows - rowsLeft) / 2;
    for (const table of left) {
      at += 1;
      for (const column of table.columns) {
        y.set(column.key, (at + 0.5) * ROW);
        at += 1;
      }
    }
    const top = (rows - sink.columns.length - 1) / 2;
    sink.columns.forEach((_, index) => y.set(`${sink.operator} > ${index}`, (top + 1.5 + index) * ROW));
    const anything = this.picked !== null && mine.length > 0;
    return h(
      'div',
      { class: 'lineage' },
      h(
        'div',
        { class: 'side', css: { 'padding-top': `${((rows - rowsLeft) / 2) * ROW}px` } },
        left.map((table) =>
          h(
            'div',
            { key: table.operator, class: 'table' },
            h('h3', null, table.name),
            h(
              'ul',
              { 'aria-label': `Columns of ${table.name}` },
              table.columns.map((column) =>
                this.column(
                  column.key,
                  column.name,
                  anything && !lit.has(column.key),
                  column.deciding ? 'decides over rows' : '',
                  leadsTo(sink, column),
                ),
              ),
            ),
          ),
        ),
      ),
      h(
        'svg',
        { viewBox: `0 0 ${MIDDLE} ${rows * ROW}`, height: rows * ROW, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
        lines.map((line) =>
          h('path', {
            key: `${line.from} ${line.to}`,
            class: anything && mine.includes(line) ? 'on' : anything ? 'off' : '',
            d: curve(y.get(line.from), y.get(line.to)),
          }),
        ),
      ),
      h(
        'div',
        { class: 'side', css: { 'padding-top': `${top * ROW}px` } },
        h(
          'div',
          { class: 'table' },
          h('h3', null, sink.table),
          h(
            'ul',
            { 'aria-label': `Columns of ${sink.table}` },
            sink.columns.map((column, index) => {
              const key = `${sink.operator} > ${index}`;
              return this.column(
                key,
                column.column,
                anything && !lit.has(key),
                column.from.length ? '' : 'from no column',
                column.from.length
                  ? `comes from ${column.from.map(nameOf).join(', ')}`
                  : 'comes from no column: a constant, or a count of rows',
              );
            }),
          ),
        ),
      ),
    );
  }

  column(key, name, faint, note, spoken) {
    const on = {
      pointerenter: () => this.pick(key),
      pointerleave: () => this.pick(null),
      focus: () => this.pick(key),
      blur: () => this.pick(null),
      click: () => this.pick(key),
    };
    return h(
      'li',
      { key },
      h(
        'button',
        {
          type: 'button',
          class: faint ? 'faint' : '',
          title: spoken,
          'aria-label': `${name} ${spoken}${note ? `; ${note}` : ''}`,
          on,
        },
        h('span', { class: 'name' }, name),
        note ? h('span', { class: 'note' }, note) : null,
      ),
    );
  }
}

function leadsTo(sink, column) {
  const into = sink.columns
    .filter((one) => one.from.some((origin) => keyOf(origin) === column.key))
    .map((one) => `${sink.table}.${one.column}`);
  return into.length ? `goes into ${into.join(', ')}` : 'goes into no column';
}

// The tables that a sink's rows come from, each with the columns that matter.
function originsOf(sink) {
  const tables = new Map();
  const add = (origin, deciding) => {
    if (!tables.has(origin.operator))
      tables.set(origin.operator, { operator: origin.operator, name: origin.table, columns: new Map() });
    const { columns } = tables.get(origin.operator);
    const column = columns.get(origin.column) || { key: keyOf(origin), name: origin.column, deciding: false };
    columns.set(origin.column, { ...column, deciding: column.deciding || deciding });
  };
  for (const column of sink.columns) for (const origin of column.from) add(origin, false);
  for (const origin of sink.decided_by) add(origin, true);
  return [...tables.values()]
    .sort((a, b) => a.operator - b.operator)
    .map((table) => ({ ...table, columns: [...table.columns.values()] }));
}

const curve = (from, to) => `M0 ${from}C${MIDDLE / 2} ${from} ${MIDDLE / 2} ${to} ${MIDDLE} ${to}`;

export const summary = (sink) => `${plural(sink.columns.length, 'column')} from ${plural(originsOf(sink).length, 'table')}`;
