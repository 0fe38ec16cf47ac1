// The overview of a job: its dataflow with live figures, the details of a task, and time lines.

import { h } from '../lib/dom.js';
import { rate, bytes, duration, exact, percent, eventTime, count, plural, NONE } from '../lib/format.js';
import { of, series } from '../lib/record.js';
import { GraphView } from '../graph/view.js';
import { tasksOf } from '../graph/tasks.js';
import { chart, Cursor, roundUpMs } from '../ui/chart.js';
import { icon } from '../ui/icons.js';
import { table } from '../ui/table.js';
import { panel, unansweredPanel, load, loadLegend, facts, watermarkCell } from '../ui/parts.js';

const SPANS = [
  [2, '2 min'],
  [10, '10 min'],
  [30, '30 min'],
];
const GAP_MS = 9000;
const LEAST_MS = 60_000;

export class OverviewTab {
  constructor(view) {
    this.view = view;
    this.app = view.app;
    this.graph = view.poll(['graph']);
    this.checkpoints = view.poll(['checkpoints']);
    this.polls = [this.graph, this.checkpoints];
    this.drawing = new GraphView(() => this.app.redraw());
    this.cursor = new Cursor(() => this.app.redraw());
    this.minutes = 10;
  }

  draw(job, now) {
    return h('div', { class: 'stack' }, this.dataflow(now), this.timeLines(job));
  }

  dataflow(now) {
    const { data, error } = this.graph;
    if (!data) return unansweredPanel('Dataflow', error, 'The dataflow', 6);
    const graph = this.drawing.draw(data, now);
    const { tasks } = tasksOf(data);
    const task = tasks.find((one) => one.id === this.drawing.picked);
    return panel('Dataflow', { end: [loadLegend(), this.drawing.controls()] }, graph, task ? this.details(task, now) : null);
  }

  details(task, now) {
    const close = () => {
      this.drawing.pick(task.id);
      const card = document.getElementById(`task-${task.id}`);
      if (card) card.focus();
    };
    const [{ subtasks }] = task.operators;
    return h(
      'aside',
      {
        class: 'details',
        key: `details ${task.id}`,
        'aria-label': `Task ${task.name}`,
        on: {
          keydown: (event) => {
            if (event.key === 'Escape') close();
          },
        },
      },
      h(
        'header',
        null,
        h('h2', null, task.name),
        h(
          'span',
          { class: 'muted small nowrap' },
          `busy ${percent(task.busy)}, backpressured ${percent(task.blocked)}, idle ${percent(task.idle)}`,
        ),
        h('span', { class: 'grow' }),
        h(
          'button',
          { type: 'button', class: 'plain icon', 'aria-label': 'Close details', on: { click: close } },
          icon('close'),
        ),
      ),
      h(
        'div',
        { class: 'sides' },
        h(
          'div',
          { class: 'operators' },
          task.operators.map((operator) => operatorFacts(operator)),
        ),
        table({
          label: `Subtasks of task ${task.id}`,
          rows: subtasks || [],
          key: (row) => row.index,
          empty: 'No subtask runs.',
          columns: [
            { id: 'index', label: 'Subtask', width: 5, cell: (row) => row.index },
            {
              id: 'worker',
              label: 'Worker',
              least: 5,
              cell: (row) => h('span', { title: row.worker }, workerName(row.worker)),
            },
            { id: 'in', label: 'Rows in', width: 5.6, number: true, cell: (row) => rate(row.rows_in_per_second) },
            { id: 'out', label: 'Rows out', width: 5.6, number: true, cell: (row) => rate(row.rows_out_per_second) },
            { id: 'load', label: 'Load', width: 6, cell: (row) => load(row.busy, row.backpressured) },
            {
              id: 'watermark',
              label: 'Watermark',
              width: 7,
              number: true,
              cell: (row) => watermarkCell(row, now),
            },
          ],
        }),
      ),
    );
  }

