/* A bad cable, because somebody wants one (net_set_faults): packets that are lost, or late. Between
 * net.c and trouble.c; all with the NIC's lock held but trouble_free. */
#pragma once
#include "net/net.h"

struct trouble;

/* `send` is net.c's way to the far end: false when there is no room now. */
struct trouble *trouble_new(struct net *net, struct clock *clock, GMutex *lock,
                            bool (*send)(struct net *net, const struct iovec *iov, unsigned count,
                                         size_t length));
void trouble_free(struct trouble *trouble); /* NULL is allowed */

/* What was late is sent now. */
void trouble_set(struct trouble *trouble, const struct net_faults *set);
const struct net_faults *trouble_get(const struct trouble *trouble);

/* The next packet, of either direction, gets lost. */
bool trouble_loses(struct trouble *trouble);
/* Keeps a copy of a packet for its time; false: it need not wait. */
bool trouble_delays(struct trouble *trouble, const struct iovec *iov, unsigned count,
                    size_t length);
