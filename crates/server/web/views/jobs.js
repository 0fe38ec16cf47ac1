// All jobs, those first that need somebody.

import { h } from '../lib/dom.js';
import { count, rate, bytes, behind, duration, exact, inOrder, plural, NONE, eventTime } from '../lib/format.js';
import { get, path } from '../lib/api.js';
import { Poll } from '../lib/poll.js';
import { href, setQuery } from '../lib/router.js';
import { clockOf, received } from '../lib/clock.js';
import { note, series } from '../lib/record.js';
import { matcher, table } from '../ui/table.js';
import { spark } from '../ui/chart.js';
import { figures, load, loading, failed, stateChip, rankOfState, lagOf } from '../ui/parts.js';

const EVERY_MS = 2000;
const SPARK_MS = 120_000;
// A running job without a checkpoint for so long is shown among those that need attention.
const CHECKPOINT_AGE_MS_MAX = 60_000;

const GROUPS = [
  ['all', 'All', () => true],
  ['attention', 'Needs attention', (job) => needsAttention(job)],
  ['running', 'Running', (job) => job.state === 'running'],
  ['ended', 'Ended', (job) => job.end !== null],
];

function needsAttention(job) {
  const late = job.state === 'running' && job.checkpoint && job.checkpoint.age_ms > CHECKPOINT_AGE_MS_MAX;
  return ['failed', 'restarting', 'waiting'].includes(job.state) || Boolean(late);
}

export class JobsView {
  constructor(app, { query }) {
    this.app = app;
    this.title = 'Jobs';
    this.nav = 'jobs';
    this.read(query);
    this.jobs = new Poll({
      load: (signal) => get(path('jobs'), signal).then(received),
      every: EVERY_MS,
      changed: () => this.noted(),
    });
    this.polls = [this.jobs];
  }

  read(query) {
    this.text = query.get('q') || '';
    this.group = query.get('show') || 'all';
    this.order = { by: query.get('by') || 'state', down: query.get('down') === '1' };
  }

  moved({ query }) {
    this.read(query);
    return true;
  }

  noted() {
    const data = this.jobs.data;
    if (data && !this.jobs.error) for (const job of data.jobs) note(job.job, data.now_ms, pointOf(job));
    this.app.redraw();
  }

  set(changes) {
    Object.assign(this, changes);
    setQuery({
      q: this.text,
      show: this.group === 'all' ? '' : this.group,
      by: this.order.by === 'state' && !this.order.down ? '' : this.order.by,
      down: this.order.down ? '1' : '',
    });
    this.app.redraw();
  }

  draw() {
    const data = this.jobs.data;
    const head = h(
      'div',
      { class: 'head' },
      h('h1', null, 'Jobs'),
      h('div', { class: 'actions' }, h('a', { class: 'button', href: href(['sql']) }, 'Submit SQL')),
    );
    if (!data) return [head, this.jobs.error ? failed(this.jobs.error, 'The jobs') : loading(12)];
    const now = clockOf(data);
    const all = [...data.jobs].sort((a, b) => inOrder(a.job, b.job));
    const matches = matcher(this.text);
    const matching = all.filter((job) => matches(`${job.job} ${job.state}`));
    const [, , test] = GROUPS.find(([id]) => id === this.group) || GROUPS[0];
    return [
      head,
      this.summary(all, now, data),
      this.filters(matching),
      h('section', { class: 'panel live' }, this.list(matching.filter(test), all.length, now, data)),
    ];
  }

  summary(all, now, data) {
    const running = all.filter((job) => job.state === 'running');
    const attention = all.filter(needsAttention).length;
    const sum = (figure) => running.reduce((total, job) => total + (job[figure] || 0), 0);
    const oldest = running
      .filter((job) => job.checkpoint.completed_at_ms)
      .sort((a, b) => a.checkpoint.completed_at_ms - b.checkpoint.completed_at_ms)[0];
    return h(
      'div',
      { key: 'summary', css: { 'margin-bottom': 'var(--space-3)' } },
      figures(
        [
          { label: 'Running', value: exact(running.length), note: `of ${plural(all.length, 'job')}` },
          {
            label: 'Need attention',
            value: exact(attention),
            kind: attention ? 'warn' : '',
            note: attention ? 'failed, restarting, waiting or late' : 'none',
          },
          { label: 'Rows in', value: rate(sum('rows_in_per_second')), note: 'all running jobs' },
          { label: 'Rows out', value: rate(sum('rows_out_per_second')), note: 'all running jobs' },
          {
            label: 'Oldest checkpoint',
            value: oldest ? duration(Math.max(0, now - oldest.checkpoint.completed_at_ms)) : NONE,
            note: oldest ? oldest.job : 'no job runs',
          },
          {
            label: 'Restarts',
            value: exact(all.reduce((total, job) => total + job.restarts, 0)),
            note: 'of all listed jobs',
          },
          data.leader ? { label: 'Leader', value: data.leader, note: 'coordinator' } : null,
        ].filter(Boolean),
      ),
    );
  }

  filters(matching) {
    return h(
      'div',
      { class: 'filters', key: 'filters', role: 'search' },
      h('input', {
        type: 'search',
        id: 'filter',
        placeholder: 'Filter by name or state',
        'aria-label': 'Filter jobs by name or state',
        value: this.text,
        on: { input: (event) => this.set({ text: event.target.value }) },
      }),
      h(
        'div',
        { class: 'segments', role: 'group', 'aria-label': 'Which jobs' },
        GROUPS.map(([id, label, test]) =>
          h(
            'button',
            {
              type: 'button',
              key: id,
              'aria-pressed': String(this.group === id),
              on: { click: () => this.set({ group: id }) },
            },
            label,
            h('span', { class: 'count' }, matching.filter(test).length),
          ),
        ),
      ),
    );
  }