  timeLines(job) {
    const to = this.view.job.data.now_ms;
    // A young job fills the axis, too.
    const began = Math.min(of(job.job)[0]?.at ?? to, to - LEAST_MS);
    const from = Math.max(to - this.minutes * 60_000, began);
    const all = { from, to, gap: GAP_MS, cursor: this.cursor };
    const one = (figure, name) => ({ name, points: series(job.job, figure, from) });
    const delay = of(job.job)
      .filter((point) => point.at >= from)
      .map((point) => [point.at, point.watermark === null ? Number.NaN : Math.max(0, point.at - point.watermark)]);
    const lagUnit = (job.lag || []).length ? job.lag[0].unit : '';
    const ended = (this.checkpoints.data ? this.checkpoints.data.checkpoints : [])
      .filter((checkpoint) => checkpoint.duration_ms !== null)
      .reverse();
    const phase = (name, value) => ({
      name,
      points: ended.map((checkpoint) => [checkpoint.started_at_ms, value(checkpoint) ?? Number.NaN]),
    });
    return panel(
      'Time lines',
      {
        end: h(
          'div',
          { class: 'segments', role: 'group', 'aria-label': 'How far back' },
          SPANS.map(([minutes, label]) =>
            h(
              'button',
              {
                type: 'button',
                key: minutes,
                'aria-pressed': String(this.minutes === minutes),
                on: {
                  click: () => {
                    this.minutes = minutes;
                    this.app.redraw();
                  },
                },
              },
              label,
            ),
          ),
        ),
      },
      h(
        'div',
        { class: 'charts' },
        chart({ ...all, title: 'Rows per second', unit: count, series: [one('rows_in', 'in'), one('rows_out', 'out')] }),
        chart({
          ...all,
          title: 'Row latency: source to sink',
          unit: duration,
          round: roundUpMs,
          none: 'no row came to a sink',
          series: [one('p50', 'p50'), one('p99', 'p99'), one('visible', 'p99 until visible')],
        }),
        chart({
          ...all,
          title: 'Watermark behind the clock',
          unit: duration,
          round: roundUpMs,
          none: 'no watermark',
          series: [{ name: 'behind', points: delay }],
        }),
        chart({
          ...all,
          title: `Lag${lagUnit ? ` in ${lagUnit}` : ''}`,
          unit: lagUnit === 'bytes' ? bytes : count,
          none: 'its sources do not tell',
          series: [one('lag', 'lag')],
        }),
        chart({
          ...all,
          title: 'Checkpoints',
          gap: 60_000,
          unit: duration,
          round: roundUpMs,
          series: [
            phase('complete', (c) => c.duration_ms),
            phase('published', (c) => (c.publish_ms === null ? null : c.duration_ms + c.publish_ms)),
          ],
        }),
        chart({ ...all, title: 'State', unit: bytes, series: [one('state', 'checkpoint size')] }),
        chart({
          ...all,
          title: 'Busiest subtask',
          unit: percent,
          round: () => 1,
          series: [one('busy', 'busy'), one('blocked', 'backpressured')],
        }),
      ),
    );
  }

  pressed(event) {
    if (event.key !== 'Escape' || this.drawing.picked === null) return false;
    this.drawing.pick(this.drawing.picked);
    return true;
  }

  close() {
    this.graph.close();
    this.checkpoints.close();
    this.drawing.close();
  }
}

// `w1@host:port#life` as `w1`.
export const workerName = (worker) => (worker ? worker.split('@')[0] : NONE);

function operatorFacts(operator) {
  const wrong = operator.dropped_records + operator.dead_letters + operator.unmatched_changes;
  return h(
    'div',
    { key: operator.id },
    h('h3', null, operator.name),
    facts([
      operator.table ? ['Table', `${operator.table}${operator.connector ? ` (${operator.connector})` : ''}`] : null,
      [
        'Rows in',
        h(
          'span',
          { title: exact(operator.rows_in) },
          `${rate(operator.rows_in_per_second)}, ${count(operator.rows_in)} in all`,
        ),
      ],
      [
        'Rows out',
        h(
          'span',
          { title: exact(operator.rows_out) },
          `${rate(operator.rows_out_per_second)}, ${count(operator.rows_out)} in all`,
        ),
      ],
      [
        'Watermark',
        operator.watermark_at_end
          ? 'at the end'
          : operator.watermark_ms === null
            ? NONE
            : `${eventTime(operator.watermark_ms)} UTC`,
      ],
      operator.state_bytes !== null && operator.state_bytes !== undefined
        ? ['State', `${exact(operator.state_rows)} rows, ${bytes(operator.state_bytes)}`]
        : null,
      ...(operator.lag || []).map((lag) => ['Lag', lagText(lag)]),
      operator.late_rows ? ['Late rows', exact(operator.late_rows)] : null,
      wrong
        ? [
            'Left out',
            `${exact(operator.dropped_records)} dropped, ${exact(operator.dead_letters)} dead letters, ${exact(operator.unmatched_changes)} unmatched changes`,
          ]
        : null,
    ]),
  );
}

// The whole, and the split that is most behind.
function lagText(lag) {
  const worst = lag.splits.reduce((most, split) => (most && most.lag >= split.lag ? most : split), null);
  return `${exact(lag.total)} ${lag.unit} in ${plural(lag.splits.length, 'split')}${worst && worst.lag > 0 ? `, most in ${worst.split}: ${exact(worst.lag)}` : ''}`;
}
