/* The ACPI power management block of the ICH9 as logic of its own: registers and time in, status
 * out. It belongs to ich9-lpc, which has the ports, the timer and the lock. */
#pragma once
#include "base/state.h"

enum { ICH9_PM_SIZE = 128, ICH9_TCO_DWORDS = 5 };

struct ich9_pm {
    uint64_t epoch;   /* guest ns at which the PM timer was 0 */
    uint64_t carries; /* of the timer (bit 23 toggled) up to which TMROF_STS has been cleared */
    uint64_t gpe0_status, gpe0_enable;
    uint32_t pm1_control;
    uint32_t smi_enable, smi_status;
    uint32_t pm2_control;
    uint32_t tco[ICH9_TCO_DWORDS];
    uint16_t pm1_status, pm1_enable; /* TMROF_STS as of `carries` */
};
extern const struct field ich9_pm_fields[];

enum ich9_sleep { ICH9_AWAKE, ICH9_SUSPEND, ICH9_OFF };

void ich9_pm_reset(struct ich9_pm *pm, uint64_t now);
/* Offsets are below ICH9_PM_SIZE and aligned to the width (1, 2 or 4). */
uint32_t ich9_pm_read(const struct ich9_pm *pm, uint64_t now, unsigned offset, unsigned width);
/* Says what the write asks the machine to do. */
enum ich9_sleep ich9_pm_write(struct ich9_pm *pm, uint64_t now, unsigned offset, unsigned width,
                              uint32_t value);
void ich9_pm_press_button(struct ich9_pm *pm);

/* The level of the SCI, and when it will rise by itself (a guest time, or TIMER_NEVER). */
bool ich9_pm_sci(const struct ich9_pm *pm, uint64_t now);
uint64_t ich9_pm_deadline(const struct ich9_pm *pm, uint64_t now);
