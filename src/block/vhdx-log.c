/* The log of a VHDX image that was not closed ([MS-VHDX] 2.3): its entries of 4 KiB sectors in a
 * ring, each with descriptors of what is to be written where. What a replay would write is kept in
 * memory, and the file left as it is.
 *
 * The newest complete sequence of entries is the one to replay. Each place where an entry may begin
 * is judged at most once, and what that costs is bounded: the log is hostile too. */
#include "block/bytes.h"
#include "block/crc32c.h"
#include "block/reader.h"
#include "block/vhdx.h"

#include <string.h>

enum {
    LOG_LARGEST = 16 << 20,
    WRITES_MOST = 16384,
    SUMS_MOST = 16 << 20, /* bytes that sums are made of, beside 8 times the log's */
    SUMS_TIMES = 8,
};
/* An entry's header [2.3.1.1], little-endian. */
enum {
    SUM_AT = 4,
    LENGTH_AT = 8,
    TAIL_AT = 12,
    SEQUENCE_AT = 16,
    COUNT_AT = 24,
    GUID_AT = 32,
    FLUSHED_AT = 48,
    LAST_AT = 56,
    HEADER = 64,
};
/* A descriptor [2.3.1.2, 2.3.1.3]: the ends of a page that its data sector [2.3.1.4] has no room
 * for; or the length of zeros. */
enum {
    TRAILING_AT = 4,
    LEADING_AT = 8,
    PLACE_AT = 16,
    DESCRIPTOR_SEQUENCE_AT = 24,
    DESCRIPTOR = 32,
    DATA_HIGH_AT = 4,
    DATA_AT = 8,
    DATA_LOW_AT = VHDX_PAGE - 4,
};

struct entry {
    enum { UNKNOWN, BAD, GOOD } state;
    uint32_t length, tail, count;
    uint64_t sequence;
};

struct write {
    uint64_t at, length;              /* of the file */
    const uint8_t *descriptor, *data; /* in the log; data NULL: zeros */
};

struct vhdx_log {
    uint8_t *bytes;
    uint32_t length;
    const uint8_t *guid; /* while it is opened */
    struct entry *entries;
    uint64_t budget, end;
    struct write *writes; /* later ones hold */
    unsigned count;
    uint64_t low, high; /* all writes lie between */
};

/* Sector `n` of what begins at `at`. */
static const uint8_t *sector(const struct vhdx_log *log, uint64_t at, uint64_t n)
{
    return log->bytes + (at + n * VHDX_PAGE) % log->length;
}

static const uint8_t *descriptor(const struct vhdx_log *log, uint64_t at, uint64_t n)
{
    uint64_t byte = HEADER + n * DESCRIPTOR;
    return sector(log, at, byte / VHDX_PAGE) + byte % VHDX_PAGE;
}

static uint32_t descriptor_sectors(uint64_t count)
{
    return (uint32_t)((HEADER + count * DESCRIPTOR + VHDX_PAGE - 1) / VHDX_PAGE);
}

/* --- entries --------------------------------------------------------------------------------- */

static bool entry_sum_fits(struct vhdx_log *log, uint64_t at, uint32_t length)
{
    static const uint8_t zeros[4];
    const uint8_t *head = sector(log, at, 0);
    if (length > log->budget)
        return false;
    log->budget -= length;
    uint32_t crc = crc32c_add(~0u, head, SUM_AT);
    crc = crc32c_add(crc, zeros, 4);
    crc = crc32c_add(crc, head + LENGTH_AT, VHDX_PAGE - LENGTH_AT);
    for (uint32_t n = 1; n < length / VHDX_PAGE; n++)
        crc = crc32c_add(crc, sector(log, at, n), VHDX_PAGE);
    return ~crc == le32_at(head + SUM_AT);
}

static bool data_fits(const uint8_t *data, uint64_t sequence)
{
    return !memcmp(data, "data", 4) && le32_at(data + DATA_HIGH_AT) == sequence >> 32 &&
           le32_at(data + DATA_LOW_AT) == (uint32_t)sequence;
}

