/* Traces of device accesses; see trace.h. Runs on the vCPUs' threads; the filter never changes. */
#include "machine/trace.h"

#include "base/error.h"
#include "bus/device.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct filter {
    bool space[SPACES];
    bool unclaimed;
    char **classes; /* NULL-terminated */
};

static bool wanted(const struct filter *filter, enum space space, const struct device *dev)
{
    if (filter->space[space])
        return true;
    if (!dev)
        return filter->unclaimed;
    return g_strv_contains((const char *const *)filter->classes, dev->class->name);
}

static void trace(void *opaque, enum space space, struct device *dev, uint64_t address,
                  unsigned length, uint64_t value, bool is_write)
{
    if (!wanted(opaque, space, dev))
        return;
    char line[128];
    int n = g_snprintf(line, sizeof line,
                       "%10" G_GINT64_FORMAT " %s %s%u %#" PRIx64 " %s %#" PRIx64 " %s\n",
                       g_get_monotonic_time() % 10000000000, is_write ? "W" : "R",
                       space == SPACE_PORTS ? "port" : "mmio", length * 8, address,
                       is_write ? "<-" : "->", value, dev ? dev->name : "nobody");
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
}

bool trace_start(struct bus *bus, const char *what, GError **error)
{
    struct filter *filter = g_new0(struct filter, 1); /* lives as long as the process */
    bool accesses = false;
    filter->classes = g_strsplit(what, ",", -1);
    for (char **word = filter->classes; *word; word++) {
        bool all = !strcmp(*word, "all");
        bool known = all || device_class_find(*word);
        if (all || !strcmp(*word, "ports"))
            known = filter->space[SPACE_PORTS] = true;
        if (all || !strcmp(*word, "mmio"))
            known = filter->space[SPACE_MMIO] = true;
        if (!strcmp(*word, "unclaimed"))
            known = filter->unclaimed = true;
        if (!strcmp(*word, "firmware"))
            known = true; /* hv has connected the log; no access is to be shown for it */
        else
            accesses = true;
        if (!known)
            return hv_fail(
                error, HV_USAGE,
                "--trace %s: all, ports, mmio, unclaimed, firmware or the name of a device "
                "class is wanted (hv devices lists them)",
                *word);
    }
    if (accesses) /* they get slower by it */
        bus_trace(bus, trace, filter);
    return true;
}
