-- Each bid with its bidder, and with each auction that the bidder has opened.
SELECT bid.bidder, bid.price, bid.channel, bid.url, bid.extra, person.* EXCLUDE (dateTime), auction.* EXCLUDE (id)
FROM person, bid, auction
WHERE bid.bidder = person.id AND auction.seller = person.id;
