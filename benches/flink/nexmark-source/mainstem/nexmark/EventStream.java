package mainstem.nexmark;

/**
 * The numbers of the events: the same functions, bit for bit, as {@code crates/connectors/src/nexmark/stream.rs}; a
 * change belongs in both. An event is given by its number, by how often the pattern of people, auctions and bids has been
 * gone through before ({@code round}), and by its place in the pattern.
 */
final class EventStream {
    private static final long FIRST_PERSON = 1000;
    private static final long FIRST_AUCTION = 1000;
    private static final long FIRST_CATEGORY = 10;
    private static final long CATEGORIES = 5;
    private static final long HOT_SPACING = 100;
    private static final long ID_LEAD = 10;
    private static final int PRICE_CELLS_LOG2 = 12;

    final Parameters parameters;
    private final long hotAuction, anyAuction, hotBidder, anyBidder, price, hotSeller, anySeller, initialBid, reserve, length, category;
    private final double[] prices = new double[(1 << PRICE_CELLS_LOG2) + 1];

    EventStream(Parameters parameters) {
        this.parameters = parameters;
        long seed = parameters.seed;
        hotAuction = Hash.key(seed, 0);
        anyAuction = Hash.key(seed, 1);
        hotBidder = Hash.key(seed, 2);
        anyBidder = Hash.key(seed, 3);
        price = Hash.key(seed, 4);
        hotSeller = Hash.key(seed, 5);
        anySeller = Hash.key(seed, 6);
        initialBid = Hash.key(seed, 7);
        reserve = Hash.key(seed, 8);
        length = Hash.key(seed, 9);
        category = Hash.key(seed, 10);
        double step = 1.0033786221027048; // 10^(6/4096)
        prices[0] = 1.0;
        for (int i = 1; i < prices.length; i++) {
            prices[i] = prices[i - 1] * step;
        }
    }

    /** Milliseconds since 1970. The factory refuses streams so long that the product would overflow. */
    long timeMs(long number) {
        return parameters.baseTimeMs + number * 1000 / parameters.eventsPerSecond;
    }

    long personId(long round, long place) {
        return newestPerson(round, place) + FIRST_PERSON;
    }

    long auctionId(long round, long place) {
        return newestAuction(round, place) + FIRST_AUCTION;
    }

    long bidAuction(long number, long round, long place) {
        long newest = newestAuction(round, place);
        if (Hash.below(Hash.at(hotAuction, number), parameters.hotAuctions) > 0) {
            return newest / HOT_SPACING * HOT_SPACING + FIRST_AUCTION;
        }
        long oldest = Math.max(0, newest - parameters.auctionsInFlight);
        return oldest + Hash.below(Hash.at(anyAuction, number), newest - oldest + 1 + ID_LEAD) + FIRST_AUCTION;
    }

    long bidBidder(long number, long round, long place) {
        if (Hash.below(Hash.at(hotBidder, number), parameters.hotBidders) > 0) {
            return newestPerson(round, place) / HOT_SPACING * HOT_SPACING + 1 + FIRST_PERSON;
        }
        return anyPerson(round, place, Hash.at(anyBidder, number)) + FIRST_PERSON;
    }

    long bidPrice(long number) {
        return price(Hash.at(price, number));
    }

    long auctionSeller(long number, long round, long place) {
        if (Hash.below(Hash.at(hotSeller, number), parameters.hotSellers) > 0) {
            return newestPerson(round, place) / HOT_SPACING * HOT_SPACING + FIRST_PERSON;
        }
        return anyPerson(round, place, Hash.at(anySeller, number)) + FIRST_PERSON;
    }

    long auctionInitialBid(long number) {
        return price(Hash.at(initialBid, number));
    }

    long auctionReserve(long number) {
        return auctionInitialBid(number) + price(Hash.at(reserve, number));
    }

    long auctionExpiresMs(long number) {
        long now = timeMs(number);
        long ahead = parameters.auctionsInFlight * parameters.roundEvents() / Math.max(1, parameters.auctions);
        long horizon = Math.max(0, timeMs(number + ahead) - now);
        return now + 1 + Hash.below(Hash.at(length, number), Math.max(1, horizon * 2));
    }

    long auctionCategory(long number) {
        return FIRST_CATEGORY + Hash.below(Hash.at(category, number), CATEGORIES);
    }

    private long newestPerson(long round, long place) {
        return round * parameters.people + Math.min(place, Math.max(0, parameters.people - 1));
    }

    private long newestAuction(long round, long place) {
        long made = round * parameters.auctions
                + Math.min(Math.max(0, place + 1 - parameters.people), parameters.auctions);
        return Math.max(0, made - 1);
    }

    private long anyPerson(long round, long place, long random) {
        long people = newestPerson(round, place) + 1;
        long active = Math.min(people, parameters.activePeople);
        return people - active + Hash.below(random, active + ID_LEAD);
    }

    private long price(long random) {
        int cell = (int) (random >>> (64 - PRICE_CELLS_LOG2));
        double dollars = prices[cell] + (prices[cell + 1] - prices[cell]) * Hash.unit(Hash.at(random, 1));
        return (long) (dollars * 100.0 + 0.5);
    }
}