/* Places are pages of a file that can be. */
static bool range_fits(uint64_t at, uint64_t length)
{
    return at % VHDX_PAGE == 0 && length % VHDX_PAGE == 0 && at < INT64_MAX &&
           length < INT64_MAX - at;
}

static bool descriptors_fit(const struct vhdx_log *log, uint64_t at, const struct entry *entry)
{
    uint32_t used = descriptor_sectors(entry->count);
    for (uint32_t i = 0; i < entry->count; i++) {
        const uint8_t *d = descriptor(log, at, i);
        bool zero = !memcmp(d, "zero", 4);
        uint64_t length = zero ? le64_at(d + LEADING_AT) : VHDX_PAGE;
        if ((!zero && memcmp(d, "desc", 4)) ||
            le64_at(d + DESCRIPTOR_SEQUENCE_AT) != entry->sequence ||
            !range_fits(le64_at(d + PLACE_AT), length))
            return false;
        if (!zero && (used >= entry->length / VHDX_PAGE ||
                      !data_fits(sector(log, at, used++), entry->sequence)))
            return false;
    }
    return true;
}

static bool entry_fits(struct vhdx_log *log, uint64_t at, struct entry *entry)
{
    const uint8_t *head = sector(log, at, 0);
    entry->length = le32_at(head + LENGTH_AT);
    entry->tail = le32_at(head + TAIL_AT);
    entry->sequence = le64_at(head + SEQUENCE_AT);
    entry->count = le32_at(head + COUNT_AT);
    return !memcmp(head, "loge", 4) && !memcmp(head + GUID_AT, log->guid, GUID_SIZE) &&
           entry->length && entry->length % VHDX_PAGE == 0 && entry->length <= log->length &&
           entry->tail % VHDX_PAGE == 0 && entry->tail < log->length && entry->sequence &&
           entry->count <= WRITES_MOST &&
           descriptor_sectors(entry->count) <= entry->length / VHDX_PAGE &&
           entry_sum_fits(log, at, entry->length) && descriptors_fit(log, at, entry);
}

/* The entry that begins there; NULL when none does. */
static const struct entry *entry_at(struct vhdx_log *log, uint64_t at)
{
    struct entry *entry = &log->entries[at % log->length / VHDX_PAGE];
    if (entry->state == UNKNOWN)
        entry->state = entry_fits(log, at % log->length, entry) ? GOOD : BAD;
    return entry->state == GOOD ? entry : NULL;
}

/* --- sequences [2.3.2] -------------------------------------------------------------------------
 */

struct sequence {
    uint64_t tail;            /* where its first entry begins */
    uint64_t length;          /* bytes of all */
    const struct entry *last; /* NULL: it has none */
    uint64_t last_at;
};

/* Entries that follow each other, as far as they do. */
static struct sequence follow(struct vhdx_log *log, uint64_t tail)
{
    struct sequence s = { .tail = tail };
    const struct entry *entry;
    while ((entry = entry_at(log, tail + s.length)) &&
           (!s.last || entry->sequence == s.last->sequence + 1) &&
           entry->length <= log->length - s.length) {
        s.last = entry;
        s.last_at = (tail + s.length) % log->length;
        s.length += entry->length;
    }
    return s;
}

/* The newest sequence that is complete, from the entry which its last one names as the first that
 * counts. */
static struct sequence newest(struct vhdx_log *log)
{
    struct sequence best = { .last = NULL };
    for (uint64_t tail = 0, step; tail < log->length; tail += step) {
        struct sequence s = follow(log, tail), active = { .last = NULL };
        if (s.last)
            active = follow(log, s.last->tail);
        bool complete = s.last && active.last == s.last && active.length <= s.length;
        if (complete && (!best.last || s.last->sequence > best.last->sequence))
            best = active;
        step = complete ? s.length : VHDX_PAGE;
    }
    return best;
}

/* --- what would be written ---------------------------------------------------------------------
 */

