-- Bids whose channel has a number, by its name or in the address.
SELECT auction, bidder, price, channel,
  coalesce(
    CAST(list_position(['apple', 'google', 'facebook', 'baidu'], lower(channel)) - 1 AS VARCHAR),
    string_split(string_split(string_split(url, '?')[2], 'channel_id=')[2], '&')[1]
  ) AS channel_id
FROM bid
WHERE channel_id IS NOT NULL;
