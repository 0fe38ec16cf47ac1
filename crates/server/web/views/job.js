// One job: its state and figures above, and tabs for everything else about it. Only what the open tab needs is asked for.

import { h } from '../lib/dom.js';
import { get, path, follow } from '../lib/api.js';
import { Poll } from '../lib/poll.js';
import { go, href } from '../lib/router.js';
import { clockOf, received } from '../lib/clock.js';
import { note, merge } from '../lib/record.js';
import { count, rate, bytes, duration, exact, ago, behind, percent, plural, utcShort, NONE } from '../lib/format.js';
import { figures, notice, loading, failed, stateChip, lagOf } from '../ui/parts.js';
import { jobActions } from './job-actions.js';
import { pointOf, slowest } from './jobs.js';
import { OverviewTab } from './job-overview.js';
import { SubtasksTab } from './job-subtasks.js';
import { CheckpointsTab } from './job-checkpoints.js';
import { ExceptionsTab } from './job-exceptions.js';
import { EventsTab } from './job-events.js';
import { LineageTab } from './job-lineage.js';
import { ConfigurationTab } from './job-configuration.js';

const EVERY_MS = 2000;
const EVENTS_MAX = 300;

const TABS = [
  ['overview', 'Overview', OverviewTab],
  ['subtasks', 'Subtasks', SubtasksTab],
  ['checkpoints', 'Checkpoints', CheckpointsTab],
  ['exceptions', 'Exceptions', ExceptionsTab],
  ['lineage', 'Lineage', LineageTab],
  ['events', 'Events', EventsTab],
  ['configuration', 'Configuration', ConfigurationTab],
];

export class JobView {
  constructor(app, address) {
    this.app = app;
    this.nav = 'jobs';
    this.id = address.path[1];
    this.key = `job ${this.id}`;
    this.title = this.id;
    this.events = [];
    this.closing = new AbortController();
    this.job = this.poll([], () => this.noted());
    this.recall();
    // A hidden page asks for nothing; what it has missed comes from the server's time line.
    document.addEventListener(
      'visibilitychange',
      () => {
        if (!document.hidden) this.recall();
      },
      { signal: this.closing.signal },
    );
    this.openTab(address.path[2]);
    follow(path('jobs', this.id, 'events'), this.closing.signal, (event, data) => this.happened(event, data));
  }

  // Asks for a route below the job for as long as this view or tab is open.
  poll(parts, changed = () => this.app.redraw(), every = EVERY_MS) {
    return new Poll({ load: (signal) => get(path('jobs', this.id, ...parts), signal).then(received), every, changed });
  }

  get polls() {
    return [this.job, ...(this.tab ? this.tab.polls : [])];
  }

  moved(address) {
    if (address.path[1] !== this.id) return false;
    if ((address.path[2] || 'overview') !== this.tabId) this.openTab(address.path[2]);
    return true;
  }

  openTab(id) {
    if (this.tab) this.tab.close();
    const [known, label, Tab] = TABS.find(([one]) => one === id) || TABS[0];
    this.tabId = known;
    this.title = `${this.id} · ${label}`;
    this.tab = new Tab(this);
    // The next frame draws it, the one behind that finds it drawn.
    requestAnimationFrame(() => requestAnimationFrame(() => showTab(document.querySelector('.tabs [aria-current]'))));
  }

  noted() {
    const { data, error } = this.job;
    if (data && !error) note(this.id, data.now_ms, pointOf(data.job));
    this.app.redraw();
  }

  // Without a time line of the server, that of this page begins now.
  async recall() {
    const answer = await get(path('jobs', this.id, 'timeline'), this.closing.signal).catch(() => null);
    if (!answer || this.closing.signal.aborted) return;
    merge(
      this.id,
      answer.points.map((point) => ({
        at: point.at_ms,
        rows_in: point.rows_in_per_second,
        rows_out: point.rows_out_per_second,
        lag: point.lag,
        watermark: point.watermark_ms,
        state: point.state_bytes,
        p50: point.latency_p50_ms,
        p99: point.latency_p99_ms,
        visible: point.visible_latency_p99_ms,
        busy: point.busy,
        blocked: point.backpressured,
      })),
    );
    this.app.redraw();
  }

