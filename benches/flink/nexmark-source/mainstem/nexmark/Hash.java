package mainstem.nexmark;

/**
 * Random numbers without a state: every value is a hash of where it stands. The same numbers, bit for bit, as
 * {@code crates/connectors/src/generator/random.rs}; a change belongs in both.
 */
final class Hash {
    private static final long GOLDEN = 0x9E3779B97F4A7C15L;

    private Hash() {}

    /** The key of the numbers of one field of one stream. */
    static long key(long seed, long field) {
        return mix(seed ^ mix((field + 1) * GOLDEN));
    }

    /** The number at a place; also a further number derived from one, where {@code place} counts up from 1. */
    static long at(long key, long place) {
        return mix(key + place * GOLDEN);
    }

    /** Brings a number, taken as unsigned, into 0 to {@code bound}, exclusive; 0 for a bound of 0. */
    static long below(long number, long bound) {
        // The high half of the unsigned product; Math.unsignedMultiplyHigh comes only with Java 18.
        return Math.multiplyHigh(number, bound) + ((number >> 63) & bound);
    }

    /** Brings a number into 0 to 1, exclusive. */
    static double unit(long number) {
        return (number >>> 11) * 0x1.0p-53;
    }

    /** Eight lower-case letters, the first one in the lowest byte. */
    static long letters(long number) {
        // Eight bytes at once: each times 26, divided by 256, in lanes of 16 bits so that nothing overflows.
        final long lanes = 0x00FF00FF00FF00FFL;
        long even = (((number & lanes) * 26) >>> 8) & lanes;
        long odd = (((number >>> 8) & lanes) * 26) & ~lanes;
        return (even | odd) + 0x6161616161616161L;
    }

    private static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
