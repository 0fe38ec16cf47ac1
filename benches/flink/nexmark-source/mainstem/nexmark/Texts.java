package mainstem.nexmark;

import static java.nio.charset.StandardCharsets.US_ASCII;

import java.util.Arrays;

/**
 * The texts of the events: the same, byte for byte, as {@code crates/connectors/src/nexmark/text.rs}; a change belongs
 * in both.
 */
final class Texts {
    private static final byte[][] FIRST_NAMES =
            words("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter");
    private static final byte[][] LAST_NAMES =
            words("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris");
    private static final byte[][] CITIES = words(
            "Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne");
    private static final byte[][] STATES = words("AZ", "CA", "ID", "OR", "WA", "WY");
    private static final byte[][] HOT_CHANNELS = words("Google", "Facebook", "Baidu", "Apple");
    private static final byte[] COM = ".com".getBytes(US_ASCII);
    private static final int CHANNELS = 10_000;
    private static final long HOT_CHANNEL_RATIO = 2;
    private static final long ITEM_NAME_LENGTH = 20;
    private static final long DESCRIPTION_LENGTH = 100;
    private static final long TEXT_LENGTH_MIN = 3;
    private static final long CREDIT_CARD_LENGTH = 19;
    private static final long PERSON_NUMBERS = 8;
    private static final long AUCTION_NUMBERS = 48;
    private static final long BID_NUMBERS = 32;

    private final Parameters parameters;
    private final long channel, firstName, lastName, email, creditCard, city, state, itemName, description, extra;
    private final byte[][] channelNames = new byte[CHANNELS + HOT_CHANNELS.length][];
    private final byte[][] channelUrls = new byte[CHANNELS + HOT_CHANNELS.length][];

    Texts(Parameters parameters) {
        this.parameters = parameters;
        long seed = parameters.seed;
        channel = Hash.key(seed, 11);
        firstName = Hash.key(seed, 12);
        lastName = Hash.key(seed, 13);
        email = Hash.key(seed, 14);
        creditCard = Hash.key(seed, 15);
        city = Hash.key(seed, 16);
        state = Hash.key(seed, 17);
        itemName = Hash.key(seed, 18);
        description = Hash.key(seed, 19);
        extra = Hash.key(seed, 20);
        makeChannels(Hash.key(seed, 100));
    }

    private void makeChannels(long key) {
        for (int i = 0; i < channelNames.length; i++) {
            boolean hot = i >= CHANNELS;
            channelNames[i] = hot ? HOT_CHANNELS[i - CHANNELS] : ("channel-" + i).getBytes(US_ASCII);
            TextBuffer url = new TextBuffer(1, 128);
            url.write("https://www.nexmark.com/".getBytes(US_ASCII));
            long number = Hash.at(key, i);
            for (int part = 1; part <= 3; part++) {
                url.writeWord(Hash.letters(Hash.at(number, part)), 5);
                url.write('/');
            }
            url.write("item.htm?query=1".getBytes(US_ASCII));
            if (!hot && Hash.below(Hash.at(number, 4), 10) > 0) {
                url.write(("&channel_id=" + (Hash.at(number, 5) >>> 33)).getBytes(US_ASCII));
            }
            channelUrls[i] = Arrays.copyOf(url.bytes, url.size);
        }
    }

    /** Writes a field of the event of this number. */
    void write(Field field, long number, TextBuffer out) {
        switch (field) {
            case PERSON_NAME:
                out.write(pick(FIRST_NAMES, firstName, number));
                out.write(' ');
                out.write(pick(LAST_NAMES, lastName, number));
                return;
            case PERSON_EMAIL:
                writeEmail(Hash.at(email, number), out);
                return;
            case PERSON_CREDIT_CARD:
                writeCreditCard(Hash.at(creditCard, number), out);
                return;
            case PERSON_CITY:
                out.write(pick(CITIES, city, number));
                return;
            case PERSON_STATE:
                out.write(pick(STATES, state, number));
                return;
            case PERSON_EXTRA:
                writeExtra(number, personSize(number), parameters.personSize, out);
                return;
            case AUCTION_ITEM_NAME:
                writeWords(Hash.at(itemName, number), ITEM_NAME_LENGTH, out);
                return;
            case AUCTION_DESCRIPTION:
                writeWords(Hash.at(description, number), DESCRIPTION_LENGTH, out);
                return;
            case AUCTION_EXTRA:
                writeExtra(number, auctionSize(number), parameters.auctionSize, out);
                return;
            case BID_CHANNEL:
                out.write(channelNames[channelOf(number)]);
                return;
            case BID_URL:
                out.write(channelUrls[channelOf(number)]);
                return;
            case BID_EXTRA:
                writeExtra(number, BID_NUMBERS, parameters.bidSize, out);
                return;
            default:
                throw new IllegalArgumentException(field + " is no text");
        }
    }