  // Events come at once; figures are then asked for without waiting for their turn. Checkpoints alone change nothing else.
  happened(kind, data) {
    this.events.unshift(data);
    this.events.length = Math.min(this.events.length, EVENTS_MAX);
    if (!['checkpoint', 'published'].includes(kind)) for (const poll of this.polls) poll.now();
    this.app.redraw();
  }

  entered() {
    this.close();
    this.closing = new AbortController();
    this.app.view = new JobView(this.app, { path: ['jobs', this.id, this.tabId] });
    this.app.redraw();
  }

  pressed(event) {
    const step = { '[': -1, ']': 1 }[event.key];
    if (step) {
      const at = TABS.findIndex(([id]) => id === this.tabId);
      this.go(TABS[(at + step + TABS.length) % TABS.length][0]);
      return true;
    }
    return this.tab.pressed ? this.tab.pressed(event) : false;
  }

  go(tab) {
    go(['jobs', this.id, ...(tab === 'overview' ? [] : [tab])]);
  }

  draw() {
    const { data, error } = this.job;
    const title = h(
      'h1',
      null,
      h('a', { class: 'crumb', href: href(['jobs']) }, 'Jobs'),
      h('span', { class: 'crumb', 'aria-hidden': 'true' }, ' / '),
      this.id,
    );
    if (!data) return [h('div', { class: 'head' }, title), error ? failed(error, `The job ${this.id}`) : loading(10)];
    const { job } = data;
    const now = clockOf(data);
    return [
      h(
        'div',
        { class: 'head', key: 'head' },
        title,
        stateChip(job.state),
        h(
          'span',
          { class: 'muted small' },
          `${plural(job.parallelism, 'subtask')} a task · attempt ${job.generation} · submitted ${ago(now - job.submitted_at_ms)}${job.restored_from ? ` from the savepoint ${job.restored_from}` : ''}`,
        ),
        h(
          'div',
          { class: 'actions' },
          jobActions(this.app, job, () => this.job.now()),
        ),
      ),
      h('div', { class: 'stack', key: 'top' }, this.notices(job), figures(figuresOf(job, now))),
      this.tabs(job),
      h('div', { class: 'live', key: this.tabId }, this.tab.draw(job, now)),
    ];
  }

  tabs(job) {
    const counts = { exceptions: job.restarts || null };
    return h(
      'nav',
      { class: 'tabs', 'aria-label': `About ${this.id}`, key: 'tabs', css: { 'margin-top': 'var(--space-3)' } },
      TABS.map(([id, label]) =>
        h(
          'a',
          {
            key: id,
            href: href(['jobs', this.id, ...(id === 'overview' ? [] : [id])]),
            'aria-current': this.tabId === id ? 'page' : undefined,
            ref: (el) => queueMicrotask(() => showTab(el)),
          },
          label,
          counts[id] ? h('span', { class: 'count' }, counts[id]) : null,
        ),
      ),
      this.app.oneProcess ? null : h('a', { key: 'audit', href: href(['audit'], { job: this.id }) }, 'Audit trail'),
    );
  }

  notices(job) {
    const saving = job.savepoint;
    const last = (job.savepoints || []).at(-1);
    return [
      job.waiting ? notice('warn', 'Waiting.', job.waiting) : null,
      job.end && job.end.outcome === 'failed' ? notice('bad', 'Failed.', job.end.reason || '') : null,
      !job.end && job.last_failure
        ? notice(
            'warn',
            'Last failure.',
            job.last_failure,
            h('a', { href: href(['jobs', this.id, 'exceptions']) }, 'Exceptions'),
          )
        : null,
      saving
        ? notice(
            'ok',
            'A savepoint is being taken',
            `to ${saving.directory}: ${saving.copied_files ?? 0} of ${saving.files ?? '?'} files.${saving.stop ? ' The job stops then.' : ''}`,
          )
        : null,
      last && !saving
        ? notice(
            last.outcome === 'taken' ? 'ok' : 'bad',
            last.outcome === 'taken' ? 'Last savepoint:' : 'The last savepoint failed.',
            last.outcome === 'taken' ? `${last.path} (epoch ${last.epoch})` : last.reason || '',
          )
        : null,
    ];
  }

