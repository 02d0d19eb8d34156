/* Putting IPv4 fragments together; see fragments.h. */
#include "net/fragments.h"

#include "net/net.h"
#include "net/segment.h"

#include <glib.h>
#include <string.h>

enum {
    IP = NET_ETHERNET,
    HEADER = 20,
    HEADERS = IP + HEADER,
    LENGTH = IP + 2,
    ID = IP + 4,
    FRAGMENT = IP + 6,
    PROTOCOL = IP + 9,
    SUM = IP + 10,
    SOURCE = IP + 12,
    BLOCK = 8,
    MORE = 0x2000,
    OFFSET = 0x1fff,
    PAYLOAD_MAX = 65535 - HEADER,
    AGE_MS = 30 * 1000, /* RFC 1122 section 3.3.2 wants 60 s to 120 s at most; others wait 30 s */
};

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

void fragments_finish(struct fragments *fragments)
{
    for (unsigned i = 0; i < FRAGMENTS_PLACES; i++)
        g_free(fragments->places[i].frame);
}

/* The datagram that a fragment belongs to: one that has begun, or a new one in the place of the
 * oldest. */
static struct datagram *datagram_of(struct fragments *fragments, const uint8_t *frame, int64_t now)
{
    struct datagram *oldest = &fragments->places[0];
    uint8_t key[sizeof oldest->key];
    memcpy(key, frame + SOURCE, 8);
    memcpy(key + 8, frame + ID, 2);
    key[10] = frame[PROTOCOL];
    for (unsigned i = 0; i < FRAGMENTS_PLACES; i++) {
        struct datagram *d = &fragments->places[i];
        if (d->since && now - d->since < AGE_MS && !memcmp(d->key, key, sizeof key))
            return d;
        if (d->since < oldest->since)
            oldest = d;
    }
    uint8_t *bytes = oldest->frame ? oldest->frame : g_malloc0(HEADERS + PAYLOAD_MAX);
    *oldest = (struct datagram){ .since = now, .frame = bytes };
    memcpy(oldest->key, key, sizeof key);
    return oldest;
}

/* Marks the blocks as there; false when one was there already. */
static bool mark(struct datagram *d, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        if (d->have[i / 8] & 1u << i % 8)
            return false;
        d->have[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return true;
}

static bool put(struct datagram *d, const uint8_t *frame, size_t payload)
{
    unsigned field = get16(frame + FRAGMENT);
    size_t at = (size_t)(field & OFFSET) * BLOCK, end = at + payload;
    bool last = !(field & MORE);
    if (!payload || end > PAYLOAD_MAX || (!last && payload % BLOCK) || (last && d->size))
        return false;
    if (last)
        d->size = end;
    if ((d->size && end > d->size) || !mark(d, at / BLOCK, (payload + BLOCK - 1) / BLOCK))
        return false;
    memcpy(d->frame + HEADERS + at, frame + HEADERS, payload);
    if (at == 0)
        memcpy(d->frame, frame, HEADERS);
    d->got += payload;
    return !d->size || d->got <= d->size;
}

uint8_t *fragments_add(struct fragments *fragments, const uint8_t *frame, size_t payload,
                       int64_t now, size_t *length)
{
    struct datagram *d = datagram_of(fragments, frame, now);
    if (!put(d, frame, payload)) {
        d->since = 0;
        return NULL;
    }
    if (!d->size || d->got < d->size)
        return NULL;
    put16(d->frame + LENGTH, HEADER + d->size);
    put16(d->frame + FRAGMENT, 0);
    put16(d->frame + SUM, 0);
    uint16_t sum = checksum_fold(checksum_add(0, d->frame + IP, HEADER));
    memcpy(d->frame + SUM, &sum, sizeof sum);
    d->since = 0;
    *length = HEADERS + d->size;
    return d->frame;
}
