// Why attempts of a job have failed, the root cause first, and which records it could not use.

import { h } from '../lib/dom.js';
import { ago, clock, exact } from '../lib/format.js';
import { clockOf } from '../lib/clock.js';
import { chip, failed, loading, panel } from '../ui/parts.js';
import { table } from '../ui/table.js';
import { workerName } from './job-overview.js';

export class ExceptionsTab {
  constructor(view) {
    this.view = view;
    this.exceptions = view.poll(['exceptions']);
    this.records = view.poll(['bad-records']);
    this.polls = [this.exceptions, this.records];
  }

  draw() {
    return h('div', { class: 'stack' }, this.list(), this.badRecords());
  }

  list() {
    const { data, error } = this.exceptions;
    if (!data) return error ? failed(error, 'The exceptions') : loading(4);
    const now = clockOf(data);
    if (data.exceptions.length === 0)
      return panel(
        'Exceptions',
        {},
        h(
          'p',
          { class: 'empty' },
          data.restarts
            ? 'None since this coordinator drives the job.'
            : 'None. No attempt has failed since this coordinator drives the job.',
        ),
      );
    return panel(
      'Exceptions',
      { end: h('span', { class: 'muted small' }, 'newest first') },
      h(
        'ol',
        { class: 'exceptions' },
        data.exceptions.map((one) => exception(one, now)),
      ),
    );
  }

  badRecords() {
    const { data, error } = this.records;
    if (!data) return error ? failed(error, 'The wrong records') : null;
    if (data.dropped + data.dead_letters + data.rejected_by_sinks === 0)
      return panel(
        'Wrong records',
        {},
        h('p', { class: 'empty' }, 'None. Every record could be decoded and kept what its table declares.'),
      );
    return panel(
      'Wrong records',
      {
        end: data.rejected_by_sinks
          ? h('span', { class: 'muted small' }, `${exact(data.rejected_by_sinks)} refused by sinks`)
          : null,
      },
      table({
        label: 'Wrong records by operator',
        rows: data.operators,
        key: (row) => row.operator,
        empty: 'No operator has met one.',
        columns: [
          { id: 'name', label: 'Operator', least: 12, cell: (row) => row.name },
          { id: 'table', label: 'Table', width: 14, cell: (row) => row.table },
          { id: 'dropped', label: 'Dropped', width: 8, number: true, cell: (row) => exact(row.dropped) },
          { id: 'dead', label: 'Dead letters', width: 8, number: true, cell: (row) => exact(row.dead_letters) },
        ],
      }),
    );
  }

  close() {
    for (const poll of this.polls) poll.close();
  }
}

function exception(one, now) {
  const [cause, ...more] = String(one.message).split('\n');
  const place = [
    one.operator_name,
    one.subtask === null ? null : `subtask ${one.subtask}`,
    one.worker ? `worker ${workerName(one.worker)}` : null,
  ]
    .filter(Boolean)
    .join(', ');
  return h(
    'li',
    { key: `${one.at_ms} ${one.generation} ${one.operator} ${one.subtask}` },
    h(
      'div',
      { class: 'row small' },
      h('time', { datetime: new Date(one.at_ms).toISOString() }, clock(one.at_ms, now)),
      h('span', { class: 'muted' }, ago(now - one.at_ms)),
      h('span', { class: 'muted' }, `attempt ${one.generation}`),
      one.fatal ? chip('ended the job', 'bad') : chip('restarted', 'warn'),
      one.retryable ? null : chip('not to be repeated', 'idle'),
    ),
    h('p', { class: 'cause' }, cause),
    more.length ? h('pre', { class: 'muted' }, more.join('\n')) : null,
    place ? h('p', { class: 'small muted' }, place) : null,
  );
}