  close() {
    this.closing.abort();
    this.job.close();
    this.tab.close();
  }
}

function figuresOf(job, now) {
  const checkpoint = job.checkpoint || {};
  const age = checkpoint.completed_at_ms ? Math.max(0, now - checkpoint.completed_at_ms) : null;
  const lag = lagOf(job.lag);
  const wrong = job.dropped_records + job.dead_letters;
  return [
    {
      label: 'Rows in',
      value: rate(job.rows_in_per_second),
      note: `${count(job.rows_in)} in all`,
      title: `${exact(job.rows_in)} rows, ${bytes(job.bytes_read)} read`,
    },
    {
      label: 'Rows out',
      value: rate(job.rows_out_per_second),
      note: `${count(job.rows_out)} in all`,
      title: `${exact(job.rows_out)} rows`,
    },
    {
      label: 'Lag',
      value: lag ? (lag.unit === 'bytes' ? bytes(lag.total) : count(lag.total)) : NONE,
      note: lag ? lag.unit : 'not told',
      title: lag ? `${exact(lag.total)} ${lag.unit}` : undefined,
    },
    {
      label: 'Watermark',
      value: job.watermark_at_end ? 'at the end' : behind(job.watermark_ms, now),
      note: job.watermark_ms === null ? '' : utcShort(job.watermark_ms, now),
      title: 'Event time (UTC) up to which all rows have come, and how far that is behind the clock',
    },
    {
      label: 'Row latency',
      value: duration(slowest(job, 'p99_ms')),
      note: `p99 · p50 ${duration(slowest(job, 'p50_ms'))}`,
      title: latencyTitle(job),
    },
    {
      label: 'Checkpoint',
      value: job.end ? `epoch ${checkpoint.complete ?? NONE}` : ago(age),
      note: job.end ? 'newest' : `epoch ${checkpoint.complete ?? NONE} · ${duration(checkpoint.duration_ms)}`,
      kind: !job.end && age > 60_000 ? 'warn' : '',
      title: `newest complete: epoch ${checkpoint.complete ?? NONE}, which took ${duration(checkpoint.duration_ms)}; newest published: epoch ${checkpoint.published ?? NONE}; one every ${duration(checkpoint.interval_ms)}${checkpoint.interval_reason === null ? '' : `, chosen because ${checkpoint.interval_reason}`}`,
    },
    { label: 'State', value: bytes(checkpoint.bytes), note: 'newest checkpoint' },
    {
      label: 'Busiest subtask',
      value: percent(job.busy),
      note: `backpressured ${percent(job.backpressured)}`,
      kind: job.backpressured >= 0.5 ? 'warn' : '',
    },
    { label: 'Restarts', value: exact(job.restarts), note: `attempt ${job.generation}`, kind: job.restarts ? 'warn' : '' },
    {
      label: 'Left out',
      value: count(wrong + job.late_rows),
      note: `${count(job.late_rows)} late, ${count(wrong)} wrong`,
      kind: wrong ? 'warn' : '',
      title: `${exact(job.late_rows)} late rows, ${exact(job.dropped_records)} dropped records, ${exact(job.dead_letters)} dead letters, ${exact(job.unmatched_changes)} unmatched changes`,
    },
  ];
}

// By sink, with what it takes until the output can be seen.
function latencyTitle(job) {
  const sinks = (job.latency || []).map((sink) => {
    const visible = sink.visible_p99_ms === null ? '' : `, until visible p50 ${duration(sink.visible_p50_ms)}, p99 ${duration(sink.visible_p99_ms)}`;
    return `${sink.table}: p50 ${duration(sink.p50_ms)}, p99 ${duration(sink.p99_ms)}${visible}`;
  });
  return ['How long rows took in the last minute from when a source had read them until they came to a sink', ...sinks].join('\n');
}

// Where the tabs are wider than the screen, the open one is in sight.
function showTab(link) {
  if (!link || !link.hasAttribute('aria-current')) return;
  const bar = link.parentElement;
  bar.scrollLeft = link.offsetLeft - bar.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
}
