package mainstem.nexmark;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.Arrays;

/** The texts of one column, one after the other. */
final class TextBuffer {
    private static final VarHandle WORD = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    byte[] bytes;
    /** Where the text of each row ends. */
    final int[] ends;
    int size;
    private int rows;

    TextBuffer(int rows, int bytesARow) {
        bytes = new byte[rows * bytesARow + 64];
        ends = new int[rows];
    }

    void endText() {
        ends[rows++] = size;
    }

    void write(byte[] source, int start, int end) {
        reserve(end - start);
        System.arraycopy(source, start, bytes, size, end - start);
        size += end - start;
    }

    void write(byte[] source) {
        write(source, 0, source.length);
    }

    void write(char letter) {
        reserve(1);
        bytes[size++] = (byte) letter;
    }

    /** The first {@code count} of the eight bytes of a word, the lowest one first. */
    void writeWord(long word, int count) {
        reserve(8);
        WORD.set(bytes, size, word);
        size += count;
    }

    private void reserve(int more) {
        if (size + more > bytes.length) {
            bytes = Arrays.copyOf(bytes, Math.max(size + more, bytes.length * 2));
        }
    }
}
