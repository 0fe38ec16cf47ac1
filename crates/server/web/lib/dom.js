// Describes elements and changes the document into what is described, touching only what differs.
//
// Views are functions from data to descriptions; `patch` is called at each refresh. An element keeps its identity as long as
// its key and tag stay, so focus, scrolling and selections survive. Text goes in as text nodes, never as markup, and styles go
// through the style object, so the page works under a content security policy without 'unsafe-inline'.

const SVG = 'http://www.w3.org/2000/svg';

// Properties that have to be set on the element because the attribute says only how it began.
const LIVE = new Set(['value', 'checked', 'disabled', 'open', 'selected', 'indeterminate']);

// Describes an element. `props` may hold: attributes; `class`; `css` (an object of style properties, `--custom` too); `on` (an
// object from event names to functions); `key`; `ref` (called once with the new element); `same` (when equal to that of the time
// before, the whole element is left as it is).
export function h(tag, props, ...children) {
  return { tag, props: props || {}, key: props ? props.key : undefined, children: flat(children, []) };
}

function flat(children, into) {
  for (const child of children) {
    if (Array.isArray(child)) flat(child, into);
    else if (child !== null && child !== undefined && child !== false && child !== true) {
      into.push(typeof child === 'object' ? child : { text: String(child) });
    }
  }
  return into;
}

// Changes the children of `parent` into `children`.
export function patch(parent, ...children) {
  const focused = document.activeElement;
  const next = flat(children, []);
  patchChildren(parent, parent.drawn || [], next, parent.namespaceURI === SVG);
  parent.drawn = next;
  // Moving an element takes the focus from it.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function create(vnode, svg) {
  if (vnode.text !== undefined) {
    vnode.el = document.createTextNode(vnode.text);
    return vnode.el;
  }
  const inSvg = svg || vnode.tag === 'svg';
  const el = inSvg ? document.createElementNS(SVG, vnode.tag) : document.createElement(vnode.tag);
  vnode.el = el;
  el.listeners = {};
  // Children first: a select takes its value only when its options are there.
  patchChildren(el, [], vnode.children, inSvg);
  setProps(el, {}, vnode.props);
  if (vnode.props.ref) vnode.props.ref(el);
  return el;
}

function update(old, vnode, svg) {
  const el = old.el;
  vnode.el = el;
  if (vnode.text !== undefined) {
    if (old.text !== vnode.text) el.nodeValue = vnode.text;
    return;
  }
  if (vnode.props.same !== undefined && vnode.props.same === old.props.same) {
    vnode.children = old.children;
    vnode.props = old.props;
    return;
  }
  patchChildren(el, old.children, vnode.children, svg || vnode.tag === 'svg');
  setProps(el, old.props, vnode.props);
}

function patchChildren(parent, old, next, svg) {
  const keyed = new Map();
  const free = [];
  for (const vnode of old) {
    if (vnode.key !== undefined) keyed.set(vnode.key, vnode);
    else free.push(vnode);
  }
  let at = 0;
  const matched = new Set();
  const pairs = next.map((vnode) => {
    let found;
    if (vnode.key !== undefined) {
      found = keyed.get(vnode.key);
      if (found && found.tag !== vnode.tag) found = undefined;
    } else {
      let ahead = at;
      while (ahead < free.length && free[ahead].tag !== vnode.tag) ahead += 1;
      if (ahead < free.length) {
        found = free[ahead];
        at = ahead + 1;
      }
    }
    if (found) matched.add(found);
    return found;
  });
  for (const vnode of old) if (!matched.has(vnode)) vnode.el.remove();
  let cursor = parent.firstChild;
  next.forEach((vnode, index) => {
    if (pairs[index]) update(pairs[index], vnode, svg);
    else create(vnode, svg);
    if (vnode.el === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(vnode.el, cursor);
  });
}

function setProps(el, old, next) {
  for (const name of Object.keys(old)) if (!(name in next)) setProp(el, name, old[name], undefined);
  for (const name of Object.keys(next)) setProp(el, name, old[name], next[name]);
}

function setProp(el, name, old, value) {
  switch (name) {
    case 'key':
    case 'ref':
    case 'same':
      return;
    case 'on':
      return setListeners(el, value || {});
    case 'css':
      return setStyle(el, old || {}, value || {});
  }
  const absent = value === undefined || value === null || value === false;
  if (LIVE.has(name)) {
    // The user may have changed it since: compare with what is there. Only elements that have the property get it.
    const wanted = absent ? (name === 'value' ? '' : false) : value;
    if (el[name] !== wanted) el[name] = wanted;
    return;
  }
  if (old === value) return;
  if (absent) el.removeAttribute(name);
  else el.setAttribute(name, value === true ? '' : String(value));
}

// One listener an event and element, which calls whatever function is the newest.
function setListeners(el, next) {
  for (const event of Object.keys(next)) {
    if (!(event in el.listeners)) el.addEventListener(event, (e) => el.listeners[event] && el.listeners[event](e));
  }
  for (const event of Object.keys(el.listeners)) if (!(event in next)) el.listeners[event] = null;
  Object.assign(el.listeners, next);
}

function setStyle(el, old, next) {
  for (const name of Object.keys(old)) if (!(name in next)) el.style.removeProperty(name);
  for (const name of Object.keys(next)) if (old[name] !== next[name]) el.style.setProperty(name, next[name]);
}
