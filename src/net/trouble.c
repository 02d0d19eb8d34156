/* Packets that are lost or late; see trouble.h. Late ones wait in a list, all for the same time,
 * and leave on the clock's thread. Like a router's, its room is bounded: what does not fit is lost.
 */
#include "net/trouble.h"

#include "base/clock.h"

#include <string.h>

enum { BYTES_MAX = 16 << 20, PACKETS_MAX = 16384, AGAIN_NS = 1000000 };

struct late {
    struct late *next;
    uint64_t due; /* guest ns */
    size_t length;
    uint8_t packet[];
};

struct trouble {
    struct net *net;
    bool (*send)(struct net *net, const struct iovec *iov, unsigned count, size_t length);
    struct net_faults set;
    GRand *rand;
    struct timer timer;
    struct late *first, **last;
    size_t bytes;
    unsigned packets;
};

bool trouble_loses(struct trouble *trouble)
{
    return trouble->set.loss &&
           (uint32_t)g_rand_int_range(trouble->rand, 0, NET_LOSS_ALL) < trouble->set.loss;
}

bool trouble_delays(struct trouble *trouble, const struct iovec *iov, unsigned count, size_t length)
{
    if (!trouble->set.delay)
        return false;
    bool room = trouble->packets < PACKETS_MAX && length <= BYTES_MAX - trouble->bytes;
    struct late *late = room ? g_try_malloc(sizeof *late + length) : NULL;
    if (!late)
        return true;
    uint8_t *to = late->packet;
    for (unsigned i = 0; i < count; to += iov[i++].iov_len)
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
    late->next = NULL;
    late->due = clock_now(trouble->timer.clock) + trouble->set.delay;
    late->length = length;
    if (!trouble->first)
        timer_set(&trouble->timer, late->due);
    *trouble->last = late;
    trouble->last = &late->next;
    trouble->bytes += length;
    trouble->packets++;
    return true;
}

static void drop_first(struct trouble *trouble)
{
    struct late *late = trouble->first;
    trouble->first = late->next;
    if (!trouble->first)
        trouble->last = &trouble->first;
    trouble->bytes -= late->length;
    trouble->packets--;
    g_free(late);
}

/* False: the far end has no room. */
static bool send_first(struct trouble *trouble)
{
    struct iovec iov = { trouble->first->packet, trouble->first->length };
    if (!trouble->send(trouble->net, &iov, 1, iov.iov_len))
        return false;
    drop_first(trouble);
    return true;
}

static void on_time(void *owner)
{
    struct trouble *trouble = owner;
    uint64_t now = clock_now(trouble->timer.clock);
    bool room = true;
    for (unsigned i = 0; i < NET_BATCH && room && trouble->first && trouble->first->due <= now; i++)
        room = send_first(trouble);
    timer_set(&trouble->timer, !room            ? now + AGAIN_NS
                               : trouble->first ? trouble->first->due
                                                : TIMER_NEVER);
}

struct trouble *trouble_new(struct net *net, struct clock *clock, GMutex *lock,
                            bool (*send)(struct net *net, const struct iovec *iov, unsigned count,
                                         size_t length))
{
    struct trouble *trouble = g_new0(struct trouble, 1);
    trouble->net = net;
    trouble->send = send;
    trouble->last = &trouble->first;
    timer_init(&trouble->timer, clock, lock, on_time, trouble);
    return trouble;
}

void trouble_set(struct trouble *trouble, const struct net_faults *set)
{
    while (trouble->first)
        if (!send_first(trouble))
            drop_first(trouble);
    timer_cancel(&trouble->timer);
    if (trouble->rand)
        g_rand_free(trouble->rand);
    trouble->rand = g_rand_new_with_seed(set->seed);
    trouble->set = *set;
}

const struct net_faults *trouble_get(const struct trouble *trouble)
{
    return &trouble->set;
}

void trouble_free(struct trouble *trouble)
{
    if (!trouble)
        return;
    timer_finish(&trouble->timer);
    while (trouble->first)
        drop_first(trouble);
    if (trouble->rand)
        g_rand_free(trouble->rand);
    g_free(trouble);
}
