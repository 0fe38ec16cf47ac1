-- Each bid with the value of its auction's number.
SELECT auction, bidder, price, dateTime, value FROM bid JOIN side_input ON key = auction % 10000;
