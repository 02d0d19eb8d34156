/* What hv makes of an OVF description; see import-ovf.h. */
#include "cli/import-ovf.h"
#include "memory/guest.h"

char *ovf_drive_name(const struct ovf *ovf, guint drive)
{
    const struct ovf_drive *wanted = g_ptr_array_index(ovf->drives, drive);
    unsigned n = 1;
    for (guint i = 0; i < drive; i++)
        n += ((struct ovf_drive *)g_ptr_array_index(ovf->drives, i))->cd == wanted->cd;
    return g_strdup_printf(wanted->cd ? "cd%u.iso" : "disk%u.qcow2", n);
}

char *ovf_to_conf(const struct ovf *ovf)
{
    GString *conf = g_string_new("# What hv image import made of an OVF description. hv-run(1), "
                                 "\"Machine directories\".\n");
    if (ovf->memory)
        g_string_append_printf(conf, "memory = %" G_GUINT64_FORMAT "M\n",
                               (ovf->memory + MIB - 1) / MIB);
    if (ovf->cpus)
        g_string_append_printf(conf, "cpus = %" G_GUINT64_FORMAT "\n", ovf->cpus);
    for (guint i = 0; i < ovf->drives->len; i++) {
        const struct ovf_drive *drive = g_ptr_array_index(ovf->drives, i);
        g_autofree char *name = ovf_drive_name(ovf, i);
        if (drive->cd)
            g_string_append_printf(conf, "cdrom = %s\n", name);
        else
            g_string_append_printf(conf, "disk = %s%s%s\n", name, drive->bus ? ",bus=" : "",
                                   drive->bus ? drive->bus : "");
    }
    g_string_append_printf(conf, "net = %s%s%s\n", ovf->nic ? "user" : "none",
                           ovf->model ? ",model=" : "", ovf->model ? ovf->model : "");
    return g_string_free(conf, FALSE);
}
