// Every subtask of a job, to find the one that is slow, skewed or behind.

import { h } from '../lib/dom.js';
import { count, exact, percent, rate, plural } from '../lib/format.js';
import { failed, load, loading, loadLegend, watermarkCell } from '../ui/parts.js';
import { matcher, table } from '../ui/table.js';
import { workerName } from './job-overview.js';

export class SubtasksTab {
  constructor(view) {
    this.view = view;
    this.text = '';
    this.order = { by: 'operator', down: false };
    this.graph = view.poll(['graph']);
    this.polls = [this.graph];
  }

  draw() {
    const { data, error } = this.graph;
    if (!data) return error ? failed(error, 'The subtasks') : loading();
    const all = data.operators.flatMap((operator) =>
      operator.subtasks.map((subtask) => ({ ...subtask, operator: operator.name, id: operator.id, task: operator.task })),
    );
    const matches = matcher(this.text);
    const rows = all.filter((row) => matches(`${row.operator} ${workerName(row.worker)} #${row.index}`));
    const redraw = () => this.view.app.redraw();
    return h(
      'div',
      null,
      h(
        'div',
        { class: 'filters', role: 'search' },
        h('input', {
          type: 'search',
          id: 'filter',
          placeholder: 'Filter by operator or worker',
          'aria-label': 'Filter subtasks by operator or worker',
          value: this.text,
          on: {
            input: (event) => {
              this.text = event.target.value;
              redraw();
            },
          },
        }),
        h(
          'span',
          { class: 'muted small' },
          rows.length === all.length
            ? plural(all.length, 'subtask')
            : `${exact(rows.length)} of ${plural(all.length, 'subtask')}`,
        ),
        loadLegend(),
      ),
      h(
        'section',
        { class: 'panel' },
        table({
          label: 'Subtasks',
          columns: columns(data.now_ms),
          rows,
          same: `${data.received} ${this.text}`,
          key: (row) => `${row.id} ${row.index}`,
          order: this.order,
          empty: all.length ? 'No subtask matches the filter.' : 'No subtask runs.',
          onOrder: (order) => {
            this.order = order;
            redraw();
          },
        }),
      ),
    );
  }

  close() {
    this.graph.close();
  }
}

function columns(now) {
  return [
    {
      id: 'operator',
      label: 'Operator',
      least: 13,
      sort: (row) => row.id * 100_000 + row.index,
      cell: (row) => h('span', { title: row.operator }, row.operator),
    },
    { id: 'index', label: '#', width: 3.6, number: true, sort: (row) => row.index, cell: (row) => row.index },
    {
      id: 'worker',
      label: 'Worker',
      width: 7,
      sort: (row) => row.worker,
      cell: (row) => h('span', { title: row.worker }, workerName(row.worker)),
    },
    {
      id: 'in',
      label: 'Rows in',
      width: 6.5,
      number: true,
      sort: (row) => row.rows_in_per_second,
      cell: (row) => rate(row.rows_in_per_second),
    },
    {
      id: 'out',
      label: 'Rows out',
      width: 6.5,
      number: true,
      sort: (row) => row.rows_out_per_second,
      cell: (row) => rate(row.rows_out_per_second),
    },
    {
      id: 'total',
      label: 'In all, in',
      width: 6.2,
      number: true,
      sort: (row) => row.rows_in,
      cell: (row) => count(row.rows_in),
    },
    {
      id: 'total-out',
      label: 'In all, out',
      width: 6.4,
      number: true,
      sort: (row) => row.rows_out,
      cell: (row) => count(row.rows_out),
    },
    { id: 'load', label: 'Load', width: 7, cell: (row) => load(row.busy, row.backpressured) },
    { id: 'busy', label: 'Busy', width: 4.4, number: true, sort: (row) => row.busy, cell: (row) => percent(row.busy) },
    {
      id: 'blocked',
      label: 'Backpressured',
      width: 8,
      number: true,
      sort: (row) => row.backpressured,
      cell: (row) => percent(row.backpressured),
    },
    {
      id: 'watermark',
      label: 'Watermark',
      width: 7.2,
      number: true,
      sort: (row) => (row.watermark_ms === null ? null : now - row.watermark_ms),
      cell: (row) => watermarkCell(row, now),
    },
  ];
}