  list(rows, total, now, data) {
    const empty =
      total === 0
        ? [
            'There are no jobs yet. ',
            h('a', { href: href(['sql']) }, 'Submit one'),
            ', or run ',
            h('code', null, 'mainstem submit FILE.sql'),
            '.',
          ]
        : 'No job matches the filter.';
    return table({
      label: 'Jobs',
      columns: columns(now, data),
      rows,
      key: (job) => job.job,
      order: this.order,
      onOrder: (order) => this.set({ order }),
      cards: true,
      empty,
    });
  }

  close() {
    this.jobs.close();
  }
}

// What the time lines need of a job.
export function pointOf(job) {
  const lag = lagOf(job.lag);
  return {
    rows_in: job.rows_in_per_second,
    rows_out: job.rows_out_per_second,
    lag: lag && lag.total,
    watermark: job.watermark_ms,
    state: job.checkpoint && job.checkpoint.bytes,
    p50: slowest(job, 'p50_ms'),
    p99: slowest(job, 'p99_ms'),
    visible: slowest(job, 'visible_p99_ms'),
    busy: job.busy,
    blocked: job.backpressured,
  };
}

// A latency at the sink where it is largest; null where no marker has come.
export const slowest = (job, figure) =>
  (job.latency || []).reduce((most, sink) => (sink[figure] === null ? most : Math.max(most ?? 0, sink[figure])), null);

function columns(now, data) {
  const delay = (job) => (job.watermark_ms === null || job.end ? null : now - job.watermark_ms);
  const age = (job) =>
    job.end || !job.checkpoint.completed_at_ms ? null : Math.max(0, now - job.checkpoint.completed_at_ms);
  const lag = (job) => lagOf(job.lag);
  return [
    {
      id: 'job',
      label: 'Job',
      least: 13,
      place: 'lead',
      sort: (job) => job.job,
      cell: (job) => h('a', { class: 'name', href: href(['jobs', job.job]), title: job.job }, job.job),
    },
    {
      id: 'state',
      label: 'State',
      width: 7.6,
      place: 'side',
      sort: (job) => rankOfState(job.state),
      cell: (job) => stateChip(job.state),
    },
    {
      id: 'in',
      label: 'Rows in',
      width: 6.2,
      number: true,
      sort: (job) => job.rows_in_per_second,
      cell: (job) => rate(job.rows_in_per_second),
    },
    {
      id: 'trend',
      label: '',
      width: 6,
      place: 'drop',
      cell: (job) => spark(series(job.job, 'rows_in', data.now_ms - SPARK_MS), data.now_ms - SPARK_MS, data.now_ms),
    },
    {
      id: 'out',
      label: 'Rows out',
      width: 6.2,
      number: true,
      sort: (job) => job.rows_out_per_second,
      cell: (job) => rate(job.rows_out_per_second),
    },
    {
      id: 'lag',
      label: 'Lag',
      width: 6,
      number: true,
      hint: 'What its sources could read and have not',
      sort: (job) => lag(job) && lag(job).total,
      cell: (job) => lagText(lag(job)),
    },
    {
      id: 'delay',
      label: 'Watermark',
      width: 7.2,
      number: true,
      hint: 'How far the watermark is behind the clock',
      sort: delay,
      cell: (job) =>
        job.watermark_at_end
          ? 'at the end'
          : h(
              'span',
              { title: `${eventTime(job.watermark_ms)} UTC` },
              behind(job.end ? null : job.watermark_ms, now),
            ),
    },
    {
      id: 'checkpoint',
      label: 'Checkpoint',
      width: 7,
      number: true,
      hint: 'Age of the newest complete checkpoint',
      sort: age,
      cell: (job) =>
        h(
          'span',
          { title: `epoch ${job.checkpoint.complete ?? NONE}, took ${duration(job.checkpoint.duration_ms)}` },
          duration(age(job)),
        ),
    },
    {
      id: 'bytes',
      label: 'State',
      width: 5.8,
      number: true,
      hint: 'Size of the newest checkpoint',
      sort: (job) => job.checkpoint.bytes,
      cell: (job) => bytes(job.checkpoint.bytes),
    },
    {
      id: 'load',
      label: 'Load',
      width: 6.5,
      hint: 'The busiest subtask: busy, backpressured, idle',
      sort: (job) => job.busy,
      cell: (job) => load(job.busy, job.backpressured),
    },
    {
      id: 'restarts',
      label: 'Restarts',
      width: 5.2,
      number: true,
      sort: (job) => job.restarts,
      cell: (job) => exact(job.restarts),
    },
    {
      id: 'parallelism',
      label: 'Slots',
      width: 4.4,
      number: true,
      place: 'drop',
      hint: 'Parallelism',
      sort: (job) => job.parallelism,
      cell: (job) => exact(job.parallelism),
    },
  ];
}

function lagText(lag) {
  if (!lag) return NONE;
  return h('span', { title: `${exact(lag.total)} ${lag.unit}` }, lag.unit === 'bytes' ? bytes(lag.total) : count(lag.total));
}
