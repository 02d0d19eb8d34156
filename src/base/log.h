/* The log: lines on stderr (the journal, a file, a terminal), prefixed with what they are about.
 * Any thread may call everything here. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above this level are dropped; LOG_WARN until set. */
void log_set_level(enum log_level level);
bool log_wants(enum log_level level);

void log_line(enum log_level level, const char *about, const char *format, ...) G_GNUC_PRINTF(3, 4);

#define log_error(about, ...) log_line(LOG_ERROR, about, __VA_ARGS__)
#define log_warn(about, ...)  log_line(LOG_WARN, about, __VA_ARGS__)
#define log_info(about, ...)  log_line(LOG_INFO, about, __VA_ARGS__)

/* At most BURST lines a second for things that a guest can cause as often as it likes; the number
 * of dropped lines is told with the next one that passes. Zero-initialise. */
struct log_limit {
    int64_t second;
    unsigned passed, dropped;
};

/* True when the caller may write a line now. */
bool log_limit_pass(struct log_limit *limit, const char *about);
