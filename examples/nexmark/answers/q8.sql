-- People who came and opened an auction within the same ten seconds, once for each of them.
SELECT DISTINCT person.id, person.name, make_timestamp(epoch_ms(person.dateTime) // 10000 * 10000000)
FROM person JOIN auction
ON auction.seller = person.id AND epoch_ms(auction.dateTime) // 10000 = epoch_ms(person.dateTime) // 10000;
