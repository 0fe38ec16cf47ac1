-- Auctions of category 10 by people of three states.
SELECT person.name, person.city, person.state, auction.id
FROM person, auction
WHERE auction.seller = person.id AND auction.category = 10 AND person.state IN ('OR', 'ID', 'CA');
