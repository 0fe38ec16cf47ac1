-- Bids with their auctions, of category 10.
SELECT bid.*, auction.* EXCLUDE (id) FROM bid JOIN auction ON bid.auction = auction.id WHERE auction.category = 10;
