// From which columns of its sources the columns of a job's sinks come.

import { h } from '../lib/dom.js';
import { LineageDrawing, summary } from '../graph/lineage.js';
import { failed, loading, panel } from '../ui/parts.js';

const EVERY_MS = 30_000;

export class LineageTab {
  constructor(view) {
    this.lineage = view.poll(['lineage'], undefined, EVERY_MS);
    this.drawing = new LineageDrawing(() => view.app.redraw());
    this.polls = [this.lineage];
  }

  draw() {
    const { data, error } = this.lineage;
    if (!data) return error ? failed(error, 'The lineage') : loading();
    return lineageOf(data.sinks, this.drawing);
  }

  close() {
    this.lineage.close();
  }
}

// A panel for each sink; also for SQL that is only explained.
export function lineageOf(sinks, drawing) {
  return h(
    'div',
    { class: 'stack' },
    h(
      'p',
      { class: 'muted small' },
      'A line leads from each column that a value is computed of. Conditions, keys of joins and groups, and orders decide which rows there are.',
    ),
    sinks.map((sink) =>
      panel(
        sink.table,
        { label: `Lineage of ${sink.table}`, end: h('span', { class: 'muted small' }, summary(sink)) },
        drawing.draw(sink),
      ),
    ),
  );
}
