import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

/**
 * What mqtest's own jobs read and write, byte for byte: mqtest/body.py (a message and its name) and mqtest/jobs.py (key,
 * amount and window of a message, the form of an output). Knows nothing of Flink.
 *
 * <p>As a program it reads lines `run producer seq due key place window messages amount offset`, and writes for each the
 * key and the amount of that message with 100 keys, and the body of that output: what the tests hold against Python.
 */
public final class Form {
  static final int HEADER = 64;
  static final long RUNNER = 0xFFFFFFFEL;
  private static final long SEQ = 0x9E3779B97F4A7C15L, PRODUCER = 0xC2B2AE3D27D4EB4FL;
  private static final long MOST_AMOUNT = 10_000;

  /** Who sent a message, and when it was due. */
  record Head(long run, long producer, long seq, long dueNs) {}

  /** The header of a body, or null when it is none of mqtest's, or does not match its checksum. */
  static Head decode(byte[] body) {
    if (body == null || body.length < HEADER) return null;
    if (body[0] != 'M' || body[1] != 'Q' || body[2] != 'T' || body[3] != '1') return null;
    try {
      CRC32 crc = new CRC32();
      crc.update(body, 0, 44);
      crc.update(body, 52, body.length - 52);
      if (crc.getValue() != number(body, 44, 52)) return null;
      return new Head(number(body, 4, 12), number(body, 12, 20), number(body, 20, 28), number(body, 28, 44));
    } catch (NumberFormatException e) {
      return null;
    }
  }

  private static long number(byte[] body, int from, int to) {
    return Long.parseUnsignedLong(new String(body, from, to - from, StandardCharsets.US_ASCII), 16);
  }

  private static long mixed(long producer, long seq) {
    return seq * SEQ + (producer + 1) * PRODUCER;
  }

  static int key(long producer, long seq, int keys) {
    return (int) ((mixed(producer, seq) >>> 40) % keys);
  }

  static long amount(long producer, long seq) {
    return 1 + (mixed(producer, seq) >>> 20 & 0xFFFFF) % MOST_AMOUNT;
  }

  /** The body of one output. */
  static byte[] encode(
      long run, long producer, long seq, int key, int place, long window, long messages, long amount, long offset) {
    String head = String.format("MQT1%08x%08x%08x%016x", run, producer, seq, 0);
    String tail =
        String.format("------------%04x%04x%08x%016x%016x%016x", key, place, window, messages, amount, offset);
    CRC32 crc = new CRC32();
    crc.update((head + tail).getBytes(StandardCharsets.US_ASCII));
    return (head + String.format("%08x", crc.getValue()) + tail).getBytes(StandardCharsets.US_ASCII);
  }

  public static void main(String[] none) {
    new java.io.BufferedReader(new java.io.InputStreamReader(System.in))
        .lines()
        .map(line -> java.util.Arrays.stream(line.split(" ")).mapToLong(Long::parseLong).toArray())
        .forEach(
            n ->
                System.out.printf(
                    "%d %d %s%n",
                    key(n[1], n[2], 100),
                    amount(n[1], n[2]),
                    new String(
                        encode(n[0], n[1], n[2], (int) n[4], (int) n[5], n[6], n[7], n[8], n[9]),
                        StandardCharsets.US_ASCII)));
  }
}
