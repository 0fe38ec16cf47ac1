// The card of a task: its operators with the rows that leave them, its load and its watermark.

import { h } from '../lib/dom.js';
import { rate, percent, behind, eventTime, plural } from '../lib/format.js';
import { icon } from '../ui/icons.js';
import { load } from '../ui/parts.js';
import { pressure, flowOf } from './tasks.js';

// `props`: what makes it a control. `slowest`: the least watermark of all tasks.
export function card(task, props, now, slowest) {
  const level = pressure(task.blocked);
  const holds = task.watermark !== null && task.watermark === slowest;
  const watermark = task.atEnd ? 'at the end' : behind(task.watermark, now);
  const flows = task.operators.map((operator) => `${operator.name} ${rate(flowOf(operator))}`).join(', ');
  const spoken = [
    flows,
    plural(task.parallelism, 'subtask'),
    `busy ${percent(task.busy)}`,
    `backpressured ${percent(task.blocked)}`,
    `watermark ${watermark}`,
  ];
  const blocked = level === 'high' || level === 'some';
  const title = `Watermark ${eventTime(task.watermark)} UTC${holds ? ', the least of all tasks' : ''}`;
  return h(
    'button',
    { ...props, type: 'button', class: `card ${level}`, 'aria-label': spoken.join('; ') },
    task.operators.map((operator) => operatorRow(operator, rate(flowOf(operator)))),
    h(
      'span',
      { class: 'foot' },
      load(task.busy, task.blocked),
      h(
        'span',
        { class: 'line' },
        h('span', { title: 'Subtasks' }, `×${task.parallelism}`),
        h('span', null, blocked ? `blocked ${percent(task.blocked)}` : `busy ${percent(task.busy)}`),
        h('span', { class: `mark${holds ? ' least' : ''}`, title }, watermark),
      ),
    ),
  );
}

// The card of a task that does not run.
export function plannedCard(task, props) {
  const spoken = `${task.name}; ${plural(task.parallelism, 'subtask')}`;
  return h(
    'button',
    { ...props, type: 'button', class: 'card', 'aria-label': spoken },
    task.operators.map((operator) => operatorRow(operator, operator.connector || '')),
    h('span', { class: 'foot' }, plural(task.parallelism, 'subtask')),
  );
}

const operatorRow = (operator, note) =>
  h(
    'span',
    { class: `operator ${operator.kind}`, key: operator.id },
    h('span', { class: 'kind' }, drawing(operator.kind)),
    h('span', { class: 'title', title: operator.name }, operator.name),
    h('span', { class: 'flow' }, note),
  );

// A drawing for the kind of an operator; its name says it in words.
function drawing(kind) {
  if (['source', 'sink', 'calc'].includes(kind)) return icon(kind);
  const found = ['join', 'window', 'aggregate'].find((word) => kind.includes(word));
  return icon(found || 'other');
}
