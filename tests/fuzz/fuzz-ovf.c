/* The parser of OVF descriptions: the input is the text. It becomes a machine or is refused with a
 * sentence; the vm.conf of a machine can be read, unless a number in it is beyond what hv has.
 * Shared by libFuzzer and the replay of the corpus, as fuzz-device.c. */
#include "cli/conf.h"
#include "cli/import-ovf.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text)
{
    for (const char *c = text; *c; c++)
        if (g_ascii_iscntrl(*c))
            g_error("a control character gets through: %s", text);
    g_assert_true(g_utf8_validate(text, -1, NULL));
}

static void check_conf(const struct ovf *ovf)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(settings) config = config_new();
    g_autofree char *conf = ovf_to_conf(ovf);
    bool ok = conf_parse(config, conf, strlen(conf), conf_name, "/", &error);
    if (ok ? config->disks->len + config->cdroms->len != ovf->drives->len
           : !strstr(error->message, "memory"))
        g_error("%s: %s", ok ? "drives are missing" : error->message, conf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ovf_machine) ovf = ovf_parse((const char *)data, size, "machine.ovf", &error);
    if (!ovf != !!error)
        g_error("%s", ovf ? error->message : "a failure without a word");
    if (!ovf) {
        check_text(error->message);
        return 0;
    }
    for (guint i = 0; i < ovf->differences->len; i++)
        check_text(g_ptr_array_index(ovf->differences, i));
    for (guint i = 0; i < ovf->drives->len; i++) {
        const struct ovf_drive *drive = g_ptr_array_index(ovf->drives, i);
        g_assert_true(drive->file ? *drive->file && !strpbrk(drive->file, "/\\") : drive->capacity);
    }
    check_conf(ovf);
    return 0;
}
