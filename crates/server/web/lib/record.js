// The figures of jobs over time, as far as this page has seen them. The server keeps ten minutes; what it gives is put before what was
// polled here, so a time line begins full and can go on for longer.

const POINTS_MAX = 900;
const JOBS_MAX = 200;
const records = new Map();

// Adds what an answer says of a job at `at` (server's clock, ms).
export function note(job, at, figures) {
  const points = of(job);
  const last = points.at(-1);
  if (last && at <= last.at + 500) return;
  points.push({ at, ...figures });
  if (points.length > POINTS_MAX) points.splice(0, points.length - POINTS_MAX);
}

// Takes in a time line of the server. Where both know a stretch, the server's points stay.
export function merge(job, points) {
  if (points.length === 0) return;
  const first = points[0].at;
  const last = points.at(-1).at;
  const kept = of(job);
  const next = [...kept.filter((point) => point.at < first), ...points, ...kept.filter((point) => point.at > last)];
  records.set(job, next.slice(-POINTS_MAX));
}

export function of(job) {
  let points = records.get(job);
  if (!points) {
    points = [];
    records.set(job, points);
    // The one that was seen first goes: a page that is open for weeks has seen many jobs.
    if (records.size > JOBS_MAX) records.delete(records.keys().next().value);
  }
  return points;
}

// `[[ms, value]…]` of one figure since `from`.
export const series = (job, figure, from) =>
  of(job)
    .filter((point) => point.at >= from)
    .map((point) => [point.at, point[figure] ?? Number.NaN]);
