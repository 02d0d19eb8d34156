/* Errors for people: every message says what failed, on what, why and what to do.
 * The code is the exit status of the command (man/hv.1, EXIT STATUS). */
#pragma once
#include <glib.h>
#include <stdbool.h>

enum hv_error {
    HV_OK = 0,
    HV_FAILED = 1,      /* anything without a more exact status */
    HV_USAGE = 2,       /* wrong option, key or value */
    HV_NOT_FOUND = 3,   /* no such machine */
    HV_WRONG_STATE = 4, /* running, locked, not running */
    HV_TIMED_OUT = 5,
    HV_HOST = 6,    /* the host cannot: no /dev/kvm, not enough memory */
    HV_CRASHED = 7, /* the guest crashed */
};

#define HV_ERROR hv_error_quark()
GQuark hv_error_quark(void);

/* The exit status for an error of any domain; HV_OK for NULL. */
int hv_exit_status(const GError *error);

/* g_set_error for HV_ERROR; returns false so that callers can `return hv_fail(...)`. */
bool hv_fail(GError **error, enum hv_error code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The entry of a NULL-terminated list nearest to what was typed, or NULL when none is near. */
const char *hv_nearest(const char *typed, const char *const *known);
