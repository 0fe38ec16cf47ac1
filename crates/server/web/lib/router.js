// Which view the address asks for. Addresses are in the fragment (`#/jobs/clicks/checkpoints?state=failed`), so the server needs to
// know one page only, and links can be shared.

// `{ path: ['jobs', 'clicks'], query: URLSearchParams }` of an address.
export function parse(hash) {
  const text = hash.replace(/^#\/?/, '');
  const [path, query = ''] = text.split('?', 2);
  return { path: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// The address of a view: `href(['jobs', id], { q: 'x' })`. Empty values are left out.
export function href(path, query = {}) {
  const params = new URLSearchParams(
    Object.entries(query).filter(([, value]) => value !== '' && value !== undefined && value !== null),
  );
  const text = params.toString();
  return `#/${path.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`;
}

// Changes the query of the address without a new entry in the history, for filters and sorting.
export function setQuery(changes) {
  const { path, query } = parse(location.hash);
  const next = { ...Object.fromEntries(query), ...changes };
  history.replaceState(history.state, '', href(path, next));
}

export function go(path) {
  location.hash = href(path);
}
