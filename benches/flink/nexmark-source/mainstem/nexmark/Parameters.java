package mainstem.nexmark;

import java.io.Serializable;

/** The knobs of a stream, with the meaning and the defaults of {@code docs/connectors/nexmark.md}. */
final class Parameters implements Serializable {
    private static final long serialVersionUID = 1L;

    /** The only kind of event that is given, as flat columns; null: all kinds, as rows. */
    Kind kind;
    /** One past the last event. */
    long end;
    long seed;
    long baseTimeMs;
    long eventsPerSecond;
    /** Whether so many come a second by the wall clock too; otherwise they come as fast as they can. */
    boolean isPaced;
    long people;
    long auctions;
    long bids;
    long hotAuctions;
    long hotBidders;
    long hotSellers;
    long activePeople;
    long auctionsInFlight;
    long personSize;
    long auctionSize;
    long bidSize;

    long roundEvents() {
        return people + auctions + bids;
    }
}
