/* ACPI power management of the ICH9; see ich9-pm.h.
 *
 * Manual: Intel ICH9 datasheet (316972), sections 13.8.3 (power management I/O registers) and 13.9
 * (TCO); ACPI 6.4 section 4.8. There is no SMM: SMI_EN's global and APM enables read as set, by
 * which firmware sees that SMM is taken care of, and SCI_EN as set, for the machine is always in
 * ACPI mode. The TCO watchdog is halted for good, and GCS.NO_REBOOT tells so. */
#include "devices/ich9-pm.h"

#include "base/clock.h"

/* Registers, by dword. */
enum {
    PM1_STS_EN = 0x00,
    PM1_CNT = 0x04,
    PM1_TMR = 0x08,
    GPE0_STS = 0x20,
    GPE0_EN = 0x28,
    SMI_EN = 0x30,
    SMI_STS = 0x34,
    PM2_CNT = 0x50,
    TCO = 0x60,
    TCO_END = TCO + 4 * ICH9_TCO_DWORDS,
};
enum {
    TMROF = 0x0001,
    GBL = 0x0020,
    PWRBTN = 0x0100,
    RTC = 0x0400,
    WAK = 0x8000,
    PM1_SCI = TMROF | GBL | PWRBTN | RTC, /* what raises the SCI */
    PM1_STATUS_BITS = 0xcd31,
    PM1_ENABLE_BITS = 0x4521,
};
enum {
    SCI_EN = 1,
    GBL_RLS = 4,
    SLP_TYP_SHIFT = 10,
    SLP_TYP = 7 << SLP_TYP_SHIFT,
    SLP_EN = 0x2000,
    PM1_CONTROL_BITS = 2 | SLP_TYP,
};
enum {
    SMI_FIXED = 0x21, /* GBL_SMI_EN, APMC_EN */
    SMI_BIOS_RLS = 0x80,
    SMI_ENABLE_BITS = 0x6685e,
    SMI_BIOS_STS = 4,
};
enum { TIMER_HZ = 3579545, TIMER_MASK = 0xffffff, CARRY_SHIFT = 23 };

/* TCO, 0x60 to 0x73: what software may write, and what is there at reset (section 13.9). */
static const struct {
    uint32_t writable, preset;
} tco[ICH9_TCO_DWORDS] = {
    { 0xffff0000, 0x00000004 }, /* TCO_RLD: the count, standing; TCO_DAT_IN, TCO_DAT_OUT */
    { 0, 0 },                   /* TCO1_STS, TCO2_STS */
    { 0x003e0200, 0x00080800 }, /* TCO1_CNT: halted; TCO2_CNT */
    { 0x00ffffff, 0 },          /* TCO_MESSAGE1 and 2, TCO_WDCNT */
    { 0x03ff0003, 0x00040003 }, /* SW_IRQ_GEN, TCO_TMR */
};

const struct field ich9_pm_fields[] = {
    SAVED(struct ich9_pm, epoch),
    SAVED(struct ich9_pm, carries),
    SAVED(struct ich9_pm, gpe0_status),
    SAVED(struct ich9_pm, gpe0_enable),
    SAVED_MAX(struct ich9_pm, pm1_control, PM1_CONTROL_BITS),
    SAVED_MAX(struct ich9_pm, smi_enable, SMI_ENABLE_BITS),
    SAVED(struct ich9_pm, smi_status),
    SAVED_MAX(struct ich9_pm, pm2_control, 1),
    SAVED_ARRAY(struct ich9_pm, tco),
    SAVED(struct ich9_pm, pm1_status),
    SAVED(struct ich9_pm, pm1_enable),
    SAVED_END,
};

static uint64_t timer_ticks(const struct ich9_pm *pm, uint64_t now)
{
    return muldiv64(now - pm->epoch, TIMER_HZ, NS_PER_SECOND);
}

void ich9_pm_reset(struct ich9_pm *pm, uint64_t now)
{
    *pm = (struct ich9_pm){ .epoch = now };
    for (unsigned i = 0; i < ICH9_TCO_DWORDS; i++)
        pm->tco[i] = tco[i].preset;
}

/* TMROF_STS is set whenever bit 23 of the timer toggles: worked out when somebody asks. */
static uint16_t pm1_status(const struct ich9_pm *pm, uint64_t now)
{
    bool carried = timer_ticks(pm, now) >> CARRY_SHIFT != pm->carries;
    return (uint16_t)(pm->pm1_status | (carried ? TMROF : 0));
}

static void clear_pm1_status(struct ich9_pm *pm, uint64_t now, uint32_t bits)
{
    pm->pm1_status = (uint16_t)(pm1_status(pm, now) & ~bits);
    pm->carries = timer_ticks(pm, now) >> CARRY_SHIFT;
}

bool ich9_pm_sci(const struct ich9_pm *pm, uint64_t now)
{
    return pm1_status(pm, now) & pm->pm1_enable & PM1_SCI || pm->gpe0_status & pm->gpe0_enable;
}

uint64_t ich9_pm_deadline(const struct ich9_pm *pm, uint64_t now)
{
    if (!(pm->pm1_enable & TMROF) || pm1_status(pm, now) & TMROF)
        return TIMER_NEVER;
    uint64_t ticks = ((timer_ticks(pm, now) >> CARRY_SHIFT) + 1) << CARRY_SHIFT;
    return pm->epoch + muldiv64(ticks, NS_PER_SECOND, TIMER_HZ) + 1;
}

