/* The 82540EM's statistics (section 13.7): counters that reading clears. */
#include "e1000.h"

void e1000_count(struct e1000 *e, unsigned statistic, uint32_t n)
{
    uint32_t *at = &e->regs.statistics[statistic % STATISTICS];
    *at = n > UINT32_MAX - *at ? UINT32_MAX : *at + n; /* they stick */
}

static void count_octets(struct e1000 *e, unsigned low, uint64_t n)
{
    uint32_t *at = &e->regs.statistics[low];
    uint64_t sum = (at[0] | (uint64_t)at[1] << 32) + n;
    at[0] = (uint32_t)sum;
    at[1] = (uint32_t)(sum >> 32);
}

void e1000_count_frames(struct e1000 *e, unsigned first, uint32_t length, uint32_t n)
{
    static const uint16_t limits[] = { 64, 127, 255, 511, 1023 };
    bool rx = first == STAT_PRC64;
    unsigned i = 0;
    while (i < G_N_ELEMENTS(limits) && length > limits[i])
        i++;
    e1000_count(e, first + i, n);
    e1000_count(e, rx ? STAT_GPRC : STAT_GPTC, n);
    e1000_count(e, rx ? STAT_TPR : STAT_TPT, n);
    count_octets(e, rx ? STAT_GORCL : STAT_GOTCL, (uint64_t)length * n);
    count_octets(e, rx ? STAT_TORL : STAT_TOTL, (uint64_t)length * n);
}

/* Reading clears; of the octets, reading the upper half clears both. */
uint32_t e1000_read_statistic(struct e1000 *e, unsigned i)
{
    uint32_t *at = &e->regs.statistics[i], value = *at;
    bool low = i == STAT_GORCL || i == STAT_GOTCL || i == STAT_TORL || i == STAT_TOTL;
    bool high = i && (i - 1 == STAT_GORCL || i - 1 == STAT_GOTCL || i - 1 == STAT_TORL ||
                      i - 1 == STAT_TOTL);
    if (!low)
        *at = 0;
    if (high)
        at[-1] = 0;
    return value;
}
