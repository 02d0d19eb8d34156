/* Guest time; see patience.h. */
#include "test/patience.h"

#include <stdio.h>
#include <string.h>

enum {
    WALL_TIMES = 10,
    WALL_MORE = 60
}; /* the clock's limit: so many times as long, and seconds */

/* Microseconds that the vCPU which waited longest was ready to run and did not: proc(5), schedstat.
 */
static gint64 waited(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task", (int)pid);
    g_autoptr(GDir) tasks = pid ? g_dir_open(path, 0, NULL) : NULL;
    const char *task;
    gint64 most = 0;
    while (tasks && (task = g_dir_read_name(tasks))) {
        g_autofree char *comm = g_build_filename(path, task, "comm", NULL), *name = NULL;
        g_autofree char *file = g_build_filename(path, task, "schedstat", NULL), *text = NULL;
        guint64 wait;
        if (g_file_get_contents(comm, &name, NULL, NULL) && g_str_has_prefix(name, "vcpu") &&
            g_file_get_contents(file, &text, NULL, NULL) &&
            sscanf(text, "%*u %" G_GUINT64_FORMAT, &wait) == 1)
            most = MAX(most, (gint64)(wait / 1000));
    }
    return most;
}

void patience_start(struct patience *patience, pid_t pid, gint64 limit)
{
    gint64 now = g_get_monotonic_time();
    *patience = (struct patience){
        .pid = pid,
        .began = now,
        .waited = waited(pid),
        .limit = limit,
        .wall_end = now + limit * WALL_TIMES + WALL_MORE * G_USEC_PER_SEC,
    };
}

gint64 patience_busy(const struct patience *patience)
{
    gint64 passed = g_get_monotonic_time() - patience->began;
    /* Asked once: CLAMP names what it is given three times, and the process may end meanwhile. */
    gint64 busy = waited(patience->pid) - patience->waited;
    return CLAMP(busy, 0, passed);
}

gint64 patience_left(const struct patience *patience)
{
    gint64 now = g_get_monotonic_time();
    gint64 left =
        patience->limit - (now - patience->began - patience->excused - patience_busy(patience));
    return MIN(left, patience->wall_end - now);
}
