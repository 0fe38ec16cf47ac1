// The newest checkpoints of a job, each with its phases as a bar: where the time goes is seen at a glance.

import { h } from '../lib/dom.js';
import { bytes, clock, duration, exact, NONE } from '../lib/format.js';
import { chip, failed, figures, loading, panel } from '../ui/parts.js';
import { table } from '../ui/table.js';

const PHASES = [
  ['alignment', 'alignment', (c) => c.alignment_ms],
  [
    'snapshot',
    'snapshot and upload',
    (c) => (c.snapshot_ms === null ? null : Math.max(0, c.snapshot_ms - (c.alignment_ms || 0))),
  ],
  ['manifest', 'manifest', (c) => c.manifest_ms],
  ['record', 'agreement', (c) => c.record_ms],
  ['publish', 'publishing', (c) => c.publish_ms],
];
const KINDS = { running: 'accent', complete: 'ok', published: 'ok', failed: 'bad' };

export class CheckpointsTab {
  constructor(view) {
    this.view = view;
    this.order = { by: 'epoch', down: true };
    this.held = null;
    this.checkpoints = view.poll(['checkpoints']);
    this.commits = view.poll(['commits']);
    this.polls = [this.checkpoints, this.commits];
  }

  draw() {
    const { data: newest, error } = this.checkpoints;
    if (!newest) return error ? failed(error, 'The checkpoints') : loading();
    const data = this.held || newest;
    const list = data.checkpoints;
    const ended = list
      .filter((one) => one.duration_ms !== null && one.state !== 'failed')
      .map((one) => one.duration_ms)
      .sort((a, b) => a - b);
    const share = (part) => (ended.length ? ended[Math.min(ended.length - 1, Math.floor(ended.length * part))] : null);
    const commits = this.commits.data;
    const longest = Math.max(1, ...list.map(total));
    return h(
      'div',
      { class: 'stack' },
      figures([
        { label: 'Completed', value: exact(data.totals.completed), note: 'since this coordinator leads' },
        {
          label: 'Failed',
          value: exact(data.totals.failed),
          kind: data.totals.failed ? 'warn' : '',
          note: data.totals.failed ? 'see the reasons below' : '',
        },
        { label: 'Overtaken', value: exact(data.totals.unaligned), note: 'unaligned' },
        { label: 'Median', value: duration(share(0.5)), note: `of the newest ${ended.length}` },
        { label: '95 of 100 within', value: duration(share(0.95)), note: 'barrier to record' },
        {
          label: 'Published',
          value: commits ? `epoch ${commits.published ?? NONE}` : NONE,
          note:
            commits && commits.unpublished.length
              ? `${commits.unpublished.length} not yet visible`
              : 'all output is visible',
          kind: commits && commits.unpublished.length > 2 ? 'warn' : '',
        },
      ]),
      panel(
        'History',
        { end: [legend(), this.holding(newest)] },
        table({
          label: 'Checkpoints',
          same: data.received,
          columns: columns(longest, data.now_ms),
          rows: list,
          key: (row) => row.epoch,
          order: this.order,
          empty: 'No checkpoint has begun since this coordinator drives the job.',
          onOrder: (order) => {
            this.order = order;
            this.view.app.redraw();
          },
          detail: (row) => (row.failure ? h('p', { class: 'small' }, `Why it failed: ${row.failure}`) : null),
        }),
      ),
    );
  }

  // New rows come each second; who reads one can keep the table still.
  holding(newest) {
    const held = this.held !== null;
    return h(
      'button',
      {
        type: 'button',
        class: 'plain',
        'aria-pressed': String(held),
        on: {
          click: () => {
            this.held = held ? null : newest;
            this.view.app.redraw();
          },
        },
      },
      held ? 'Go on' : 'Hold still',
    );
  }

  close() {
    for (const poll of this.polls) poll.close();
  }
}

const legend = () =>
  h(
    'div',
    { class: 'legend', 'aria-hidden': 'true' },
    PHASES.map(([id, label]) => h('span', { key: id }, h('i', { class: `swatch phase-${id}` }), label)),
  );

