// An address that leads nowhere.

import { h } from '../lib/dom.js';
import { href } from '../lib/router.js';

export class MissingView {
  constructor() {
    this.title = 'Not found';
    this.nav = 'missing';
    this.polls = [];
  }

  draw() {
    return h(
      'div',
      { class: 'empty' },
      h('h1', null, 'There is no such page'),
      h('p', null, 'See the ', h('a', { href: href(['jobs']) }, 'list of jobs'), '.'),
    );
  }

  close() {}
}