void ich9_pm_press_button(struct ich9_pm *pm)
{
    pm->pm1_status |= PWRBTN;
}

/* --- registers ------------------------------------------------------------------------------ */

static uint32_t read_dword(const struct ich9_pm *pm, uint64_t now, unsigned reg)
{
    switch (reg) {
    case PM1_STS_EN:
        return pm1_status(pm, now) | (uint32_t)pm->pm1_enable << 16;
    case PM1_CNT:
        return pm->pm1_control | SCI_EN;
    case PM1_TMR:
        return timer_ticks(pm, now) & TIMER_MASK;
    case GPE0_STS:
        return (uint32_t)pm->gpe0_status;
    case GPE0_STS + 4:
        return (uint32_t)(pm->gpe0_status >> 32);
    case GPE0_EN:
        return (uint32_t)pm->gpe0_enable;
    case GPE0_EN + 4:
        return (uint32_t)(pm->gpe0_enable >> 32);
    case SMI_EN:
        return pm->smi_enable | SMI_FIXED;
    case SMI_STS:
        return pm->smi_status;
    case PM2_CNT:
        return pm->pm2_control;
    default:
        return reg >= TCO && reg < TCO_END ? pm->tco[(reg - TCO) / 4] : 0;
    }
}

uint32_t ich9_pm_read(const struct ich9_pm *pm, uint64_t now, unsigned offset, unsigned width)
{
    uint32_t value = read_dword(pm, now, offset & ~3U) >> (offset & 3) * 8;
    return width == 4 ? value : value & ((1U << width * 8) - 1);
}

/* `old` with the bits of `lanes` and `writable` taken from value. */
static uint32_t merge(uint32_t old, uint32_t value, uint32_t lanes, uint32_t writable)
{
    return (old & ~(lanes & writable)) | (value & lanes & writable);
}

/* What SLP_TYP means: 0, 1 and 2 as in this machine's DSDT (S5, S3, S4); 5, 6 and 7 as in the
 * manual (S3, S4, S5), for firmware that knows the chip and reads no DSDT. After S4 the guest finds
 * its memory on its disk: the machine is off. */
static enum ich9_sleep sleep_of(uint32_t control)
{
    static const uint8_t by_type[8] = {
        [0] = ICH9_OFF,     [1] = ICH9_SUSPEND, [2] = ICH9_OFF,
        [5] = ICH9_SUSPEND, [6] = ICH9_OFF,     [7] = ICH9_OFF,
    };
    return by_type[(control & SLP_TYP) >> SLP_TYP_SHIFT];
}

static enum ich9_sleep write_control(struct ich9_pm *pm, uint32_t value, uint32_t lanes)
{
    pm->pm1_control = merge(pm->pm1_control, value, lanes, PM1_CONTROL_BITS);
    if (value & lanes & GBL_RLS)
        pm->smi_status |= SMI_BIOS_STS;
    if (!(value & lanes & SLP_EN))
        return ICH9_AWAKE;
    enum ich9_sleep sleep = sleep_of(pm->pm1_control);
    if (sleep == ICH9_SUSPEND)
        pm->pm1_status |= WAK; /* seen when the guest runs again */
    return sleep;
}

static void write_gpe0(struct ich9_pm *pm, unsigned reg, uint32_t value, uint32_t lanes)
{
    unsigned shift = reg & 4 ? 32 : 0;
    uint64_t bits = (uint64_t)(value & lanes) << shift;
    if (reg < GPE0_EN)
        pm->gpe0_status &= ~bits;
    else
        pm->gpe0_enable = (pm->gpe0_enable & ~((uint64_t)lanes << shift)) | bits;
}

enum ich9_sleep ich9_pm_write(struct ich9_pm *pm, uint64_t now, unsigned offset, unsigned width,
                              uint32_t value)
{
    unsigned reg = offset & ~3U, shift = (offset & 3) * 8;
    uint32_t lanes = (width == 4 ? UINT32_MAX : (1U << width * 8) - 1) << shift;
    value <<= shift;
    switch (reg) {
    case PM1_STS_EN:
        clear_pm1_status(pm, now, value & lanes & PM1_STATUS_BITS);
        pm->pm1_enable = (uint16_t)merge(pm->pm1_enable, value >> 16, lanes >> 16, PM1_ENABLE_BITS);
        break;
    case PM1_CNT:
        return write_control(pm, value, lanes);
    case GPE0_STS:
    case GPE0_STS + 4:
    case GPE0_EN:
    case GPE0_EN + 4:
        write_gpe0(pm, reg, value, lanes);
        break;
    case SMI_EN:
        pm->smi_enable = merge(pm->smi_enable, value, lanes, SMI_ENABLE_BITS);
        if (value & lanes & SMI_BIOS_RLS)
            pm->pm1_status |= GBL;
        break;
    case SMI_STS:
        pm->smi_status &= ~(value & lanes);
        break;
    case PM2_CNT:
        pm->pm2_control = merge(pm->pm2_control, value, lanes, 1);
        break;
    default:
        if (reg >= TCO && reg < TCO_END) {
            unsigned i = (reg - TCO) / 4;
            pm->tco[i] = merge(pm->tco[i], value, lanes, tco[i].writable);
        }
    }
    return ICH9_AWAKE;
}
