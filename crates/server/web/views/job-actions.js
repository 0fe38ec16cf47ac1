// What can be done with a job, each after a question.

import { h } from '../lib/dom.js';
import { path, post, remove } from '../lib/api.js';
import { go } from '../lib/router.js';
import { actionDialog } from '../ui/dialogs.js';

export function jobActions(app, job, again) {
  const allowed = app.may('operator');
  const reason = allowed ? undefined : 'Your role is viewer; this needs the role operator';
  const button = (label, dialog, danger = false, possible = true) =>
    h(
      'button',
      {
        type: 'button',
        key: label,
        class: danger ? 'danger' : '',
        disabled: !allowed || !possible,
        title: reason,
        on: { click: () => app.open(actionDialog(app, dialog())) },
      },
      `${label}…`,
    );
  const name = job.job;
  const running = job.end === null;
  const ask = (action) => async (values) => {
    await post(path('jobs', name, action.route), action.body ? action.body(values) : {});
    again();
  };
  if (!running) {
    return app.oneProcess
      ? []
      : [
          button(
            'Forget',
            () => ({
              title: `Forget ${name}?`,
              text: 'The job goes from the list and its checkpoints are deleted. Its output and its savepoints stay.',
              button: 'Forget it',
              danger: true,
              act: async () => {
                await remove(path('jobs', name));
                go(['jobs']);
              },
              done: () => `${name} is being forgotten.`,
            }),
            true,
          ),
        ];
  }
  return [
    button('Savepoint', () => ({
      title: `Savepoint of ${name}`,
      text: 'A copy of its next checkpoint, complete in itself, that belongs to you. The job goes on meanwhile.',
      button: 'Take a savepoint',
      fields: [
        {
          id: 'directory',
          label: 'Directory or object store, as the workers see it',
          hint: '/srv/savepoints or s3://bucket/savepoints',
          required: true,
        },
      ],
      act: ask({ route: 'savepoints', body: ({ directory }) => ({ directory: directory.trim() }) }),
      done: () => 'A savepoint was asked for.',
    })),
    app.oneProcess
      ? null
      : button('Rescale', () => ({
          title: `Rescale ${name}`,
          text: `It runs with ${job.parallelism} subtasks of each task. It takes a checkpoint and goes on from there with the new number; nothing is read twice.`,
          button: 'Rescale',
          fields: [
            {
              id: 'parallelism',
              label: 'New parallelism',
              type: 'number',
              min: 1,
              value: String(job.parallelism),
              required: true,
            },
          ],
          act: ask({ route: 'rescale', body: ({ parallelism }) => ({ parallelism: whole(parallelism) }) }),
          done: ({ parallelism }) => `${name} is going to run with parallelism ${parallelism}.`,
        })),
    button(
      'Stop',
      () => ({
        title: `Stop ${name}?`,
        text: 'It takes a last checkpoint, publishes its output and stops. Submitting the same SQL later goes on from there.',
        button: 'Stop the job',
        danger: true,
        fields: [
          { id: 'save', label: 'With a savepoint of that last checkpoint', type: 'checkbox', value: false },
          {
            id: 'directory',
            label: 'Directory or object store, as the workers see it',
            required: true,
            when: ({ save }) => save,
          },
        ],
        act: ask({ route: 'stop', body: ({ save, directory }) => (save ? { savepoint_directory: directory.trim() } : {}) }),
        done: () => `${name} is stopping.`,
      }),
      true,
    ),
    button(
      'Cancel',
      () => ({
        title: `Cancel ${name}?`,
        text: 'It stops at once, without a last checkpoint. What it has read since the newest one is read again if it is submitted later. Published output stays.',
        button: 'Cancel the job',
        danger: true,
        act: ask({ route: 'cancel' }),
        done: () => `${name} is cancelled.`,
      }),
      true,
    ),
  ];
}

function whole(text) {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) throw new Error('Parallelism must be a whole number of at least 1.');
  return number;
}