/* Notes the writes of an entry; false when they are too many. */
static bool note(struct vhdx_log *log, uint64_t at, const struct entry *entry)
{
    uint32_t used = descriptor_sectors(entry->count);
    if (entry->count > WRITES_MOST - log->count)
        return false;
    for (uint32_t i = 0; i < entry->count; i++) {
        const uint8_t *d = descriptor(log, at, i);
        bool zero = !memcmp(d, "zero", 4);
        struct write w = { .at = le64_at(d + PLACE_AT), .length = VHDX_PAGE, .descriptor = d };
        if (zero)
            w.length = le64_at(d + LEADING_AT);
        else
            w.data = sector(log, at, used++);
        log->writes[log->count++] = w;
        log->low = MIN(log->low, w.at);
        log->high = MAX(log->high, w.at + w.length);
    }
    return true;
}

static bool replay(struct vhdx_log *log, const char *name, uint64_t file_end, GError **error)
{
    struct sequence s = newest(log);
    log->end = file_end;
    if (!s.last) /* it ended before it had changed anything */
        return true;
    const uint8_t *last = sector(log, s.last_at, 0);
    if (le64_at(last + FLUSHED_AT) > file_end)
        return reader_refuse(
            error, name, "the image is cut off: its log wants at least %" G_GUINT64_FORMAT " bytes",
            le64_at(last + FLUSHED_AT));
    uint64_t end = le64_at(last + LAST_AT);
    log->end = end > INT64_MAX ? file_end : MAX(file_end, end);
    for (uint64_t done = 0; done < s.length;) {
        const struct entry *entry = entry_at(log, s.tail + done);
        if (!entry || !note(log, (s.tail + done) % log->length, entry))
            return reader_refuse(error, name, "its log is beyond all bounds");
        done += entry->length;
    }
    return true;
}

struct vhdx_log *vhdx_log_open(struct disk *file, const char *name, const uint8_t *guid,
                               uint64_t at, uint32_t length, uint64_t file_end, GError **error)
{
    if (at % VHDX_ALIGN || length % VHDX_ALIGN || !length || length > LOG_LARGEST) {
        reader_refuse(error, name, "it was not closed, and its log of %u bytes makes no sense",
                      length);
        return NULL;
    }
    struct vhdx_log *log = g_try_new0(struct vhdx_log, 1);
    if (log) {
        log->length = length;
        log->guid = guid;
        log->low = UINT64_MAX;
        log->budget = (uint64_t)length * SUMS_TIMES + SUMS_MOST;
        log->bytes = g_try_malloc(length);
        log->entries = g_try_new0(struct entry, length / VHDX_PAGE);
        log->writes = g_try_new0(struct write, WRITES_MOST);
    }
    if (!log || !log->bytes || !log->entries || !log->writes)
        reader_refuse(error, name, "there is no memory for its log");
    else if (reader_copy_file(file, name, at, log->bytes, length, error) &&
             replay(log, name, file_end, error)) {
        g_clear_pointer(&log->entries, g_free);
        log->guid = NULL;
        return log;
    }
    vhdx_log_free(log);
    return NULL;
}

void vhdx_log_free(struct vhdx_log *log)
{
    if (!log)
        return;
    g_free(log->bytes);
    g_free(log->entries);
    g_free(log->writes);
    g_free(log);
}

uint64_t vhdx_log_end(const struct vhdx_log *log)
{
    return log->end;
}

bool vhdx_log_touches(const struct vhdx_log *log, uint64_t at, uint64_t length)
{
    if (at >= log->high || at + length <= log->low)
        return false;
    for (unsigned i = 0; i < log->count; i++)
        if (at < log->writes[i].at + log->writes[i].length && log->writes[i].at < at + length)
            return true;
    return false;
}

void vhdx_log_patch(const struct vhdx_log *log, uint64_t at, uint8_t *page)
{
    const struct write *w = NULL;
    if (at >= log->high || at < log->low)
        return;
    for (unsigned i = log->count; i-- && !w;)
        if (at >= log->writes[i].at && at - log->writes[i].at < log->writes[i].length)
            w = &log->writes[i];
    if (w && !w->data) {
        memset(page, 0, VHDX_PAGE);
    } else if (w) {
        memcpy(page, w->descriptor + LEADING_AT, DATA_AT);
        memcpy(page + DATA_AT, w->data + DATA_AT, VHDX_PAGE - DATA_AT - 4);
        memcpy(page + VHDX_PAGE - 4, w->descriptor + TRAILING_AT, 4);
    }
}
