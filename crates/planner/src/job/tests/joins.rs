//! FROM with several relations.

use super::*;

#[test]
fn debug_show() {
    for sql in [
        "SELECT b.auction, p.v, s FROM bid b JOIN plain p ON b.auction = p.k AND b.price > p.v WHERE b.channel = 'x'",
        "SELECT * FROM bid b, plain WHERE b.auction = k",
        "SELECT * FROM plain FULL JOIN (SELECT k, count(*) AS n FROM TABLE(TUMBLE(TABLE (SELECT auction AS k, `dateTime` FROM bid), DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND)) GROUP BY k, window_start, window_end) c USING (K)",
        "SELECT auction FROM bid WHERE auction IN (SELECT k FROM plain WHERE v > 3)",
        "SELECT auction FROM bid b WHERE auction NOT IN (SELECT k FROM plain WHERE plain.v > b.price)",
        "SELECT auction FROM bid WHERE auction NOT IN (SELECT k FROM plain)",
        "SELECT auction FROM bid b WHERE NOT EXISTS (SELECT 1 FROM plain WHERE k = auction AND S = B.channel)",
        "SELECT x.k, y.k FROM plain x LEFT JOIN plain y ON x.k = y.k + 1",
        "SELECT * FROM plain NATURAL JOIN plain p2",
        "SELECT * FROM plain LEFT ANTI JOIN bid ON k = auction",
        "SELECT 1 FROM (plain a CROSS JOIN plain b) JOIN bid ON a.k = auction AND b.k = bidder",
    ] {
        println!("== {sql}\n{}", operators(sql));
    }
}