const total = (checkpoint) => PHASES.reduce((sum, [, , of]) => sum + (of(checkpoint) || 0), 0);

function phases(checkpoint, longest) {
  const known = PHASES.map(([id, label, of]) => [id, label, of(checkpoint)]).filter(
    ([, , ms]) => ms !== null && ms !== undefined,
  );
  const words = known.map(([, label, ms]) => `${label} ${duration(ms)}`).join(', ') || 'under way';
  return h(
    'span',
    { class: 'phases', role: 'img', 'aria-label': words, title: words },
    known.map(([id, , ms]) =>
      h('i', { key: id, class: `phase-${id}`, css: { width: `${((ms / longest) * 100).toFixed(2)}%` } }),
    ),
  );
}

// What the slowest subtask did until its part was stored; none of it is known of a subtask of an earlier build.
const PART = [
  ['aligned', 'alignment', (part) => part.alignment_ms],
  ['captured', 'capture', (part) => part.capture_ms],
  ['waited', 'waiting', (part) => part.wait_ms],
  ['uploaded', 'upload', (part) => part.upload_ms],
];

const timed = (part) => PART.map(([done, phase, of]) => [done, phase, of(part)]).filter(([, , ms]) => ms > 0);

function spent(part) {
  const words = timed(part).map(([done, , ms]) => `${done} ${duration(ms)}`);
  if (part.uploaded_bytes > 0) words.push(`${bytes(part.uploaded_bytes)} of state`);
  const all = `${part.name}, subtask ${part.subtask}: ${duration(part.ms)}`;
  return words.length ? `${all}; ${words.join(', ')}` : all;
}

// The phase that took most of it, if any took a millisecond.
function mostly(part) {
  const [first] = timed(part).sort(([, , a], [, , b]) => b - a);
  return first && first[1];
}

function columns(longest, now) {
  const ms = (id, label, of, width = 6) => ({ id, label, width, number: true, sort: of, cell: (row) => duration(of(row)) });
  return [
    { id: 'epoch', label: 'Epoch', width: 5, number: true, sort: (row) => row.epoch, cell: (row) => row.epoch },
    {
      id: 'state',
      label: 'State',
      width: 7.5,
      sort: (row) => row.state,
      cell: (row) => chip(row.state, KINDS[row.state] || 'idle'),
    },
    {
      id: 'began',
      label: 'Began',
      width: 5.5,
      number: true,
      cell: (row) => clock(row.started_at_ms, now).slice(-8),
      sort: (row) => row.started_at_ms,
    },
    { id: 'phases', label: 'Phases', least: 7.5, cell: (row) => phases(row, longest) },
    ms('duration', 'Complete', (row) => row.duration_ms),
    ms('alignment', 'Alignment', (row) => row.alignment_ms),
    ms('snapshot', 'Snapshot', (row) => row.snapshot_ms),
    ms('publish', 'Publishing', (row) => row.publish_ms),
    { id: 'bytes', label: 'Size', width: 5.6, number: true, sort: (row) => row.bytes, cell: (row) => bytes(row.bytes) },
    {
      id: 'flight',
      label: 'In flight',
      width: 5.6,
      number: true,
      hint: 'Rows that the barrier has overtaken',
      sort: (row) => row.in_flight_bytes,
      cell: (row) => bytes(row.in_flight_bytes),
    },
    {
      id: 'subtasks',
      label: 'Subtasks',
      width: 5.6,
      number: true,
      cell: (row) => `${row.acknowledged ?? NONE}/${row.subtasks ?? NONE}`,
    },
    {
      id: 'slowest',
      label: 'Slowest subtask',
      width: 11.5,
      cell: (row) =>
        row.slowest
          ? h(
              'span',
              { title: spent(row.slowest) },
              `${row.slowest.name} #${row.slowest.subtask}`,
            )
          : NONE,
    },
    {
      id: 'mostly',
      label: 'Mostly in',
      width: 6.3,
      hint: 'What the slowest subtask did longest',
      cell: (row) => (row.slowest && mostly(row.slowest)) || NONE,
    },
  ];
}
