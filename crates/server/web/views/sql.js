// Writes a job: checked while it is typed, explained with its dataflow, its first rows shown, then submitted. Nothing is written
// before that.

import { h } from '../lib/dom.js';
import { path, post } from '../lib/api.js';
import { go } from '../lib/router.js';
import { plural } from '../lib/format.js';
import { GraphView } from '../graph/view.js';
import { LineageDrawing } from '../graph/lineage.js';
import { actionDialog } from '../ui/dialogs.js';
import { editor, goTo, lineOfCursor } from '../ui/editor.js';
import { chip, notice, panel } from '../ui/parts.js';
import { lineageOf } from './job-lineage.js';
import { SqlPreview } from './sql-preview.js';

const DRAFT_KEY = 'mainstem-sql';
const PAUSE_MS = 500;
const FIELD = 'sql-text';

const EXAMPLE = `-- Counts made-up clicks of each page in windows of two seconds.
CREATE TABLE clicks (
  page INT,
  ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
) WITH (
  'connector' = 'datagen',
  'rows-per-second' = '100',
  'fields.page.min' = '1',
  'fields.page.max' = '5'
);

CREATE TABLE counts (
  window_end TIMESTAMP(3),
  page INT,
  clicks BIGINT
) WITH (
  'connector' = 'print'
);

INSERT INTO counts
SELECT window_end, page, COUNT(*)
FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '2' SECOND))
GROUP BY window_start, window_end, page;
`;

export class SqlView {
  constructor(app) {
    this.app = app;
    this.title = 'SQL';
    this.nav = 'sql';
    this.polls = [];
    // A draft may hold passwords, so it lives no longer than the tab.
    this.text = sessionStorage.getItem(DRAFT_KEY) || '';
    this.verdict = null;
    this.plan = null;
    this.problem = null;
    this.drawing = new GraphView(() => app.redraw(), true);
    this.lineage = new LineageDrawing(() => app.redraw());
    this.preview = new SqlPreview(() => app.redraw());
    if (this.text.trim()) this.validate();
  }

  typed(text) {
    this.text = text;
    this.verdict = null;
    this.problem = null;
    try {
      sessionStorage.setItem(DRAFT_KEY, text);
    } catch {
      // Too long to be kept; it is still in the field.
    }
    clearTimeout(this.typing);
    if (text.trim()) this.typing = setTimeout(() => this.validate(), PAUSE_MS);
    this.app.redraw();
  }

  // What is asked of the server is about the text as it was; an answer that comes when it is another one says nothing.
  async asked(question, take) {
    const text = this.text;
    this.busy = (this.busy || 0) + 1;
    this.app.redraw();
    try {
      const answer = await question();
      if (this.text === text) take(answer);
    } catch (error) {
      if (this.text === text) {
        if (error.code === 'invalid_sql') this.verdict = { valid: false, error };
        else this.problem = error;
      }
    }
    this.busy -= 1;
    this.app.redraw();
  }

  validate() {
    return this.asked(
      () => post(path('validate'), { sql: this.text }),
      (answer) => {
        this.verdict = answer;
        this.problem = null;
      },
    );
  }

  async explain() {
    if (!this.text.trim()) return;
    clearTimeout(this.typing);
    await this.asked(
      () => post(path('explain'), { sql: this.text }),
      (answer) => {
        this.plan = { ...answer, of: this.text };
        this.problem = null;
        this.verdict = this.verdict || {
          valid: true,
          operators: answer.graph.operators.length,
          sinks: answer.graph.operators.filter((one) => one.kind === 'sink').length,
        };
      },
    );
    if (this.verdict && !this.verdict.valid) this.showError();
  }

  async showRows() {
    if (!this.text.trim() || !this.app.may('operator')) return;
    const text = this.text;
    this.problem = null;
    const wrong = await this.preview.ask(text, lineOfCursor(FIELD));
    if (this.text !== text) return;
    if (wrong) {
      this.verdict = { valid: false, error: wrong };
      this.app.redraw();
      this.showError();
    }
    // What has come may be below the screen.
    requestAnimationFrame(() => {
      const shown = document.querySelector('.previewed');
      if (shown) shown.scrollIntoView({ block: 'nearest' });
    });
  }

