/* Units of OVF descriptions; see import-ovf.h. */
#include "cli/import-ovf.h"
#include "cli/import-xml.h"

#include <string.h>

bool ovf_unit_shift(const char *text, unsigned *shift)
{
    static const struct {
        const char *name;
        unsigned shift;
    } units[] = {
        { "byte", 0 },       { "bytes", 0 }, { "b", 0 },          { "kilobytes", 10 },
        { "kb", 10 },        { "kib", 10 },  { "megabytes", 20 }, { "mb", 20 },
        { "mib", 20 },       { "gb", 30 },   { "gigabytes", 30 }, { "gib", 30 },
        { "terabytes", 40 }, { "tb", 40 },   { "tib", 40 },
    };
    static const char power[] = "byte*2^";
    g_autofree char *lower = g_ascii_strdown(text, -1);
    char *to = lower;
    for (const char *c = lower; *c; c++)
        if (*c != ' ')
            *to++ = *c;
    *to = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (!strcmp(lower, units[i].name)) {
            *shift = units[i].shift;
            return true;
        }
    uint64_t value;
    bool ok =
        g_str_has_prefix(lower, power) && xml_number(lower + strlen(power), &value) && value <= 50;
    if (ok)
        *shift = (unsigned)value;
    return ok;
}
