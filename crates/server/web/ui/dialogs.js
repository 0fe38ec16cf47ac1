// Dialogs: the list of keys, the token, and one that asks before something is done. The browser's own <dialog> keeps the focus inside.

import { h } from '../lib/dom.js';
import { get, path, token } from '../lib/api.js';

function frame(app, title, content, submit, closable = true) {
  return h(
    'dialog',
    {
      'aria-labelledby': 'dialog-title',
      // It can be shown only when it is in the document.
      ref: (el) => queueMicrotask(() => el.showModal()),
      on: {
        cancel: (event) => {
          event.preventDefault();
          if (closable) app.shut();
        },
        click: (event) => {
          if (closable && event.target === event.currentTarget) app.shut();
        },
      },
    },
    h(
      'form',
      {
        novalidate: true,
        on: {
          submit: (event) => {
            event.preventDefault();
            submit();
          },
        },
      },
      h('h2', { id: 'dialog-title' }, title),
      content,
    ),
  );
}

const KEYS = [
  [['?'], 'This list'],
  [['g', 'j'], 'Jobs'],
  [['g', 's'], 'SQL'],
  [['g', 'c'], 'Cluster'],
  [['g', 'a'], 'Audit trail'],
  [['/'], 'Filter'],
  [['['], 'Tab before, of a job'],
  [[']'], 'Next tab, of a job'],
  [['r'], 'Ask for new figures now'],
  [['t'], 'Light, dark or as the system has it'],
  [['←', '→', '↑', '↓'], 'In the graph: the next task. In a time line: the cursor'],
  [['Enter'], 'In the graph: details of the task'],
  [['Esc'], 'Close details or a dialog'],
  [['Ctrl', 'Enter'], 'In the editor: explain'],
  [['Ctrl', 'Shift', 'Enter'], 'In the editor: preview the query at the cursor'],
];

export function helpDialog(app) {
  return {
    draw: () =>
      frame(
        app,
        'Keys',
        [
          h(
            'dl',
            { class: 'keys' },
            KEYS.flatMap(([keys, what]) => [
              h(
                'dt',
                null,
                keys.map((key) => h('kbd', null, key)),
              ),
              h('dd', null, what),
            ]),
          ),
          h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'primary', autofocus: true }, 'Close')),
        ],
        () => app.shut(),
      ),
  };
}

export function tokenDialog(app, change) {
  let value = '';
  let problem = '';
  let busy = false;
  const submit = async () => {
    if (!value.trim() || busy) return;
    busy = true;
    const before = token.get();
    token.set(value.trim());
    try {
      await get(path('session'));
      app.shut();
      app.entered(value.trim());
    } catch (error) {
      token.set(before);
      problem = error.status === 401 ? 'The server does not know this token.' : error.message;
    }
    busy = false;
    app.redraw();
  };
  return {
    asksToken: true,
    draw: () =>
      frame(
        app,
        'Access token',
        [
          h(
            'p',
            { class: 'muted' },
            'This server asks for a token. Its administrator has given you one with the role viewer, operator or admin. It is kept until this tab is closed.',
          ),
          h(
            'label',
            { class: 'field' },
            h('span', null, 'Token'),
            h('input', {
              type: 'password',
              autocomplete: 'off',
              autofocus: true,
              value,
              on: {
                input: (event) => {
                  value = event.target.value;
                },
              },
            }),
          ),
          problem ? h('p', { class: 'problem', role: 'alert' }, problem) : null,
          h(
            'div',
            { class: 'buttons' },
            change ? h('button', { type: 'button', on: { click: () => app.shut() } }, 'Keep the present one') : null,
            h('button', { type: 'submit', class: 'primary', disabled: busy }, 'Use token'),
          ),
        ],
        submit,
        change,
      ),
  };
}

// Asks before `act(values)` is called. `fields`: `{ id, label, type, value, hint, required, min, max }`. What `act` throws is shown,
// and the dialog stays.
export function actionDialog(app, { title, text, fields = [], button, danger = false, act, done }) {
  const values = Object.fromEntries(fields.map((field) => [field.id, field.value ?? '']));
  let problem = '';
  let busy = false;
  const submit = async () => {
    const missing = fields.find(
      (field) => field.required && (!field.when || field.when(values)) && String(values[field.id]).trim() === '',
    );
    if (missing) {
      problem = `${missing.label} is missing.`;
      app.redraw();
      return;
    }
    if (busy) return;
    busy = true;
    problem = '';
    app.redraw();
    try {
      await act(values);
      app.shut();
      app.tell('ok', done(values));
    } catch (error) {
      problem = error.message;
    }
    busy = false;
    app.redraw();
  };
  const input = (field) => {
    if (field.type === 'checkbox') {
      return h(
        'label',
        { class: 'check', key: field.id },
        h('input', {
          type: 'checkbox',
          checked: values[field.id],
          on: {
            change: (event) => {
              values[field.id] = event.target.checked;
              app.redraw();
            },
          },
        }),
        h('span', null, field.label),
      );
    }
    return h(
      'label',
      { class: 'field', key: field.id },
      h('span', null, field.label),
      h('input', {
        type: field.type || 'text',
        min: field.min,
        max: field.max,
        required: field.required,
        placeholder: field.hint,
        autocomplete: 'off',
        spellcheck: 'false',
        value: values[field.id],
        on: {
          input: (event) => {
            values[field.id] = event.target.value;
          },
        },
      }),
    );
  };
  return {
    draw: () =>
      frame(
        app,
        title,
        [
          h('p', null, text),
          fields.filter((field) => !field.when || field.when(values)).map(input),
          problem ? h('p', { class: 'problem', role: 'alert' }, problem) : null,
          h(
            'div',
            { class: 'buttons' },
            h('button', { type: 'button', on: { click: () => app.shut() } }, 'Go back'),
            h('button', { type: 'submit', class: danger ? 'danger' : 'primary', disabled: busy }, busy ? 'Asking…' : button),
          ),
        ],
        submit,
      ),
  };
}
