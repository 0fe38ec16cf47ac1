// Cuts SQL text into words for colouring. It only has to look right: what is valid is decided by the planner.

const KEYWORDS = new Set(
  (
    'ADD ALL AND ANY AS ASC BETWEEN BY CASE CAST CHECK CONSTRAINT CREATE CROSS CURRENT DEFINE DESC DESCRIPTOR DISTINCT ELSE END ENFORCED EXCEPT EXISTS EXPLAIN ' +
    'EXTRACT FALSE FETCH FILTER FIRST FOLLOWING FOR FROM FULL FUNCTION GROUP GROUPING HAVING IF IN INNER INSERT INTERSECT INTERVAL INTO IS JOIN KEY LAST LATERAL LEFT LIKE LIMIT MATCH_RECOGNIZE MEASURES ' +
    'METADATA NATURAL NOT NULL NULLS OF OFFSET ON ONE OR ORDER OUTER OVER PARTITION PARTITIONED PATTERN PER PRECEDING PRIMARY RANGE RECURSIVE RESET RIGHT ROW ROWS SELECT SET SETS SKIP SOME SYSTEM_TIME ' +
    'TABLE TEMPORARY THEN TO TRUE UNBOUNDED UNION UNNEST USING VALUES VIEW VIRTUAL WATERMARK WHEN WHERE WINDOW WITH WITHIN WITHOUT BEGIN STATEMENT EXECUTE BIGINT INT INTEGER SMALLINT TINYINT DOUBLE FLOAT ' +
    'DECIMAL STRING VARCHAR CHAR BOOLEAN DATE TIME TIMESTAMP TIMESTAMP_LTZ BYTES ARRAY MAP YEAR MONTH DAY HOUR MINUTE SECOND'
  ).split(' '),
);

const WORDS =
  /(--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|('(?:[^']|'')*'?)|(`[^`\n]*`?|"[^"\n]*"?)|(\b\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?\b)|([A-Za-z_][A-Za-z0-9_]*)/g;

// `[[kind, text]…]`, which put together are the text; kind is '' where there is nothing to colour.
export function wordsOf(text) {
  const words = [];
  let from = 0;
  for (const match of text.matchAll(WORDS)) {
    const [word, comment, string, , number, name] = match;
    const kind = comment
      ? 'comment'
      : string
        ? 'string'
        : number
          ? 'number'
          : name && KEYWORDS.has(name.toUpperCase())
            ? 'keyword'
            : '';
    if (!kind) continue;
    if (match.index > from) words.push(['', text.slice(from, match.index)]);
    words.push([kind, word]);
    from = match.index + word.length;
  }
  if (from < text.length) words.push(['', text.slice(from)]);
  return words;
}

// Where the line and column (from 1; columns count characters as the planner does) are in the text, with the length of the
// word that stands there; null if there is no such place.
export function placeOf(text, line, column) {
  if (!line) return null;
  const lines = text.split('\n');
  if (line > lines.length) return null;
  const before = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
  const inLine = [...lines[line - 1]].slice(0, Math.max(0, (column || 1) - 1)).join('').length;
  const at = before + inLine;
  const word = /^(?:`[^`\n]*`|'[^'\n]*'|"[^"\n]*"|[A-Za-z0-9_.]+|\S)/.exec(text.slice(at));
  return { at, length: word ? word[0].length : 1, line };
}
