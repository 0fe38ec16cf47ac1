// The first rows of a query, as the server finds them, before there is a job. Nothing is written by it.

import { h } from '../lib/dom.js';
import { path, post } from '../lib/api.js';
import { duration, exact, plural } from '../lib/format.js';
import { notice, panel } from '../ui/parts.js';
import { table } from '../ui/table.js';

const ROWS_MAX = 100;
// Less than the page waits for an answer.
const TIME_MS = 5_000;
// A column is as wide as its values, within these; what is left is shared out.
const COLUMN_CHARACTERS = [8, 48];
const REM_A_CHARACTER = 0.55;

const KINDS = {
  '+I': ['inserted', 'a new row'],
  '+U': ['updated', 'the row after a change'],
  '-U': ['before', 'the row before a change, taken back'],
  '-D': ['deleted', 'a row that is deleted'],
};
const NUMBERS = /^(TINYINT|SMALLINT|INT|BIGINT|FLOAT|DOUBLE|DECIMAL)\b/;

export class SqlPreview {
  constructor(redraw) {
    this.redraw = redraw;
    this.running = null;
    this.answer = null;
    this.problem = null;
    this.asked = 0;
  }

  // Shows the query of the text that stands at a line. Gives the error where the SQL is wrong, which belongs to the text.
  async ask(text, line) {
    this.stop();
    const running = { abort: new AbortController(), since: Date.now() };
    this.running = running;
    this.problem = null;
    this.asked += 1;
    this.redraw();
    let wrong = null;
    try {
      const body = { sql: text, line, rows: ROWS_MAX, time_ms: TIME_MS };
      const answer = await post(path('preview'), body, running.abort.signal);
      if (this.running === running) this.answer = { ...answer, of: text, number: this.asked };
    } catch (error) {
      if (this.running === running) {
        if (error.code === 'invalid_sql') wrong = error;
        else this.problem = error;
      }
    }
    if (this.running === running) this.running = null;
    this.redraw();
    return wrong;
  }

  // Ends what runs; the server ends it too when nobody waits for it.
  stop() {
    if (!this.running) return;
    this.running.abort.abort();
    this.running = null;
    this.redraw();
  }

  draw(text) {
    if (this.running) return panel('Preview', {}, h('div', { class: 'body' }, this.progress()));
    if (this.problem) {
      const told = h('div', null, h('pre', null, this.problem.message));
      return h('div', { class: 'verdict', key: 'preview problem', role: 'alert' }, h('div', { class: 'notice bad' }, told));
    }
    if (!this.answer) return null;
    const old = this.answer.of !== text;
    return h(
      'div',
      { class: old ? 'stale-plan stack' : 'stack', key: 'preview' },
      old ? notice('warn', 'Older text.', 'These are rows of the text before your last change. Preview it again.') : null,
      this.rows(this.answer),
    );
  }

  progress() {
    const seconds = Math.min(Math.floor((Date.now() - this.running.since) / 1000), TIME_MS / 1000);
    return h(
      'div',
      { class: 'row previewing' },
      h('progress', { max: TIME_MS / 1000, value: seconds, 'aria-label': 'Time of the preview' }),
      h('span', { class: 'muted' }, `Reading from the sources: ${seconds} s of at most ${TIME_MS / 1000} s`),
    );
  }

  rows(answer) {
    const place = answer.line ? `, line ${answer.line}` : '';
    return panel(
      'Preview',
      { end: h('span', { class: 'muted small' }, `${answer.table}${place}: nothing was written`) },
      h('div', { class: 'body small', role: 'status' }, summary(answer)),
      answer.rows.length > 0 ? h('div', { class: 'previewed' }, rowsTable(answer)) : null,
    );
  }
}

function summary(answer) {
  const rows = plural(answer.rows.length, answer.updating ? 'change' : 'row');
  const why = {
    finished: 'that is all',
    rows: 'as many as are shown; there may be more',
    time: `what came within ${duration(answer.duration_ms)}`,
    bytes: 'as much as is shown; there are more',
  }[answer.end];
  const more = [
    `${plural(answer.rows_read, 'row')} read`,
    answer.late_rows ? `${exact(answer.late_rows)} too late` : null,
    answer.dropped_records ? `${plural(answer.dropped_records, 'wrong record')} left out` : null,
    answer.cut_values ? `${plural(answer.cut_values, 'long value')} cut` : null,
  ].filter(Boolean);
  const windows = answer.rows.length === 0 && answer.end === 'time' ? ' Windows give their rows when they close.' : '';
  return `${rows}: ${why || answer.end}. ${more.join(', ')}.${windows}`;
}

function rowsTable(answer) {
  const kind = {
    id: 'kind',
    label: 'Kind',
    width: 5,
    hint: '+I inserted, -U before and +U after an update, -D deleted',
    cell: ({ row }) => {
      const [name, title] = KINDS[row.kind] || ['', ''];
      return h('span', { class: `kind ${name}`, title }, row.kind);
    },
  };
  const columns = answer.columns.map((column, at) => {
    const lengths = answer.rows.map((row) => (row.values[at] ?? 'NULL').length);
    const [least, most] = COLUMN_CHARACTERS;
    const characters = Math.min(Math.max(least, column.name.length, ...lengths), most);
    return {
      id: `${at}`,
      label: column.name,
      width: characters * REM_A_CHARACTER + 1.5,
      number: NUMBERS.test(column.type),
      hint: `${column.name} ${column.type}`,
      cell: ({ row }) => {
        const value = row.values[at];
        return value === null ? h('span', { class: 'muted' }, 'NULL') : h('span', { class: 'value', title: value }, value);
      },
    };
  });
  return table({
    label: `Rows of ${answer.table}`,
    columns: [kind, ...columns],
    rows: answer.rows.map((row, index) => ({ row, index })),
    key: ({ index }) => index,
    same: `${answer.number}`,
  });
}
