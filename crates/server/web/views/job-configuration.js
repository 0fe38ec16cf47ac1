// With which options a job and its tables run. Secrets are hidden by the server.

import { h } from '../lib/dom.js';
import { clock, exact, NONE } from '../lib/format.js';
import { failed, facts, loading, panel, chip } from '../ui/parts.js';

export class ConfigurationTab {
  constructor(view) {
    this.configuration = view.poll(['configuration'], undefined, 15_000);
    this.polls = [this.configuration];
  }

  draw() {
    const { data, error } = this.configuration;
    if (!data) return error ? failed(error, 'The configuration') : loading();
    return h(
      'div',
      { class: 'columns' },
      panel(
        'Job',
        {},
        h(
          'div',
          { class: 'body' },
          facts([
            ['Parallelism', exact(data.parallelism)],
            ['Key groups', exact(data.key_groups)],
            ['Directory of relative paths', data.working_dir],
            ['Submitted', clock(data.submitted_at_ms)],
            ...flat(data.options).map(([name, value]) => [h('code', null, name), text(value)]),
          ]),
        ),
      ),
      data.tables.map((table) =>
        panel(
          table.table,
          { label: `Table ${table.table}`, end: chip(table.role, 'idle') },
          h(
            'div',
            { class: 'body' },
            facts(Object.entries(table.options).map(([name, value]) => [h('code', null, name), text(value)])),
          ),
        ),
      ),
    );
  }

  close() {
    this.configuration.close();
  }
}

// Options within options by their path.
function flat(options, before = '') {
  return Object.entries(options).flatMap(([name, value]) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? flat(value, `${before}${name}.`)
      : [[before + name, value]],
  );
}

function text(value) {
  if (value === null || value === undefined) return NONE;
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