    private int channelOf(long number) {
        long random = Hash.at(channel, number);
        long choice = Hash.at(random, 1);
        boolean hot = Hash.below(random, HOT_CHANNEL_RATIO) > 0;
        return (int) (hot ? CHANNELS + Hash.below(choice, HOT_CHANNELS.length) : Hash.below(choice, CHANNELS));
    }

    private static void writeEmail(long random, TextBuffer out) {
        out.writeWord(Hash.letters(Hash.at(random, 3)), emailName(random));
        out.write('@');
        out.writeWord(Hash.letters(Hash.at(random, 4)), emailHost(random));
        out.write(COM);
    }

    private static int emailName(long random) {
        return (int) (3 + Hash.below(Hash.at(random, 1), 4));
    }

    private static int emailHost(long random) {
        return (int) (3 + Hash.below(Hash.at(random, 2), 2));
    }

    private static void writeCreditCard(long random, TextBuffer out) {
        for (int part = 0; part < 4; part++) {
            if (part > 0) {
                out.write(' ');
            }
            long digits = Hash.below(Hash.at(random, part), 10_000);
            for (long unit = 1000; unit > 0; unit /= 10) {
                out.write((char) ('0' + digits / unit % 10));
            }
        }
    }

    private long personSize(long number) {
        long random = Hash.at(email, number);
        long names = pick(FIRST_NAMES, firstName, number).length + 1 + pick(LAST_NAMES, lastName, number).length;
        long address = emailName(random) + 1 + emailHost(random) + 4;
        return PERSON_NUMBERS + CREDIT_CARD_LENGTH + names + address + pick(CITIES, city, number).length + 2;
    }

    private long auctionSize(long number) {
        return AUCTION_NUMBERS + textLength(Hash.at(itemName, number), ITEM_NAME_LENGTH)
                + textLength(Hash.at(description, number), DESCRIPTION_LENGTH);
    }

    private void writeExtra(long number, long size, long average, TextBuffer out) {
        long random = Hash.at(extra, number);
        long missing = Math.max(0, average - size);
        long spread = (missing + 2) / 5;
        int left = (int) (missing - spread + Hash.below(random, 2 * spread));
        for (int word = 1; left > 0; word++, left -= 8) {
            out.writeWord(Hash.letters(Hash.at(random, word)), Math.min(left, 8));
        }
    }

    private static void writeWords(long random, long limit, TextBuffer out) {
        int start = out.size;
        int left = (int) textLength(random, limit);
        for (int word = 0; left > 0; word++, left -= 8) {
            long letters = Hash.letters(Hash.at(random, 2 * word + 1));
            long spaces = Hash.at(random, 2 * word + 2);
            for (int lane = 0; lane < 64; lane += 8) {
                if ((spaces >>> lane & 0xFF) < 20) {
                    letters = letters & ~(0xFFL << lane) | (long) ' ' << lane;
                }
            }
            out.writeWord(letters, Math.min(left, 8));
        }
        for (int at : new int[] {start, out.size - 1}) {
            if (out.bytes[at] == ' ') {
                out.bytes[at] = 'x';
            }
        }
    }

    private static long textLength(long random, long limit) {
        return TEXT_LENGTH_MIN + Hash.below(Hash.at(random, 1L << 32), limit - TEXT_LENGTH_MIN);
    }

    private static byte[] pick(byte[][] words, long key, long number) {
        return words[(int) Hash.below(Hash.at(key, number), words.length)];
    }

    private static byte[][] words(String... words) {
        return Arrays.stream(words).map(word -> word.getBytes(US_ASCII)).toArray(byte[][]::new);
    }
}
