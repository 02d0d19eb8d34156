/* hv run --trace: the guest's accesses to devices, one line each on stderr. The firmware's log,
 * which it can also ask for, is a stream of the debug port (machine_files.firmware_log). */
#pragma once
#include "memory/bus.h"

/* what: "all", or a list of "ports", "mmio", "unclaimed", "firmware" and names of device classes.
 * Before the vCPUs run. False when a word is unknown. */
bool trace_start(struct bus *bus, const char *what, GError **error);