  submit() {
    this.app.open(
      actionDialog(this.app, {
        title: 'Submit as a job',
        text: 'It runs until it is stopped, or until its sources end.',
        button: 'Submit',
        fields: [
          { id: 'name', label: "Name (empty: what SET 'pipeline.name' says)", hint: 'orders' },
          {
            id: 'parallelism',
            label: "Parallelism (empty: what SET 'parallelism.default' says, else 1)",
            type: 'number',
            min: 1,
          },
          { id: 'interval', label: 'Milliseconds between checkpoints (empty: the default)', type: 'number', min: 1 },
          {
            id: 'savepoint',
            label: 'Begin with the savepoint (empty: begin afresh)',
            hint: 's3://bucket/savepoints/orders-…',
          },
        ],
        act: async ({ name, parallelism, interval, savepoint }) => {
          const body = { sql: this.text };
          if (name.trim()) body.name = name.trim();
          if (parallelism) body.parallelism = Number(parallelism);
          if (interval) body.checkpoint_interval_ms = Number(interval);
          if (savepoint.trim()) body.from_savepoint = savepoint.trim();
          const { job } = await post(path('jobs'), body);
          go(['jobs', job]);
        },
        done: () => 'The job was submitted.',
      }),
    );
  }

  showError() {
    const { error } = this.verdict;
    goTo(FIELD, error.line, error.column);
  }

  draw() {
    const allowed = this.app.may('operator');
    const wrong = this.verdict && !this.verdict.valid ? this.verdict.error : null;
    const empty = this.text.trim() === '';
    return [
      h(
        'div',
        { class: 'head' },
        h('h1', null, 'SQL'),
        this.state(empty),
        h(
          'div',
          { class: 'actions' },
          empty
            ? h('button', { type: 'button', key: 'example', on: { click: () => this.typed(EXAMPLE) } }, 'Take an example')
            : null,
          h(
            'button',
            { type: 'button', key: 'explain', disabled: empty || !allowed, on: { click: () => this.explain() } },
            'Explain',
          ),
          h(
            'button',
            {
              type: 'button',
              key: 'preview',
              disabled: empty || !allowed,
              title: 'Shows the first rows of the query at the cursor and writes nothing (Ctrl+Shift+Enter)',
              on: { click: () => (this.preview.running ? this.preview.stop() : this.showRows()) },
            },
            this.preview.running ? 'Stop preview' : 'Preview',
          ),
          h(
            'button',
            {
              type: 'button',
              key: 'submit',
              class: 'primary',
              disabled: empty || !allowed || Boolean(wrong) || this.app.oneProcess,
              on: { click: () => this.submit() },
            },
            'Submit…',
          ),
        ),
      ),
      !allowed && this.app.session.data
        ? notice('warn', 'Only to look at.', 'Your role is viewer; checking, previewing and submitting SQL needs the role operator.')
        : null,
      this.app.oneProcess
        ? notice(
            'warn',
            'One job only.',
            'This process runs one job, so nothing can be submitted here. SQL can be checked, explained and previewed.',
          )
        : null,
      this.problem ? notice('bad', 'No answer.', this.problem.message) : null,
      h(
        'div',
        { class: 'stack write' },
        editor({
          id: FIELD,
          label: 'SQL of the job',
          value: this.text,
          wrong,
          describedBy: 'sql-verdict',
          onInput: (text) => this.typed(text),
          onRun: () => this.explain(),
          onPreview: () => this.showRows(),
        }),
        h('div', { id: 'sql-verdict', class: 'verdict', role: 'status' }, wrong ? this.error(wrong) : null),
        this.preview.draw(this.text),
        this.planned(),
      ),
    ];
  }

  state(empty) {
    if (empty)
      return h('span', { class: 'muted small' }, 'CREATE TABLE … and INSERT INTO …, as in a file for mainstem submit');
    if (this.busy) return chip('checking', 'accent');
    if (!this.verdict) return chip('not checked', 'idle');
    if (!this.verdict.valid) return chip('invalid', 'bad');
    return [
      chip('valid', 'ok'),
      h(
        'span',
        { class: 'muted small' },
        `${plural(this.verdict.operators, 'operator')}, ${plural(this.verdict.sinks, 'sink')}`,
      ),
    ];
  }

  error(wrong) {
    const place = wrong.line ? `Go to line ${wrong.line}${wrong.column ? `, column ${wrong.column}` : ''}` : null;
    return h(
      'div',
      { class: 'notice bad' },
      h('div', null, h('pre', null, wrong.message)),
      place ? h('button', { type: 'button', class: 'plain', on: { click: () => this.showError() } }, place) : null,
    );
  }

  planned() {
    if (!this.plan) return null;
    const old = this.plan.of !== this.text;
    return h(
      'div',
      { class: old ? 'stale-plan stack' : 'stack' },
      old ? notice('warn', 'Older text.', 'This is the plan of the text before your last change. Explain it again.') : null,
      panel('Dataflow', { end: this.drawing.controls() }, this.drawing.draw(this.plan.graph, Date.now())),
      this.plan.lineage ? lineageOf(this.plan.lineage, this.lineage) : null,
      panel(
        'Plan',
        {},
        h('pre', { class: 'plan', tabindex: '0', role: 'region', 'aria-label': 'Plan as text' }, this.plan.plan),
      ),
    );
  }

  close() {
    clearTimeout(this.typing);
    this.preview.stop();
    this.drawing.close();
  }
}
