/* The log; see log.h. */
#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static atomic_int max_level = LOG_WARN;

void log_set_level(enum log_level level)
{
    atomic_store(&max_level, (int)level);
}

bool log_wants(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

void log_line(enum log_level level, const char *about, const char *format, ...)
{
    static const char *const words[] = { "error: ", "warning: ", "", "" };
    if (!log_wants(level))
        return;
    /* One write per line keeps the lines of several threads and processes apart. */
    char line[4096];
    int used = g_snprintf(line, sizeof line, "hv: %s%s%s%s", words[level], about ? about : "",
                          about ? ": " : "", "");
    va_list args;
    va_start(args, format);
    used += g_vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
    va_end(args);
    used = MIN(used, (int)sizeof line - 2);
    line[used] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)used + 1);
    (void)ignored;
}

bool log_limit_pass(struct log_limit *limit, const char *about)
{
    enum { BURST = 5 };
    int64_t second = g_get_monotonic_time() / G_USEC_PER_SEC;
    if (second != limit->second) {
        unsigned dropped = limit->dropped;
        *limit = (struct log_limit){ .second = second };
        if (dropped)
            log_warn(about, "%u more such lines were not written", dropped);
    }
    if (limit->passed == BURST) {
        limit->dropped++;
        return false;
    }
    limit->passed++;
    return true;
}
