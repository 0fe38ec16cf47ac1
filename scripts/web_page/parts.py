"""Parts of the web page that a look at it does not show. Used by `scripts/check-web`."""

from looks import look, text


def parts(browser, server, shots):
    """What is hard to see: elements that keep their identity, figures as text, and that no cards of a graph lie on each other."""
    page = look(browser, server.url, "cluster", [text("w")])
    page.value("""(async () => {
      const { count, bytes, duration, eventTime } = await import('/lib/format.js');
      const told = [count(null), count(0), count(9999), count(12345), count(999950), bytes(1500), bytes(999), duration(0), duration(950), duration(61000), duration(90061000), eventTime(0)].join('; ');
      const wanted = '–; 0; 9999; 12.3 k; 1.00 M; 1.50 kB; 999 B; 0 ms; 950 ms; 1 min 1 s; 1 d 1 h; 1970-01-01 00:00:00';
      if (told !== wanted) throw new Error(told);
      const { h, patch } = await import('/lib/dom.js');
      const place = document.body.appendChild(document.createElement('ul'));
      const draw = (keys) => patch(place, keys.map((key) => h('li', { key, tabindex: 0 }, `<b>${key}</b>`, key === 'b' ? h('i', { class: 'x' }) : null)));
      draw(['a', 'b', 'c']);
      const [a, , c] = place.children;
      c.focus();
      draw(['c', 'd', 'a']);
      if (place.children[0] !== c || place.children[2] !== a || document.activeElement !== c) throw new Error('elements are not kept');
      if (place.textContent !== '<b>c</b><b>d</b><b>a</b>' || place.querySelector('b, i')) throw new Error(place.outerHTML);
      place.remove();
      const { layout } = await import('/graph/layout.js');
      let seed = 7;
      const random = (below) => { seed = (seed * 48271) % 2147483647; return seed % below; };
      for (let round = 0; round < 60; round += 1) {
        const nodes = Array.from({ length: 1 + random(40) }, (_, id) => id);
        const edges = nodes.slice(1).flatMap((to) => Array.from({ length: random(3) }, () => ({ from: random(to), to })));
        const sizes = new Map(nodes.map((id) => [id, { width: 200, height: 60 + random(5) * 24 }]));
        const down = round % 2 === 1;
        const drawn = layout(nodes, edges, { sizes, gap: 20, layerGap: 40, down });
        if (JSON.stringify([...drawn.nodes]) !== JSON.stringify([...layout(nodes, edges, { sizes, gap: 20, layerGap: 40, down }).nodes])) throw new Error('not the same twice');
        const boxes = nodes.map((id) => ({ ...drawn.nodes.get(id), ...sizes.get(id) }));
        for (const [at, a] of boxes.entries()) for (const b of boxes.slice(at + 1)) {
          if (a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height) throw new Error(`round ${round}: two cards lie on each other`);
        }
        for (const edge of drawn.edges) for (const [at, point] of edge.points.entries()) {
          if (at && (down ? point.y < edge.points[at - 1].y : point.x < edge.points[at - 1].x)) throw new Error(`round ${round}: an edge runs back`);
        }
      }
    })()""")
