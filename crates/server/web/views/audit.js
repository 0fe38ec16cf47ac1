// Who has decided what, when and why.

import { h } from '../lib/dom.js';
import { get } from '../lib/api.js';
import { Poll } from '../lib/poll.js';
import { href, setQuery } from '../lib/router.js';
import { received } from '../lib/clock.js';
import { clock, plural, NONE } from '../lib/format.js';
import { failed, loading, panel } from '../ui/parts.js';
import { matcher, table } from '../ui/table.js';

const EVERY_MS = 5000;
const LIMIT = 300;
// Typing is over when nothing came for so long.
const PAUSE_MS = 350;

export class AuditView {
  constructor(app, { query }) {
    this.app = app;
    this.title = 'Audit trail';
    this.nav = 'audit';
    this.read(query);
    this.records = new Poll({
      load: (signal) => get(this.address(), signal).then(received),
      every: EVERY_MS,
      changed: () => app.redraw(),
    });
    this.polls = [this.records];
  }

  read(query) {
    this.job = query.get('job') || '';
    this.text = query.get('q') || '';
    this.routine = query.get('routine') === 'true';
  }

  moved({ query }) {
    this.read(query);
    this.records.now();
    return true;
  }

  address() {
    const query = new URLSearchParams({ limit: LIMIT, routine: this.routine });
    if (this.job) query.set('job', this.job);
    return `/api/v1/audit?${query}`;
  }

  set(changes) {
    Object.assign(this, changes);
    setQuery({ job: this.job, q: this.text, routine: this.routine ? 'true' : '' });
    if (!('text' in changes)) {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.records.now(), PAUSE_MS);
    }
    this.app.redraw();
  }

  draw() {
    const { data, error } = this.records;
    return [
      h(
        'div',
        { class: 'head' },
        h('h1', null, 'Audit trail'),
        data && data.head
          ? h(
              'span',
              { class: 'muted small', title: `hash of the newest record: ${data.head.hash}` },
              `chain of ${plural(data.head.seq, 'record')}, the last one's hash is ${data.head.hash.slice(0, 12)}…`,
            )
          : null,
      ),
      h(
        'div',
        { class: 'filters', role: 'search', key: 'filters' },
        h('input', {
          type: 'search',
          id: 'filter',
          placeholder: 'Filter by what, who or why',
          'aria-label': 'Filter records by what, who or why',
          value: this.text,
          on: { input: (event) => this.set({ text: event.target.value }) },
        }),
        h('input', {
          type: 'text',
          class: 'job-filter',
          placeholder: 'Job',
          'aria-label': 'Only records of this job',
          spellcheck: 'false',
          value: this.job,
          on: { input: (event) => this.set({ job: event.target.value.trim() }) },
        }),
        h(
          'label',
          { class: 'check' },
          h('input', {
            type: 'checkbox',
            checked: this.routine,
            on: { change: (event) => this.set({ routine: event.target.checked }) },
          }),
          'with checkpoints',
        ),
      ),
      data ? h('div', { class: 'live' }, this.list(data)) : error ? failed(error, 'The audit trail') : loading(10),
    ];
  }

  list(data) {
    const matches = matcher(this.text);
    const rows = data.records
      .filter((record) => matches(`${record.what} ${record.by} ${record.job} ${record.reason} ${factsOf(record)}`))
      .reverse();
    const capped = data.records.length >= LIMIT;
    return panel(
      'Records',
      {
        end: h(
          'span',
          { class: 'muted small' },
          `${plural(rows.length, 'record')}, newest first${capped ? `; the newest ${LIMIT} only` : ''}`,
        ),
      },
      table({
        label: 'Audit records',
        rows,
        same: `${data.received} ${this.text}`,
        key: (row) => row.seq,
        cards: true,
        empty: 'No record matches.',
        columns: [
          { id: 'seq', label: 'No.', width: 5, number: true, place: 'drop', cell: (row) => row.seq },
          {
            id: 'at',
            label: 'When',
            width: 10.5,
            place: 'side',
            cell: (row) => h('time', { datetime: new Date(row.at_ms).toISOString() }, clock(row.at_ms, data.now_ms)),
          },
          { id: 'what', label: 'What', width: 11, place: 'lead', cell: (row) => h('b', null, row.what) },
          {
            id: 'job',
            label: 'Job',
            width: 11,
            cell: (row) => (row.job ? h('a', { href: href(['jobs', row.job]), title: row.job }, row.job) : NONE),
          },
          { id: 'by', label: 'By', width: 11, place: 'wide', cell: (row) => h('span', { title: row.by }, row.by) },
          {
            id: 'why',
            label: 'Facts and reason',
            least: 16,
            wrap: true,
            place: 'whole',
            cell: (row) => [
              h('span', { class: 'muted' }, factsOf(row)),
              row.reason ? [factsOf(row) ? ' · ' : '', row.reason] : null,
            ],
          },
        ],
      }),
    );
  }

  close() {
    clearTimeout(this.typing);
    this.records.close();
  }
}

const factsOf = (record) =>
  Object.entries(record.facts || {})
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
